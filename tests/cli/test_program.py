"""The three command lines: help and lists of names without torch, the console script's table, one-line errors."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from spvit_mini import list_models, list_recipes
from spvit_mini.cli import COMMANDS, models, recipes
from spvit_mini.cli.program import run_command
from spvit_mini.errors import UserError
from spvit_mini.recipes import get_recipe


@pytest.mark.parametrize(
    "command",
    [
        "import spvit_mini; spvit_mini.list_models(), spvit_mini.list_recipes()",
        "spvit_mini --help",
        "spvit_mini models",
        "spvit_mini recipes",
        "spvit_mini recipes spvit_s_imagenet",
        "spvit_mini train spvit_s_imagenet --help",
        "spvit_course --help",
        "spvit_experiments --help",
    ],
)
def test_help_and_names_need_no_torch(command):
    package, *arguments = command.split()
    run = f"sys.argv = ['', *{arguments}]; runpy.run_module({package!r}, run_name='__main__', alter_sys=True)"
    check = "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))"
    code = f"import atexit, runpy, sys; {check}; {command if package == 'import' else run}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "False\n")
    assert package == "import" or len(done.stdout) > 300


def test_each_package_has_a_console_script():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    scripts = dict(re.findall(r'^(spvit-\w+) = "(\w+)\.__main__:main"$', text, re.MULTILINE))
    assert scripts == {name.replace("_", "-"): name for name in ("spvit_mini", "spvit_course", "spvit_experiments")}
    assert all(callable(import_module(f"{name}.__main__").main) for name in scripts.values())


def test_the_table_of_commands_is_complete(capsys):
    assert run_command("python -m spvit_mini", "About.", COMMANDS, []) == 0
    out = capsys.readouterr().out
    names = " ".join(re.findall(r"^  (\w+) ", out, re.MULTILINE))
    assert names == "train evaluate predict label export resize convert summary curves models recipes"


def test_an_unknown_command_is_one_line():
    with pytest.raises(UserError, match="there is no command 'evalute'. Did you mean evaluate"):
        run_command("python -m spvit_mini", "About.", COMMANDS, ["evalute"])


def test_models_are_listed_a_line_each(capsys):
    assert models.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list_models()
    assert "spvit_s            ViT  224 px, patch 16, width 384, depth 16, 6 heads, spsa" in lines
    assert "cnn_mini           CNN   32 px, patch 4, width 200, depth 9" in lines


def test_recipes_are_listed_a_line_each(capsys):
    assert recipes.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list_recipes()
    assert all(re.match(r"\S+ +\S.*[.]$", line) for line in lines) and max(map(len, lines)) <= 150


def test_every_recipe_is_described_with_every_option(capsys):
    for name in list_recipes():
        assert recipes.main([name]) == 0
        text, _, options = capsys.readouterr().out.partition("\n\nmodel.name")
        assert "\nCommand: " in text, name
        assert len(options.splitlines()) == len(get_recipe(name).flatten()) - 2  # without name and imports
        assert options.splitlines()[0].strip() in list_models()


def test_a_recipe_of_the_users_own_is_listed_and_described(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("spvit_mini.recipes.RECIPES", dict(recipes.RECIPES))
    monkeypatch.setattr(recipes, "RECIPES", sys.modules["spvit_mini.recipes"].RECIPES)
    (tmp_path / "ext_recipe.py").write_text(
        "from spvit_mini import get_recipe, register_recipe\n\n\n"
        "def ext_recipe():\n    '''Compass, but shorter.'''\n"
        "    return get_recipe('vit_mini_compass').override({'duration': '9 steps'})\n\n\n"
        "register_recipe('ext_recipe', ext_recipe)\n"
    )
    own = ["--import", str(tmp_path / "ext_recipe.py")]
    assert recipes.main(own) == 0
    assert re.search(r"^ext_recipe +Compass, but shorter\.$", capsys.readouterr().out, re.MULTILINE)
    assert recipes.main(["ext_recipe", *own]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Compass, but shorter.\n\n") and re.search(r"^duration +9 steps$", out, re.MULTILINE)
    del sys.modules["ext_recipe"]


def test_what_is_no_recipe_is_refused():
    with pytest.raises(UserError, match="no recipe is called 'spvit_mini_compas'. Did you mean spvit_mini_compass"):
        recipes.main(["spvit_mini_compas"])
    with pytest.raises(UserError, match="the arguments are a b; expected the name of one recipe"):
        recipes.main(["a", "b"])
