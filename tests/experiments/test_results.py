"""The page of results says what the records hold, and nothing that was typed."""

import re
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest

from spvit_experiments import get_study, result_sections, results
from spvit_experiments.claims import AGREES, CLAIMS, CONTRADICTS, OPEN, Comparison, compute_difference, verdict
from spvit_experiments.records import RESULTS, read_runs
from spvit_experiments.statistics import Difference


@pytest.fixture(scope="module")
def page():
    """The page, computed once: it takes all records."""
    return results.make_page()


@pytest.mark.slow
def test_page_and_records_agree_and_a_page_that_was_touched_is_refused(page, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "make_page", lambda: page)
    assert results.main(["--check"]) == 0, capsys.readouterr().out
    (tmp_path / "results.md").write_text(page.replace("+", "−", 1), encoding="utf-8")
    monkeypatch.setattr(results, "PAGE", tmp_path / "results.md")
    assert results.main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().out


def test_every_figure_of_the_page_is_there(page):
    figures = result_sections.draw_figures()
    plt.close("all")
    linked = set(re.findall(r"\]\(results/(\w+)\.png\)", page))
    assert linked == {*results.list_finished(), *figures}
    assert all((results.PAGE.with_suffix("") / f"{name}.png").is_file() for name in linked)


@pytest.mark.parametrize("claim", CLAIMS, ids=[claim.says for claim in CLAIMS])
def test_every_claim_names_studies_and_arms_that_there_are(claim):
    for comparison in claim.comparisons:
        study = get_study(comparison.study)
        study.check_arm(comparison.better)
        study.check_arm(comparison.worse)


@pytest.mark.parametrize(
    ("low", "high", "word"), [(0.1, 2, AGREES), (-2, -0.1, CONTRADICTS), (-1, 3, OPEN), (0, 3, OPEN), (-3, 0, OPEN)]
)
def test_an_interval_that_holds_0_is_no_agreement(low, high, word):
    assert verdict(Difference(5, (low + high) / 2, low, high)) == word


def test_differences_are_paired_by_seed_over_all_seeds():
    study = get_study("lesson_07")
    records = {record.key: record for record in read_runs("lesson_07", RESULTS)}
    asked = Comparison("lesson_07", "psa", "vit")
    gaps = [records["psa", seed].final - records["vit", seed].final for seed in study.seeds]
    assert compute_difference(asked, study, records, "final").mean == pytest.approx(sum(gaps) / 5)
    means = [
        sum(row["val_top1"] for row in records[arm, seed].rows) / 8 for arm in ("psa", "vit") for seed in study.seeds
    ]
    assert compute_difference(asked, study, records, "run").mean == pytest.approx((sum(means[:5]) - sum(means[5:])) / 5)

    diverged = records | {("psa", 2): replace(records["psa", 2], diverged=True)}
    assert compute_difference(asked, study, diverged, "final").mean == pytest.approx((sum(gaps) - records["psa", 2].final) / 5)
    del records["vit", 4]
    assert compute_difference(asked, study, records, "final") is None
