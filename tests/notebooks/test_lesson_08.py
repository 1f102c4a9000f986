"""Lesson 08 says of its records what they hold."""

import json
import math

import pytest

from spvit_experiments import paired, read_records, steps_to
from spvit_experiments.records import RESULTS

SETS = {"compass6": 12.5, "textures6": 25.0}  # with the accuracy of chance
ARMS = ["vit", "temperature", "linear", "table_multiplied", "quadratic_multiplied", "spsa", "mlp_added", "rpb"]
ARMS += ["psa_neutral", "psa"]


@pytest.fixture(scope="module")
def curves():
    """List the curves of each set and arm, seed by seed: {set: {arm: [[(step, accuracy), …], …]}}."""
    found = {images: {arm: {} for arm in ARMS} for images in SETS}
    for images, arms in found.items():
        for row in read_records(f"variants_{images}"):
            if row["arm"] in arms:
                arms[row["arm"]].setdefault(row["seed"], []).append((row["step"], row["val_top1"]))
    return {images: {arm: [arms[arm][seed] for seed in range(5)] for arm in ARMS} for images, arms in found.items()}


def ends(curves, images, arm):
    return [curve[-1][1] for curve in curves[images][arm]]


def solved(curves, images, arm):
    return [steps_to(curve, 90) for curve in curves[images][arm]]


def test_psa_solves_both_sets_and_sp_sa_one_never_sooner(curves):
    psa, spsa = (solved(curves, "compass6", arm) for arm in ("psa", "spsa"))
    assert max(psa) < math.inf and all(one <= other for one, other in zip(psa, spsa, strict=True))
    assert [step < math.inf for step in spsa] == [True, True, True, True, False]
    assert round(ends(curves, "compass6", "spsa")[4]) == 79
    textures = ends(curves, "textures6", "psa")
    assert min(textures[:4]) > 90 and textures[4] < 29
    assert min(solved(curves, "textures6", "spsa")) == math.inf
    for images in SETS:
        gain = paired(ends(curves, images, "spsa"), ends(curves, images, "psa"))
        assert gain.low < 0 < gain.high


@pytest.mark.parametrize(("images", "chance"), SETS.items())
def test_without_a_layout_all_stays_at_chance(curves, images, chance):
    for arm in ("vit", "temperature"):
        assert max(ends(curves, images, arm)) < chance + 4


def test_on_compass_planes_and_added_networks_solve_the_task_too(curves):
    for arm in ("linear", "mlp_added"):
        assert max(solved(curves, "compass6", arm)) < math.inf
    gain = paired(ends(curves, "compass6", "spsa"), ends(curves, "compass6", "mlp_added"))
    assert gain.low < 0 < gain.high
    hills, neutral = (solved(curves, "compass6", arm) for arm in ("psa", "psa_neutral"))
    assert all(one < other for one, other in zip(hills, neutral, strict=True))
    assert sum(step < math.inf for step in neutral) == 4


@pytest.mark.parametrize(("images", "seeds"), [("compass6", 1), ("textures6", 0)])
def test_a_table_of_factors_solves_compass_on_one_seed(curves, images, seeds):
    assert sum(step < math.inf for step in solved(curves, images, "table_multiplied")) == seeds


def test_on_textures_products_leave_chance_and_only_hills_solve_it(curves):
    for arm in ("linear", "mlp_added", "psa_neutral", "rpb", "table_multiplied"):
        assert max(ends(curves, "textures6", arm)) < 29
    spsa = ends(curves, "textures6", "spsa")
    assert (round(min(spsa)), round(max(spsa))) == (37, 60) and min(spsa) > 29
    assert paired(spsa, ends(curves, "textures6", "mlp_added")).low > 0
    assert sum(end > 29 for end in ends(curves, "textures6", "quadratic_multiplied")) in (1, 2, 3, 4)


def test_one_seed_had_spoken_for_the_table(curves):
    rows = [row for row in read_records("variants_textures6-tuning") if row["arm"].startswith("table_multiplied")]
    assert round(max(row["val_top1"] for row in rows)) == 71
    rows = [row for row in read_records("variants_textures6-tuning") if row["arm"].startswith("psa@")]
    last = {row["arm"]: row["val_top1"] for row in rows}  # rows are in order of their steps
    assert last["psa@optim.lr=0.016"] - last["psa@optim.lr=0.008"] == 0.25


@pytest.mark.parametrize("images", SETS)
def test_each_arm_ran_with_the_rate_that_the_lesson_prints(images):
    """The lesson takes the best of the tuning, the smallest where several are; the recipes say what was run."""
    ended = {row["arm"]: row["val_top1"] for row in read_records(f"variants_{images}-tuning")}
    lines = (RESULTS / f"variants_{images}.jsonl").read_text(encoding="utf-8").splitlines()
    ran = {run["arm"]: run["recipe"]["optim"]["lr"] for run in map(json.loads, lines)}
    for arm in ARMS:
        before = f"{arm}@optim.lr="
        rates = {float(name.removeprefix(before)): end for name, end in ended.items() if name.startswith(before)}
        assert len(rates) == 3 and max(rates, key=rates.get) == ran[arm]


def test_without_a_layout_textures_are_guessed_alike(curves):
    assert ends(curves, "textures6", "vit") == ends(curves, "textures6", "temperature")


def test_a_wider_first_layer_is_sooner_but_all_released_starts_get_there():
    found = {}
    for row in read_records("init"):
        found.setdefault(row["arm"], {}).setdefault(row["seed"], []).append((row["step"], row["val_top1"]))
    sooner = {arm: [steps_to(of[seed], 90) for seed in range(5)] for arm, of in found.items()}
    released, wide, widest = (sooner[arm] for arm in ("0.02_released", "0.5", "2.0"))
    assert max(released + wide + widest) < math.inf
    assert sorted((a > b) - (a < b) for a, b in zip(released, wide, strict=True)) == [0, 1, 1, 1, 1]
    assert sorted((a > b) - (a < b) for a, b in zip(wide, widest, strict=True)) == [-1, 1, 1, 1, 1]
