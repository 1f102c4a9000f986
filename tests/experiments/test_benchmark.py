"""The program: its parts by name, its help, its mistakes."""

import importlib

import pytest

from spvit_experiments.benchmark import PARTS, command
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
