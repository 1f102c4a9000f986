"""A study's records: whole, resumable, and equal to what the lessons say of them."""

import re
from pathlib import Path

import nbformat
import pytest

from spvit_mini import study
from spvit_mini.errors import UserError

ROOT = Path(__file__).parent.parent
TINY = study.Study(
    "Two seeds, two steps.", ("vit_mini_compass6",), (0, 1), {"length": "2 steps", "data.train_images": 200}
)


@pytest.mark.slow
def test_a_study_goes_on_where_it_was_and_runs_nothing_twice(tmp_path, capsys):
    path = tmp_path / "results" / "tiny.csv"
    study.run(study.Study(TINY.question, TINY.recipes, (0,), TINY.changes), path)
    first = path.read_text()
    study.run(TINY, path)
    assert path.read_text().startswith(first)
    rows = study.read_records(path)
    assert [(row["recipe"], row["seed"], row["step"]) for row in rows] == [
        ("vit_mini_compass6", "0", "2"), ("vit_mini_compass6", "1", "2")
    ]  # fmt: skip
    assert all(row[key] for row in rows for key in study.COLUMNS + study.ORIGIN)
    capsys.readouterr()
    study.run(TINY, path)
    assert capsys.readouterr().out == ""


def test_unknown_study_is_one_clear_line(monkeypatch):
    monkeypatch.setattr("sys.argv", ["study", "lesson_0"])
    with pytest.raises(UserError, match="no study is called 'lesson_0'. Did you mean lesson_00"):
        study.main()


@pytest.mark.parametrize("name", study.STUDIES)
def test_the_records_of_each_study_are_complete(name):
    rows = study.read_records(ROOT / "data" / "results" / f"{name}.csv")
    runs = {(row["recipe"], int(row["seed"])) for row in rows}
    assert runs == {(recipe, seed) for recipe in study.STUDIES[name].recipes for seed in study.STUDIES[name].seeds}


def last_accuracies(name: str, recipe: str) -> list[float]:
    last = {}
    for row in study.read_records(ROOT / "data" / "results" / f"{name}.csv"):
        if row["recipe"] == recipe:
            last[row["seed"]] = float(row["val_top1"])
    return list(last.values())


def test_lesson_00_quotes_its_records():
    cells = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4).cells
    text = " ".join(" ".join(cell.source for cell in cells).split())
    said = re.search(r"priors end between ([\d.]+) % and ([\d.]+) % .*?ones between ([\d.]+) % and ([\d.]+) %", text)
    spvit = last_accuracies("lesson_00", "spvit_mini_compass6")
    vit = last_accuracies("lesson_00", "vit_mini_compass6")
    assert [float(x) for x in said.groups()] == [min(spvit), max(spvit), min(vit), max(vit)]
    assert min(spvit) > 6 * 12.5 > 2 * 12.5 > max(vit)
