"""The table's numbers against numbers by hand, and the figure."""

import math
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from spvit_experiments import report
from spvit_experiments.statistics import format_interval, format_mean, paired
from spvit_mini import plots

# Final accuracies of five seeds. Differences: 20, 30, 10, 40, 20: mean 24, s = √130, t(4) = 2.776445.
PLAIN = [[20.0, 40.0], [30.0, 50.0], [30.0, 60.0], [20.0, 40.0], [30.0, 70.0]]
PRIOR = [[50.0, 60.0], [70.0, 80.0], [60.0, 70.0], [75.0, 80.0], [80.0, 90.0]]


@pytest.fixture
def study(tiny):
    return replace(tiny, seeds=(0, 1, 2, 3, 4), level=75)


@pytest.fixture
def records(study, made):
    found = {("plain", seed): made(study, "plain", seed, curve) for seed, curve in enumerate(PLAIN)}
    return found | {("prior", seed): made(study, "prior", seed, curve) for seed, curve in enumerate(PRIOR)}


def rows_of(text: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    return {row[0]: row[1:] for row in rows}


def test_the_table_by_hand(study, records):
    rows = rows_of(report.make_table(study, records))
    assert rows["arm"][2:5] == ["reached 75 %", "steps to 75 %, median", "minus plain [95 %]"]
    assert rows["plain"] == ["40.0 50.0 60.0 40.0 70.0", "52.0 ± 13.0", "0 of 5", "∞ (never)", "–", "1,234,567", "12.5"]
    # Steps to 75 %: never, 20, never, 10, 10. In order: 10, 10, 20, ∞, ∞.
    reach = 2.776445 * math.sqrt(130 / 5)
    between = f"+24.0 [{24 - reach:+.1f}, {24 + reach:+.1f}], n = 5"
    assert rows["prior"] == ["60.0 80.0 70.0 80.0 90.0", "76.0 ± 11.4", "3 of 5", "20", between, "1,234,567", "12.5"]


def test_a_median_between_reaching_and_never_is_never(study, records):
    four = {key: record for key, record in records.items() if key[1] in (0, 1, 2, 3)}
    assert rows_of(report.make_table(study, four))["prior"][2:4] == ["2 of 4", "∞"]


def test_what_is_missing_is_said_and_pairs_are_those_that_both_arms_have(study, records):
    del records["plain", 4], records["prior", 0]
    text = report.make_table(study, records)
    assert "2 of 10 runs are missing: prior seed 0, plain seed 4" in text
    assert rows_of(text)["prior"][4].endswith("n = 3") and rows_of(text)["prior"][4].startswith("+26.7")


def test_a_run_that_diverged_counts_as_nothing_learned(study, records, made):
    records["prior", 4] = made(study, "prior", 4, [80.0], diverged=True, parameters=None)
    text = report.make_table(study, records)
    row = rows_of(text)["prior"]
    assert row[0] == "60.0 80.0 70.0 80.0 diverged" and row[1].startswith("58.0 ±")
    assert "counts as 0 %" in text


def test_mixed_devices_and_changed_files_are_said(study, records):
    assert "More than one device" not in report.make_table(study, records)
    records["prior", 4] = replace(records["prior", 4], device="NVIDIA H200", dirty=True)
    text = report.make_table(study, records)
    assert (
        "CPU, 1 thread, NVIDIA H200" in text and "More than one device" in text and "differ from their commit" in text
    )


def test_a_tuned_option_is_shown_and_one_at_the_end_of_its_grid_is_doubted(study, made):
    study = replace(study, tuning={"optim.lr": (1e-3, 2e-3, 4e-3)}, tuning_seeds=(100,))
    finals = {(label, 100): 50.0 for arm in study.arms for label in study.candidates(arm)}
    finals |= {("plain@optim.lr=0.002", 100): 60.0, ("prior@optim.lr=0.004", 100): 60.0}
    study = study.apply_tuning(finals)
    text = report.make_table(study, {(arm, 0): made(study, arm, 0, [50.0]) for arm in study.arms})
    assert [row[-1] for row in rows_of(text).values()] == ["optim.lr", "0.002", "0.004"]
    assert "prior: the best optim.lr, 0.004, lies at an end" in text and "plain: the best" not in text


def test_the_figure_draws_every_seed(study, records, tmp_path):
    figure = report.draw_figure(study, records)
    left, right = figure.axes
    drawn = [tuple(line.get_ydata()) for line in left.lines]
    assert all(tuple(curve) in drawn for curve in PLAIN + PRIOR)
    assert (26.0, 52.0) in drawn, "the mean of the plain arm"
    dots = [tuple(np.asarray(dots.get_offsets())[:, 1]) for dots in right.collections]
    assert dots == [(40, 50, 60, 40, 70), (60, 80, 70, 80, 90)]
    figure.savefig(tmp_path / "figure.png")
    assert plt.imread(tmp_path / "figure.png").std() > 0.05
    plt.close(figure)


def test_every_arm_has_a_colour_of_its_own(study):
    many = {f"arm{i}": replace(study.arms["prior"], changes={"seed": i}) for i in range(15)}
    colours = report.assign_colours(replace(study, arms=study.arms | many))
    assert colours["plain"] == plots.COLOURS["vit"]
    assert len(set(map(str, colours.values()))) == 17


@pytest.mark.parametrize(
    ("values", "limits"),
    [([5.0, 7.0], (4.5, 7.5)), ([98.0, 100.0], (97.5, 100.5)), ([12.5, 99.0], (-2, 103)), ([6.0], (5.5, 6.5)), ([], (-2, 103))],
)
def test_the_axis_of_a_figure_fits_its_accuracies(values, limits):
    assert report.choose_limits(values) == pytest.approx(limits)


def test_a_study_around_six_percent_is_drawn_at_its_own_scale(study, made):
    records = {(arm, 0): made(study, arm, 0, [5.0, value]) for arm, value in (("plain", 6.0), ("prior", 7.0))}
    figure = report.draw_figure(study, records)
    for axes in figure.axes:
        assert axes.get_ylim() == pytest.approx((4.5, 7.5))
    assert "outside: 75 %" in figure.axes[0].get_title(loc="left")
    plt.close(figure)


def test_one_seed_has_no_deviation_and_equal_pairs_have_no_interval(study, made):
    def table(plain, prior):
        values = {(arm, seed): value for arm, own in (("plain", plain), ("prior", prior)) for seed, value in enumerate(own)}
        return rows_of(report.make_table(study, {key: made(study, *key, [value]) for key, value in values.items()}))

    one = table([50.0], [60.0])
    assert one["plain"][1] == "50.0 (n = 1)" and one["prior"][4] == "+10.0 (one pair)"
    equal = table([50.0, 50.0], [60.0, 60.0])
    assert equal["prior"][1] == "60.0 ± 0.0" and equal["prior"][4] == "+10.0 (all pairs equal), n = 2"
    alone = table([], [60.0, 61.0])
    assert "plain" not in alone and alone["prior"][4] == "no pairs"
    assert not any("nan" in cell for rows in (one, equal, alone) for row in rows.values() for cell in row)
    assert format_mean([]) == "–" and format_interval(paired([], [])) == "no pairs"


def test_candidates_that_tuning_cannot_tell_apart_are_named(study, made):
    study = replace(study, tuning={"optim.lr": (1e-3, 2e-3, 4e-3)}, tuning_seeds=(100,))
    finals = {(f"plain@optim.lr={value}", 100): final for value, final in ((1e-3, 40.0), (2e-3, 55.0), (4e-3, 55.04))}
    finals |= {(f"prior@optim.lr={value}", 100): final for value, final in ((1e-3, 40.0), (2e-3, 55.0), (4e-3, 50.0))}
    study = study.apply_tuning(finals)
    text = report.make_table(study, {(arm, 0): made(study, arm, 0, [50.0]) for arm in study.arms})
    assert "**plain: the candidates optim.lr=0.002 and optim.lr=0.004 are tied at 55.0 %; optim.lr=0.004 is used.**" in text
    assert "prior: the candidates" not in text
