"""What lesson 11 says of its records."""

import pytest
import torch

from spvit_experiments import paired, read_records
from spvit_experiments.explanations import AS_TABLE, LOOKING, SIZES, scenes
from spvit_mini.explain.faithfulness import contrast, hits

SEEN = [arm for arm in LOOKING.arms if arm != "spsa-no-positions"]


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
    most = {arm: max(values(arm, "hit_untrained_rollout") + values(arm, "hit_untrained_relevance")) for arm in SEEN}
    assert max(most["spsa"], most["psa"]) == pytest.approx(0.364, abs=1e-3)
    assert most["spsa-late"] == pytest.approx(0.478, abs=1e-3) == max(values("spsa-late", "hit_untrained_rollout"))


def test_relevance_finds_fewer_on_average():
    for arm in SEEN:
        assert mean(arm, "hit_relevance") < mean(arm, "hit_rollout")
        by_deletion = paired(values(arm, "deletion_relevance"), values(arm, "deletion_rollout"))
        assert by_deletion.low < 0 < by_deletion.high
    assert min(SEEN, key=lambda arm: mean(arm, "hit_relevance")) == "spsa-late"
    assert 100 * mean("spsa-late", "hit_relevance") == pytest.approx(67.4, abs=0.05)
    assert 100 * mean("spsa-late", "hit_rollout") == pytest.approx(95.1, abs=0.05)


def test_the_late_model_looks_at_the_places_also_where_it_is_wrong():
    right = values("spsa-late", "val_top1")
    assert max(right) - min(right) > 20 and min(values("spsa-late", "hit_rollout")) > 0.8


def test_deletion_hardly_tells_contrast_from_rollout():
    for arm in SEEN:
        assert abs(mean(arm, "deletion_contrast") - mean(arm, "deletion_rollout")) < 0.05
        assert mean(arm, "hit_contrast") == pytest.approx(0.6, abs=0.03)
        assert mean(arm, "deletion_random") > mean(arm, "deletion_rollout") + 0.2
        assert mean(arm, "insertion_rollout") > mean(arm, "insertion_contrast")
        scores = ("deletion", "insertion")
        deletion, insertion = (paired(values(arm, f"{s}_contrast"), values(arm, f"{s}_rollout")) for s in scores)
        assert deletion.low > 0 if arm != "psa" else deletion.mean < 0 < deletion.high
        assert insertion.low < 0 < insertion.high if arm == "spsa" else insertion.high < 0


def test_contrast_takes_the_five_coloured_patches_first_and_prefers_red_and_green():
    made = scenes(400, 0)
    places = torch.stack([made.lighthouse, made.ship], dim=1)
    found = {top: hits(contrast(made.images, (6, 6)), places, top=top).mean().item() for top in (2, 5)}
    assert found[2] > 0.55 and found[5] == 1  # two of five in any order: 0.4
    for arm in SEEN:
        both = [a + b for a, b in zip(values(arm, "hit_contrast"), values(arm, "decoys_contrast"), strict=True)]
        assert both == pytest.approx([1.0] * 5)


def test_foci_cover_no_more_than_chance():
    rows = read_records("looking_heads")
    for arm in SEEN:
        for layer in sorted({row["layer"] for row in rows if row["arm"] == arm}):
            some = [row for row in rows if (row["arm"], row["layer"]) == (arm, layer)]
            union, chance = (sum(row[column] for row in some) / len(some) for column in ("union", "chance"))
            assert union < chance
            seeds = [[row[column] for row in some if row["head"] == 0] for column in ("union", "chance")]
            gain = paired(*seeds)
            assert gain.high < 0 if (arm, layer) in (("spsa", 1), ("psa", 0)) else gain.low < 0 < gain.high
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
        gain = paired(there("spsa", size), there("spsa-no-positions", size))
        assert gain.low < 0 < gain.high
    assert sum(there("psa", (12, 12, 3))) > sum(there("spsa", (12, 12, 3)))
    last = {arm: sum(there(arm, (18, 18, 3))) / 5 for arm in (*LOOKING.arms, baked)}
    assert all(value < sum(there(arm, (6, 6, 3))) / 5 - 15 for arm, value in last.items())
    assert (round(min(last.values())), round(max(last.values()))) == (39, 63)


def test_the_farther_ship_is_the_easier_one():
    farther = {arm: paired(there(arm, (12, 12, 8)), there(arm, (12, 12, 3))) for arm in (*LOOKING.arms, "spsa" + AS_TABLE)}
    assert min(gain.mean for gain in farther.values()) > 0
    assert sum(gain.low > 0 for gain in farther.values()) == 3
    assert farther["spsa"].mean == pytest.approx(9.7, abs=0.05)
