"""What lesson 11 says of its records."""

import pytest

from spvit_mini.studies import paired, read_records
from spvit_mini.studies.looking import AS_TABLE, LOOKING, SIZES

SEEN = [arm for arm in LOOKING.arms if arm != "spsa-positions"]


def values(arm, column):
    return [row[column] for row in read_records("looking") if row["arm"] == arm]


def mean(arm, column):
    return sum(values(arm, column)) / 5


def there(arm, size):
    rows = read_records("resolution")
    return [row["val_top1"] for row in rows if row["arm"] == arm and (row["rows"], row["cols"], row["reach"]) == size]


def test_every_run_is_there():
    runs = {(arm, seed) for arm, seed in LOOKING.runs()}
    assert {(row["arm"], row["seed"]) for row in read_records("looking")} == runs
    assert {(row["arm"], row["seed"]) for row in read_records("looking_heads")} == runs
    moved = {*LOOKING.arms, "spsa" + AS_TABLE}
    assert {(row["arm"], row["rows"], row["cols"], row["reach"]) for row in read_records("resolution")} == {
        (arm, *size) for arm in moved for size in SIZES
    }
    assert all(len(there(arm, size)) == 5 for arm in moved for size in SIZES)


def test_rollout_finds_the_places_and_chance_and_untrained_models_do_not():
    for arm in ("spsa", "psa"):
        assert min(values(arm, "hit_rollout")) > 0.9 and min(values(arm, "val_top1")) > 95
    for arm in SEEN:
        assert all(0.03 < value < 0.08 for value in values(arm, "hit_random"))
        assert max(values(arm, "hit_untrained_rollout") + values(arm, "hit_untrained_relevance")) < 0.5


def test_relevance_finds_fewer_on_average():
    for arm in SEEN:
        assert mean(arm, "hit_relevance") < mean(arm, "hit_rollout")


def test_the_late_model_looks_at_the_places_also_where_it_is_wrong():
    right = values("spsa-late", "val_top1")
    assert max(right) - min(right) > 20 and min(values("spsa-late", "hit_rollout")) > 0.8


def test_deletion_hardly_tells_contrast_from_rollout():
    for arm in SEEN:
        assert abs(mean(arm, "deletion_contrast") - mean(arm, "deletion_rollout")) < 0.05
        assert mean(arm, "hit_contrast") == pytest.approx(0.6, abs=0.03)
        assert mean(arm, "deletion_random") > mean(arm, "deletion_rollout") + 0.1


def test_foci_cover_no_more_than_chance():
    rows = read_records("looking_heads")
    for arm in SEEN:
        for layer in sorted({row["layer"] for row in rows if row["arm"] == arm}):
            some = [row for row in rows if (row["arm"], row["layer"]) == (arm, layer)]
            union, chance = (sum(row[column] for row in some) / len(some) for column in ("union", "chance"))
            assert union < chance + 0.02
            if (arm, layer) in (("spsa", 1), ("psa", 0)):
                assert union < chance - 0.02
            far = sum(row["nonlocality"] for row in some) / len(some)
            if arm == "psa":
                assert far < 2.3
            else:
                assert 2.8 < far < 3.6  # looking everywhere alike: 3.08


def test_other_grids():
    assert min(there("psa", (8, 8, 3))) > 98
    near = sorted(there("spsa", (8, 8, 3)))
    assert near[0] < 80 and near[1] > 93
    assert there("spsa", (6, 6, 3))[there("spsa", (8, 8, 3)).index(near[0])] > 99
    baked = "spsa" + AS_TABLE
    assert there(baked, (6, 6, 3)) == there("spsa", (6, 6, 3))
    assert sum(there("spsa", (6, 10, 3))) > sum(there(baked, (6, 10, 3)))
    for size in ((12, 12, 3), (18, 18, 3)):
        assert all(one > other for one, other in zip(there(baked, size), there("spsa", size), strict=True))
        gain = paired(there("spsa", size), there("spsa-positions", size))
        assert gain.low < 0 < gain.high
    assert sum(there("psa", (12, 12, 3))) > sum(there("spsa", (12, 12, 3)))
    for arm in (*LOOKING.arms, baked):
        assert sum(there(arm, (18, 18, 3))) / 5 < sum(there(arm, (6, 6, 3))) / 5 - 15
