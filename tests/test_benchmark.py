"""The program: its parts by name, its help, its mistakes."""

import importlib

import pytest

from spvit_mini import benchmark
from spvit_mini.errors import UserError


def test_without_a_part_it_says_what_there_is(capsys):
    assert benchmark.main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"    {part} " in shown for part in benchmark.PARTS)


@pytest.mark.parametrize("part", benchmark.PARTS)
def test_every_part_explains_its_options(part, capsys):
    with pytest.raises(SystemExit) as end:
        benchmark.main([part, "--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0 and "--out" in shown and f"spvit_mini.benchmark {part}" in shown
    assert importlib.import_module(f"spvit_mini.bench.{part}").__doc__[:20] in shown


def test_mistakes_are_one_clear_line():
    with pytest.raises(UserError, match="no part 'atention'. Did you mean attention?"):
        benchmark.main(["atention"])
    with pytest.raises(UserError, match="there is no option --round. Did you mean --rounds"):
        benchmark.main(["attention", "--round", "3"])
    with pytest.raises(UserError, match="at least 1"):
        benchmark.main(["attention", "--rounds", "0"])
    with pytest.raises(UserError, match="no layer is called 'spas'"):
        benchmark.main(["attention", "--layers", "spas"])
