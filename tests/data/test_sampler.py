"""The order of training images: each epoch a permutation, and the same from any start step."""

from itertools import islice

import pytest
from torch.utils.data import DataLoader

from spvit_mini.data import Key, TrainBatches
from spvit_mini.errors import UserError


def first(batches: TrainBatches, count: int) -> list[list[Key]]:
    return list(islice(iter(batches), count))


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_each_epoch_is_a_new_permutation(seed):
    batches = TrainBatches(12, 4, seed)
    assert batches.steps_per_epoch == 3
    orders = []
    for epoch in range(5):
        keys = [key for batch in first(batches, 15)[3 * epoch : 3 * epoch + 3] for key in batch]
        assert {key.epoch for key in keys} == {epoch} and {key.copy for key in keys} == {0}
        orders.append(tuple(key.index for key in keys))
        assert sorted(orders[-1]) == list(range(12))
    assert len(set(orders)) == 5


def test_images_that_fill_no_batch_differ_between_epochs():
    batches = TrainBatches(11, 4, 0)
    assert batches.steps_per_epoch == 2
    left_out = set()
    for epoch in range(20):
        keys = [key for batch in first(batches, 40)[2 * epoch : 2 * epoch + 2] for key in batch]
        assert len(set(keys)) == 8
        left_out |= set(range(11)) - {key.index for key in keys}
    assert left_out == set(range(11))


def test_a_late_start_step_gives_the_tail_of_the_whole():
    whole = first(TrainBatches(11, 4, 5), 40)
    for start in (0, 1, 2, 3, 7, 29, 30):
        assert first(TrainBatches(11, 4, 5, start_step=start), 40 - start) == whole[start:]
        again = TrainBatches(11, 4, 5, start_step=start)
        assert first(again, 3) == first(again, 3) == whole[start : start + 3]


def test_seeds_differ_and_a_late_start_costs_nothing():
    assert first(TrainBatches(100, 10, 0), 1) != first(TrainBatches(100, 10, 1), 1)
    assert first(TrainBatches(10, 5, 0, start_step=2 * 10**12), 1)[0][0].epoch == 10**12


def test_the_order_of_epoch_0_seed_0_never_changes():
    assert [key.index for batch in first(TrainBatches(10, 5, 0), 2) for key in batch] == [0, 7, 6, 1, 5, 2, 4, 8, 9, 3]


def test_a_batch_must_fit():
    assert TrainBatches(4, 4, 0).steps_per_epoch == 1
    with pytest.raises(UserError, match="batch_size is 5; expected 1 to 4, the number of training images"):
        TrainBatches(4, 5, 0)
    with pytest.raises(UserError, match="batch_size is 0; expected 1 to 4"):
        TrainBatches(4, 0, 0)


class Keys:
    """Give back the keys that are asked for, to see what arrives at a data set."""

    def __len__(self):
        return 10

    def __getitem__(self, key):
        assert isinstance(key, Key)
        return tuple(key)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_passes_keys_on_in_order(workers):
    batches = TrainBatches(10, 3, 1, start_step=4)
    loader = DataLoader(Keys(), batch_sampler=batches, num_workers=workers, collate_fn=list)
    assert [batch for batch in islice(iter(loader), 7)] == [
        [tuple(key) for key in batch] for batch in first(batches, 7)
    ]


@pytest.mark.parametrize("repeats", [2, 3])
def test_repeated_views_come_together_in_an_epoch_of_as_many_steps(repeats):
    plain, repeated = TrainBatches(24, 6, 5), TrainBatches(24, 6, 5, repeats=repeats)
    assert repeated.steps_per_epoch == plain.steps_per_epoch == 4
    order = [key.index for batch in first(plain, 4) for key in batch]
    for step, batch in enumerate(first(repeated, 4)):
        expected = order[6 // repeats * step : 6 // repeats * (step + 1)]
        assert batch == [Key(0, index, copy) for copy in range(repeats) for index in expected]


def test_neighbours_in_a_batch_of_repeated_views_are_different_images():
    """MixUp mixes neighbours, the last with the first: an image with itself would teach nothing."""
    for batch in first(TrainBatches(48, 12, 0, repeats=3), 8):
        assert all(a.index != b.index for a, b in zip(batch, [*batch[1:], batch[0]], strict=True))


def test_repeats_that_do_not_divide_a_batch_still_give_each_view_once():
    keys = [key for batch in first(TrainBatches(20, 5, 1, repeats=3), 4) for key in batch]
    assert len(keys) == len(set(keys)) == 20
    assert len({key.index for key in keys}) == 7  # ⌈20 / 3⌉


@pytest.mark.parametrize(("world", "micro"), [(1, 4), (2, None), (2, 2), (3, 1), (4, 3)])
def test_processes_and_micro_batches_share_a_batch(world, micro):
    count = 12 // (world * (micro or 12 // world))
    for repeats, start in ((1, 0), (1, 3), (3, 0), (3, 3)):
        whole = first(TrainBatches(40, 12, 7, start, repeats=repeats), 5)
        ranks = [TrainBatches(40, 12, 7, start, repeats=repeats, rank=rank, world_size=world, micro_batch_size=micro)
                 for rank in range(world)]  # fmt: skip
        shares = [first(batches, 5 * count) for batches in ranks]
        for step, batch in enumerate(whole):
            own = [[key for part in share[step * count : (step + 1) * count] for key in part] for share in shares]
            assert all(own[rank] == batch[rank::world] for rank in range(world))
            assert sorted(key for part in own for key in part) == sorted(batch)


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    with pytest.raises(UserError, match="batch_size is 10, which 4 processes cannot share evenly; change batch_size"):
        TrainBatches(40, 10, 0, world_size=4)
    with pytest.raises(UserError, match="which 2 processes with micro-batches of 4 cannot share evenly"):
        TrainBatches(40, 12, 0, world_size=2, micro_batch_size=4)
