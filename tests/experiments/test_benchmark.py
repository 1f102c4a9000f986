"""The program: its parts by name, its help, its mistakes."""

import importlib
from pathlib import Path

import pytest

from spvit_experiments.benchmark import PARTS, command
from spvit_experiments.benchmark.timing import CommonOptions
from spvit_experiments.records import RESULTS, parse_out
from spvit_mini.errors import UserError


def test_without_a_part_it_says_what_there_is(capsys):
    assert command.main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"    {part} " in shown for part in PARTS)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_explains_its_options(part, capsys):
    with pytest.raises(SystemExit) as end:
        command.main([part, "--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0 and "--out" in shown and f"spvit_experiments benchmark {part}" in shown
    assert importlib.import_module(f"spvit_experiments.benchmark.{part}").__doc__[:20] in shown


def test_mistakes_are_one_clear_line():
    with pytest.raises(UserError, match="no part 'atention'. Did you mean attention?"):
        command.main(["atention"])
    with pytest.raises(UserError, match="there is no option --round. Did you mean --rounds"):
        command.main(["attention", "--round", "3"])
    with pytest.raises(UserError, match="rounds is 0; expected an integer from 1"):
        command.main(["attention", "--rounds", "0"])
    with pytest.raises(UserError, match="no layer is called 'spas'"):
        command.main(["attention", "--layers", "spas"])


def test_a_test_of_the_program_leaves_the_records_alone():
    assert CommonOptions(quick=True).destination == Path("runs/benchmark")
    assert CommonOptions().destination == RESULTS
    assert CommonOptions(quick=True, out=Path("x")).destination == CommonOptions(out=Path("x")).destination == Path("x")


@pytest.mark.parametrize("name", ["speed", "heads", "sparsity", "explanations", "overview"])
def test_a_program_replaces_records_only_where_it_is_told_to(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert parse_out(name, "", []) == Path("runs") / name and parse_out(name, "", ["--out", "here"]) == Path("here")
    module = importlib.import_module(f"spvit_experiments.{name}")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="the folder file/x cannot be written to, since .*file is a file. Name another"):
        module.main(["--out", "file/x"])
    with pytest.raises(SystemExit):
        module.main(["--help"])
    assert f"python -m spvit_experiments {name}" in capsys.readouterr().out and not (tmp_path / "runs").exists()
