"""Lesson 08 says of its records what they hold."""

import pytest

from spvit_mini.studies import read_records, steps_to

SETS = {"Compass6": 12.5, "Textures6": 25.0}  # with the accuracy of chance
ARMS = ["vit", "temperature", "linear", "table_multiplied", "quadratic_multiplied", "spsa", "mlp_added", "rpb"]
ARMS += ["psa_neutral", "psa"]


@pytest.fixture(scope="module")
def curves():
    """List the curves of each set and arm, one for each learning rate: {set: {arm: [[(step, accuracy), …], …]}}."""
    found = {images: {arm: {} for arm in ARMS} for images in SETS}
    for images, arms in found.items():
        for row in read_records(f"variants_{images.lower()}-tuning"):
            arm, rate = row["arm"].split("@")
            if arm in arms:
                arms[arm].setdefault(rate, []).append((row["step"], row["val_top1"]))
    return {images: {arm: list(arms[arm].values()) for arm in ARMS} for images, arms in found.items()}


def ends(curves, images, arm):
    return [curve[-1][1] for curve in curves[images][arm]]


def first(curves, images, arm):
    return min(steps_to(curve, 90) for curve in curves[images][arm])


@pytest.mark.parametrize("images", SETS)
def test_every_arm_has_as_many_runs(curves, images):
    assert {arm: len(runs) for arm, runs in curves[images].items()} == dict.fromkeys(ARMS, 3)


@pytest.mark.parametrize("images", SETS)
def test_psa_is_as_good_as_sp_sa_and_sooner(curves, images):
    assert max(ends(curves, images, "psa")) >= max(ends(curves, images, "spsa"))
    assert first(curves, images, "psa") < first(curves, images, "spsa")


@pytest.mark.parametrize(("images", "chance"), SETS.items())
def test_without_a_layout_all_stays_near_chance(curves, images, chance):
    for arm in ("vit", "temperature", "rpb"):
        assert max(ends(curves, images, arm)) < chance + 4


def test_on_compass_the_network_needs_no_product_and_the_quadratic_no_hills(curves):
    assert max(ends(curves, "Compass6", "mlp_added")) >= max(ends(curves, "Compass6", "spsa"))
    assert first(curves, "Compass6", "mlp_added") < first(curves, "Compass6", "spsa")
    assert min(ends(curves, "Compass6", "psa_neutral")) > 99
    assert first(curves, "Compass6", "psa") < first(curves, "Compass6", "psa_neutral")


def test_on_compass_a_plane_does_what_the_network_does(curves):
    assert max(ends(curves, "Compass6", "linear")) >= max(ends(curves, "Compass6", "spsa"))
    assert first(curves, "Compass6", "linear") < first(curves, "Compass6", "spsa")
    assert max(ends(curves, "Textures6", "linear")) < 29


@pytest.mark.parametrize(("images", "chance"), SETS.items())
def test_a_table_leaves_chance_as_a_factor_alone(curves, images, chance):
    assert max(ends(curves, images, "table_multiplied")) > 2 * chance
    assert max(ends(curves, images, "rpb")) < chance + 4


def test_on_textures_products_leave_chance_and_only_the_hills_solve_it(curves):
    for arm in ("mlp_added", "rpb", "psa_neutral"):
        assert max(ends(curves, "Textures6", arm)) < 30
    assert min(ends(curves, "Textures6", "spsa")) > 38
    assert max(ends(curves, "Textures6", "table_multiplied")) > 60
    for arm in ARMS[:-1]:
        assert first(curves, "Textures6", arm) == float("inf")
    assert min(ends(curves, "Textures6", "psa")) > 95
