"""Random streams: frozen, apart from each other, and without a trace in torch's own generator."""

import numpy as np
import pytest
import torch

from spvit_mini.data.seeding import fork_torch_rng, make_random_state
from spvit_mini.errors import UserError


def test_a_stream_is_numpys_twister_seeded_by_words():
    # Independent: the words are spelled out here. "a" has the CRC-32 0xE8B7BE43.
    ours = make_random_state("a", 5, 2**32 + 7).randint(2**31, size=6)
    again = np.random.RandomState([0xE8B7BE43, 5, 0, 7, 1]).randint(2**31, size=6)
    assert ours.tolist() == again.tolist()


def test_the_numbers_of_a_stream_never_change():
    assert make_random_state("training order", 0, 0).permutation(10).tolist() == [0, 7, 6, 1, 5, 2, 4, 8, 9, 3]


def test_streams_of_other_purposes_seeds_and_numbers_differ():
    seen = {
        tuple(make_random_state(purpose, seed, *more).randint(2**31, size=4))
        for purpose in ("a", "b")
        for seed in (0, 1, 2**32, 2**64 - 1)
        for more in ((), (0,), (1,))
    }
    assert len(seen) == 2 * 4 * 3


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_an_impossible_seed_is_refused(seed):
    with pytest.raises(UserError, match=f"the seed is {seed}; expected an integer"):
        make_random_state("a", seed)


def test_forked_generators_depend_on_their_numbers_alone_and_are_restored():
    torch.manual_seed(3)
    expected = torch.rand(4)
    drawn = {}
    for before in (3, 4):
        torch.manual_seed(before)
        for numbers in [(0, 0, 0, 0), (0, 0, 0, 1), (0, 1, 0, 0), (1, 0, 0, 0)]:
            with fork_torch_rng(*numbers):
                drawn.setdefault(numbers, []).append(torch.rand(3).tolist())
    assert all(first == second for first, second in drawn.values())
    assert len({tuple(first) for first, _ in drawn.values()}) == 4
    torch.manual_seed(3)
    with fork_torch_rng(9, 9):
        torch.rand(7)
    assert torch.equal(torch.rand(4), expected)


def test_the_generator_is_restored_after_an_error_too():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with pytest.raises(KeyError), fork_torch_rng(0, 1):
        torch.rand(1)
        raise KeyError
    assert torch.equal(torch.rand(4), expected)
