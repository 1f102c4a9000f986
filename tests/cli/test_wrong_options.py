"""Every option of every program, recipe and model refuses wrong values: in Python, on the command line, in JSON, in metadata.

Options are found by reflection, so that a new option is covered at once. Which values are legal stands here a second time, as a
reference: only these options may be 0, none may be negative, NaN, infinite, empty or of another type.
"""

import dataclasses
import importlib
import json
import math
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

import spvit_experiments.__main__ as experiments
import spvit_mini.__main__ as library
from spvit_course.__main__ import run as run_course
from spvit_mini import create_model, save_weights
from spvit_mini.attention_registry import build_attention
from spvit_mini.cli import COMMANDS
from spvit_mini.cli.arguments import list_options
from spvit_mini.cli.program import run_command, run_program
from spvit_mini.cli.train import Arguments as TrainArguments
from spvit_mini.errors import UserError
from spvit_mini.fields import check_value, type_hints
from spvit_mini.recipes import Recipe, get_recipe
from spvit_mini.training import train
from spvit_mini.training.checkpoint import load_trained
from spvit_mini.weights import load_weights
from spvit_mini.zoo import MODELS, configure

ZERO = {
    "data.holdout", "data.workers", "augment.randaugment_prob", "augment.random_erasing_prob", "augment.colour", "augment.mixup",
    "augment.cutmix", "augment.mix_prob", "optim.lr", "optim.final_lr", "optim.warmup_lr", "optim.weight_decay",
    "token_labels.dense_weight", "token_labels.mixtoken", "label_smoothing", "ema", "seed", "model.class_token_block",
    "model.spatial_layers", "model.drop_path",
}  # fmt: skip
ZERO_IN_CONFIG = {"class_token_block", "spatial_layers", "drop_path", "layer_scale"}
ZERO_IN_PROGRAMS = {"seed", "workers", "worst_classes", "spatial_layers", "max_minutes", "holdout"}
NEVER = (math.nan, math.inf, -math.inf, -1, -0.5, 1e39, "", "\0", "nan", [[]], {"x": "y"}, {"": 1})
RECIPE = Recipe()
TINY = shlex.split(
    "--model.depth 1 --model.dim 16 --model.heads 2 --data.train-images 30 --data.val-images 10 --batch-size 10 --device cpu "
    "--max-steps 1 --duration '1 epoch'"
)


def is_text(kind) -> bool:
    """Whether a type accepts texts or paths of any kind."""
    return bool(re.search(r"'str'|'pathlib.Path'|\bstr\b|\bPath\b", str(kind)))


def wrong_values(kind) -> list:
    """List values that a field must refuse; a text is no wrong value for a text, nor an integer for an integer."""
    legal = ["nan"] * is_text(kind) + [True] * ("bool" in str(kind))
    return [value for value in (*NEVER, True) if not any(value is other for other in legal)]


def run_in_process(run, capsys) -> tuple[int, str, str]:
    """Run a program in this process: its exit status and what it printed. Any other exception fails the test."""
    status = 0
    try:
        run_program(run)
    except SystemExit as end:
        status = end.code or 0
    return status, *capsys.readouterr()


def assert_refused(run, capsys, *, folder: Path) -> str:
    """Check that a program ends with one line, status 2 and an empty folder; return the line."""
    status, out, err = run_in_process(run, capsys)
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in out + err, (out, err)
    assert list(folder.iterdir()) == []
    return err


# --- Recipes in Python and in recipe.json


@pytest.mark.parametrize("name", RECIPE.flatten())
def test_every_option_of_a_recipe_refuses_wrong_values(name):
    section, _, leaf = name.rpartition(".")
    kind = type_hints(type(getattr(RECIPE, section) if section else RECIPE))[leaf]
    for value in [*wrong_values(kind), *([0] if name not in ZERO else [])]:
        inner = {leaf: [value, value] if "tuple" in str(kind) and isinstance(value, str) else value}
        with pytest.raises(UserError, match=rf"^x/recipe.json: {name} is .*; expected "):
            Recipe.from_json(json.dumps({section: inner} if section else inner), source="x/recipe.json")
        with pytest.raises(UserError, match=rf"^{name} is .*; expected "):
            RECIPE.override({name: inner[leaf]})
    if name in ZERO:
        assert RECIPE.override({name: 0}).flatten()[name] == 0


@pytest.mark.parametrize("text", ["", "[]", "3", '{"x": 1}', '{"optim": []}', '{"model": {"x": 1}}', "9" * 5000, "[" * 9**5])
def test_a_recipe_of_another_shape_is_one_line(text):
    with pytest.raises(UserError, match="x/recipe.json"):
        Recipe.from_json(text, source="x/recipe.json")


def test_several_changes_are_checked_together():
    """In either order: a batch of 30 is no multiple of the old micro-batch, but of the new one."""
    recipe = RECIPE.override({"batch_size": 100, "micro_batch_size": 50})
    for names in (("batch_size", "micro_batch_size"), ("micro_batch_size", "batch_size")):
        assert recipe.override({name: {"batch_size": 30, "micro_batch_size": 15}[name] for name in names}).micro_batch_size == 15


# --- Models: create_model and the metadata of weights


@pytest.mark.parametrize("model", ["vit_mini", "cait_xxs24", "cnn_mini"])
def test_every_field_of_a_model_refuses_wrong_values(model):
    for name, kind in type_hints(type(MODELS[model])).items():
        for value in [*wrong_values(kind), *([0] if name not in ZERO_IN_CONFIG else [])]:
            if name.endswith("_options") and value == {"x": "y"}:
                continue  # an option of an attention of the user's own may be a text
            with pytest.raises(UserError, match=rf"{name} is .*; expected "):
                configure(model, {name: value})


def test_weights_with_wrong_metadata_are_one_line(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(create_model("vit_mini", depth=1, dim=8, heads=2), path, classes=json.dumps([str(i) for i in range(10)]))
    state, metadata = load_weights(path)
    config, preprocessing = (json.loads(metadata[key]) for key in ("config", "preprocessing"))
    wrong = [("config", config | {name: value}) for name in config for value in (math.nan, -1, "\0", [[]], {"": 0})]
    wrong += [("config", value) for value in ([], 3, None, "vit", config | {"name": "x"}, config | {"weights": "x"})]
    wrong += [("preprocessing", preprocessing | {name: value}) for name in preprocessing for value in (math.nan, -1, "", [1], {})]
    wrong += [("preprocessing", value) for value in ([], 3, {"x": 1}, {})]
    wrong += [("imports", 3), ("imports", [1])]
    for key, value in wrong:
        save_file(state, path, metadata | {key: json.dumps(value)})
        with pytest.raises(UserError, match="w.safetensors"):
            load_trained(path)
    for text in ("{", "", "[" * 9**5):
        save_file(state, path, metadata | {"config": text})
        with pytest.raises(UserError, match=r"the config in .*w.safetensors is not JSON"):
            load_trained(path)


@pytest.mark.parametrize(
    ("attention", "options"),
    [
        ("spsa", {"hidden": -1}), ("spsa", {"hidden": 0}), ("spsa", {"hidden": 1.5}), ("spsa", {"weight_std": math.nan}),
        ("spsa", {"bias_std": -1}), ("anchored", {"hidden": "wide"}), ("anchored", {"strength": math.inf}), ("rpb", {"std": 0}),
        ("gpsa", {"strength": math.nan}), ("window", {"size": 0}), ("window", {"shift": -1}), ("window", {"size": 2.5}),
        ("cross_window/masked", {"width": 0}), ("shaw1d/contextual", {"clip": -1}), ("shaw2d/contextual", {"clip": 0.5}),
        ("irpe/contextual", {"alpha": 0}), ("irpe/contextual", {"beta": math.inf}), ("irpe/contextual", {"gamma": 1.9}),
        ("log_cpb/additive", {"hidden": 10**9}),
    ],
)  # fmt: skip
def test_options_of_an_attention_have_ranges(attention, options):
    with pytest.raises(UserError, match=rf"^attention {attention}: {next(iter(options))} is .*; expected "):
        build_attention(attention, 8, 4, grid=(4, 4), **options)


def test_another_attention_has_its_own_options(tmp_path, capsys):
    """`hidden` of SP-SA's prior is no option of a table, and another number than that of Swin v2's network."""
    config = create_model("spvit_mini", dim=8, heads=2, depth=1, attention="rpb").config
    assert (config.attention, config.attention_options) == ("rpb", {})
    assert create_model("spvit_mini", dim=8, heads=2, depth=1, attention="spsa").config.attention_options["hidden"] == 32
    assert create_model("window_mini", dim=8, heads=2, depth=2, attention="mhsa").config.odd_block_options == {}
    changes = {"model.attention": "log_cpb/additive", "model.dim": 16, "data.train_images": 20, "batch_size": 10}
    train(get_recipe("spvit_mini_compass6").override(changes), max_steps=1)
    assert "attention is log_cpb/additive; the options of spvit_mini's own, hidden 32, weight_std 0.5, are dropped" in (
        capsys.readouterr().out
    )


# --- Programs


def programs() -> list[tuple[str, str]]:
    """List (package, command) of all programs with options."""
    found = [("spvit_mini", name) for name in COMMANDS] + [("spvit_experiments", name) for name in experiments.COMMANDS]
    return [(package, name) for package, name in found if arguments_of(package, name) is not None]


def arguments_of(package: str, name: str):
    """Build the default arguments of a program; None if it has no options."""
    module = importlib.import_module((COMMANDS if package == "spvit_mini" else experiments.COMMANDS)[name][0])
    kind = getattr(module, "Arguments", getattr(module, "Options", None))
    return kind and (kind(run_dir=Path("x")) if name == "train" else kind())


def run_library(*words: str):
    return lambda: run_command("python -m spvit_mini", library.ABOUT, COMMANDS, list(words))


@pytest.mark.parametrize(("package", "program"), programs())
def test_every_option_of_every_program_has_a_type_with_a_range(package, program):
    if program == "train":
        return  # its recipe is tested above
    for option, kind in list_options(arguments_of(package, program)).items():
        leaf = option.rpartition(".")[2].lstrip("-").replace("-", "_")
        if not ("float" in str(kind) or "int" in str(kind)):
            continue
        for value in [*wrong_values(kind), *([0] if leaf not in ZERO_IN_PROGRAMS else [])]:
            with pytest.raises(UserError, match=rf"^{option} is .*; expected "):
                check_value(kind, value, option)


@pytest.mark.parametrize("option", list_options(TrainArguments(run_dir=Path("x"), recipe=RECIPE)))
def test_every_option_of_training_refuses_a_wrong_value_on_the_command_line(option, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind = list_options(TrainArguments(run_dir=Path("x"), recipe=RECIPE))[option]
    value = "" if is_text(kind) else ("nan", "inf", "-1", "x")[len(option) % 4]
    run = run_library("train", "spvit_mini_compass6", *TINY, option, value)
    line = assert_refused(run, capsys, folder=tmp_path)
    assert option.rpartition(".")[2].lstrip("-") in line.replace("_", "-") or "bool" in str(kind)


@pytest.mark.parametrize(
    "words",
    [
        "train spvit_mini_compass6 --device meta", "train spvit_mini_compass6 --run-dir=", "train vit_mini_rings --data.root ",
        "train vit_mini_flowers17 --data.eval-crop 0.0001", "train spvit_mini_compass6 --model.attention-options hidden -1",
        "train vit_mini_compass6 --duration 9999999999999999_epochs", "predict RUN x --image-size -8", "predict RUN x --top 0",
        "predict RUN x.png --device meta", "export RUN --image-size 0", "convert x --num-classes -5", "convert x.pth --crop nan",
        "convert x.pth --std 0 1 1", "label --top nan", "label --data.workers -1", "resize a b --size 0", "evaluate ", "curves ",
        "evaluate RUN --batch-size -1", "evaluate RUN --data.fraction nan", "summary ", "recipes ", "models ", "train ",
    ],
)  # fmt: skip
def test_wrong_values_of_programs_are_one_line(words, capsys, tmp_path, monkeypatch, weights_path):
    monkeypatch.chdir(tmp_path)
    assert_refused(run_library(*words.replace("RUN", str(weights_path)).split(" ")), capsys, folder=tmp_path)


@pytest.mark.parametrize("words", ["train vit_mini_compass6 --run-dir", "convert RUN --model", "curves", "evaluate"])
def test_a_path_that_no_file_system_has_is_one_line(words, capsys, tmp_path, monkeypatch, weights_path):
    monkeypatch.chdir(tmp_path)
    argv = [*words.replace("RUN", str(weights_path)).split(), "x" * 300]
    assert "xxx" in assert_refused(run_library(*argv), capsys, folder=tmp_path)


@pytest.fixture(scope="module")
def weights_path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_weights(create_model("vit_mini", depth=1, dim=8, heads=2), path, recipe=get_recipe("vit_mini_compass").to_json())
    return path


@pytest.mark.parametrize(
    "words",
    [
        "study lesson_00 --threads 0", "study lesson_00 --device meta", "demo --seed -1",
        "study demo --out ", "benchmark model --rounds 0", "benchmark attention --dim -1", "explanations 0", "explanations ²",
    ],
)  # fmt: skip
def test_wrong_values_of_experiments_are_one_line(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = words.split(" ")
    assert_refused(lambda: run_command("x", "", experiments.COMMANDS, argv), capsys, folder=tmp_path)


@pytest.mark.parametrize("words", ["grade s --cell-seconds 0", "grade s --cell-seconds x", "build --out ", "lab --out="])
def test_wrong_values_of_the_course_are_one_line(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_refused(lambda: run_course(words.split(" ")), capsys, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--device", "meta"], ["--run-dir", ""]])
def test_a_process_of_its_own_ends_in_the_same_way(words, tmp_path):
    command = [sys.executable, "-m", "spvit_mini", "train", "spvit_mini_compass6", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_random_values_of_random_options_are_legal_or_refused(request, capsys, tmp_path, monkeypatch):
    """A legal value trains a step; any other is one line that leaves nothing."""
    monkeypatch.chdir(tmp_path)
    draw = random.Random(request.config.getoption("--seed"))
    options = list_options(TrainArguments(run_dir=Path("x"), recipe=RECIPE))
    for name in ("--import", "--max-steps", "--data.workers", "--compile"):
        del options[name]
    for _ in range(12):
        value = draw.choice(["0", "-1", "1e-30", "1e30", "0.5", "2", "7", "None", "text", "nan", "True", "3 epochs", "1000000"])
        words = [draw.choice(list(options)), value]
        folder = tmp_path / "run"
        status, out, err = run_in_process(
            run_library("train", "anchored_mini_compass6", *TINY, "--run-dir", str(folder), *words), capsys
        )
        assert "Traceback" not in out + err and status in (0, 2), (words, err)
        if status == 2:
            assert err.startswith("error: ") and err.count("\n") == 1 and not folder.exists(), (words, err)
        for path in sorted(tmp_path.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


# --- Schedules that leave no time


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"optim.warmup": "3 steps"}, "the run of 2 steps ends before the warm-up of 3, at a learning rate of 0.001, below"),
        ({"optim.warmup": "2 epochs"}, "the run of 2 steps ends before the warm-up of 4"),
        ({"optim.cooldown": "9 steps"}, "warm-up (0 steps) and cool-down (9) fill the run of 2 steps, so that the learning rate"),
        ({"optim.warmup": "1 step", "optim.cooldown": "1 step"}, "warm-up (1 steps) and cool-down (1) fill the run of 2 steps"),
        ({"optim.warmup": "1 step"}, None),
    ],
)
def test_a_schedule_without_a_cosine_is_said(changes, says, capsys):
    tiny = {"duration": "2 steps", "data.train_images": 20, "batch_size": 10, "model.dim": 16, "data.val_images": 10}
    train(get_recipe("vit_mini_compass6").override(tiny | {"optim.lr": 0.002, "optim.warmup": "0 steps"} | changes))
    out = capsys.readouterr().out
    assert f"WARNING: {says}" in out if says else "WARNING: warm-up" not in out and "ends before" not in out


def test_a_run_in_which_everything_is_frozen_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = run_library("train", "vit_mini_compass6", *TINY, "--optim.freeze", "weight", "bias", "positions")
    assert "optim.freeze is weight bias positions, which freezes every parameter" in assert_refused(run, capsys, folder=tmp_path)


def test_a_dataclass_names_its_fields_once():
    """Reflection finds every field: none is left out of the walks above."""
    assert len(RECIPE.flatten()) > 55 and len(programs()) >= 12
    assert {f.name for f in dataclasses.fields(MODELS["vit_mini"])} == set(type_hints(type(MODELS["vit_mini"])))
