"""The page on speed says what the records hold; and the record says that SP-SA grows as attention does."""

import shutil

import pytest

from spvit_experiments.benchmark import command, page
from spvit_experiments.benchmark.attention import PLAIN
from spvit_experiments.benchmark.scaling import EAGER, FIXED, RECOMPUTE, VALUES
from spvit_experiments.records import RESULTS
from spvit_mini.errors import UserError

ROWS = page.read_scaling(RESULTS)


def test_page_and_records_agree_and_a_page_that_was_touched_is_refused(tmp_path, monkeypatch, capsys):
    assert command.main(["page", "--check"]) == 0, capsys.readouterr().out
    assert page.FIGURE.is_file()
    touched = tmp_path / "speed.md"
    touched.write_text(page.make_page(RESULTS).replace("1", "2", 1), encoding="utf-8")
    monkeypatch.setattr(page, "PAGE", touched)
    assert command.main(["page", "--check"]) == 1
    assert "out of date" in capsys.readouterr().out


def test_the_program_writes_page_and_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "PAGE", tmp_path / "speed.md")
    monkeypatch.setattr(page, "FIGURE", tmp_path / "results" / "growth.png")
    assert command.main(["page"]) == 0
    assert (tmp_path / "speed.md").read_text(encoding="utf-8") == page.make_page(RESULTS)
    assert page.FIGURE.stat().st_size > 10_000


def test_the_record_has_every_size_with_every_side():
    for what, values in VALUES.items():
        found = page.group_by_size(ROWS, what)
        assert [int(sides["SPSA"][what]) for sides in found] == sorted(values)
        for sides in found:
            assert set(sides) == set(page.SIDES)
            row = sides["SPSA"]
            assert all(int(row[other]) == value for other, value in FIXED.items() if other != what)


@pytest.mark.parametrize("side", ["SPSA", RECOMPUTE])
def test_sp_sa_grows_as_attention_does(side):
    """Beside plain attention written out, at every size: a constant factor. SP-SA stores scores and weights, that weights."""
    for what in VALUES:
        grown = page.group_by_size(ROWS, what)
        for sides in grown:
            ours, plain = sides[side], sides[EAGER]
            assert int(ours["peak_bytes"]) < 2 * int(plain["peak_bytes"]), (what, ours[what])
            assert int(ours["multiply_adds"]) < 1.1 * int(plain["multiply_adds"])
        for sides in grown[-3:]:  # of small sizes the time is a matter of calls
            assert float(sides[side]["ratio"]) < 1.5 * float(sides[EAGER]["ratio"]), (what, sides[side][what])


def test_recomputed_keeps_no_scores_of_an_image():
    few, many = page.group_by_size(ROWS, "images")[-2:]
    more = {side: int(many[side]["peak_bytes"]) - int(few[side]["peak_bytes"]) for side in page.SIDES}
    images, row = int(many["SPSA"]["images"]) - int(few["SPSA"]["images"]), many["SPSA"]
    scores = 4 * images * int(row["heads"]) * int(row["patches"]) ** 2
    assert more[RECOMPUTE] - more[PLAIN] < 0.3 * scores
    assert more["SPSA"] - more[PLAIN] > 0.7 * scores


def test_a_promise_that_was_not_measured_is_said_so(tmp_path):
    assert page.targets_section(tmp_path / "none.csv").count("not measured") == len(page.TARGETS)


def test_records_that_are_missing_or_mixed_are_refused(tmp_path):
    with pytest.raises(UserError, match="the record .* is missing"):
        page.read_scaling(tmp_path)
    shutil.copy(RESULTS / "growth.csv", tmp_path)
    with (tmp_path / "growth.csv").open("a") as file:
        file.write(",".join([*ROWS[0].values()][:-4] + ["another machine", "1", "2", ""]) + "\n")
    with pytest.raises(UserError, match="several machines"):
        page.read_scaling(tmp_path)
