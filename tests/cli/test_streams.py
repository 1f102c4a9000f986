"""Every program under streams of any encoding, with a reader that goes away, and with names in any script.

The names are Chinese, in decomposed characters as macOS writes them, and bytes that are no UTF-8, as from an old archive.
"""

import ast
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from spvit_course.__main__ import build_parser
from spvit_experiments.__main__ import COMMANDS as EXPERIMENTS
from spvit_mini import create_model
from spvit_mini.cli import COMMANDS
from spvit_mini.data import token_labels
from spvit_mini.training.checkpoint import read_recipe
from spvit_mini.weights import load_weights

ROOT = Path(__file__).parents[2]
CLASSES = ["雏菊 花", "e\u0301rable", os.fsdecode(b"caf\xe9")]
COMPOSED = sorted(["雏菊 花", "érable", os.fsdecode(b"caf\xe9")])
FOLDER = os.fsdecode("图像 $x_$ ".encode() + b"\xe4")  # also a formula that Matplotlib could not read
SMALL = ["--model.dim", "16", "--model.depth", "1", "--model.heads", "2", "--data.image-size", "32", "--batch-size", "4"]
SMALL += ["--duration", "2 steps", "--optim.warmup", "0 steps", "--device", "cpu"]


def programs() -> list[tuple[str, str]]:
    """List all commands of the three packages: (package, command)."""
    course = build_parser()._subparsers._group_actions[0].choices
    tables = {"spvit_mini": COMMANDS, "spvit_experiments": EXPERIMENTS, "spvit_course": course}
    return [(package, command) for package, table in tables.items() for command in table]


def call(package, *arguments, encoding="utf-8"):
    """Run a program in this process on streams of an encoding: exit status, and the bytes on stdout and on stderr."""
    files = io.BytesIO(), io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [package, *map(str, arguments)])
        patch.setenv("PYTHONIOENCODING", "")  # which a program sets for those that it starts
        for name, file in zip(("stdout", "stderr"), files, strict=True):
            patch.setattr(sys, name, io.TextIOWrapper(file, encoding=encoding, errors="strict"))
        try:
            import_module(f"{package}.__main__").main()
            status = 0
        except SystemExit as end:
            status = end.code or 0
        sys.stdout.flush()
        sys.stderr.flush()
        return status, *(file.getvalue() for file in files)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Make a dataset of three classes in a folder with a difficult name, and train a small model on it."""
    place = tmp_path_factory.mktemp("streams") / FOLDER
    for part, count in (("train", 4), ("val", 2)):
        for label, name in enumerate(CLASSES):
            (place / "data" / part / name).mkdir(parents=True)
            for seed in range(count):
                pixels = np.random.RandomState(9 * label + seed).randint(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / "data" / part / name / f"{name}.{seed}.png")
    options = [*SMALL, *data(place), "--run-dir", place / "run"]
    status, _, err = call("spvit_mini", "train", "vit_mini_flowers17", *options, encoding="ascii")
    assert status == 0, err
    return place


def data(place):
    return ["--data.name", "data", "--data.root", place]


def real_runs(place, out):
    """List a short run of each program that prints names, or characters that are not ASCII's."""
    run, theirs = place / "run", place / "theirs.safetensors"
    return {
        "evaluate": [run, "--worst-classes", "3", "--per-class", out / "table.csv"],
        "predict": [run, place / "data" / "val", place / "nowhere.jpg", "--csv", out / "table.csv"],
        "label": ["--model", run, *data(place), "--device", "cpu", "--out", out / "labels"],
        "export": [run, "--out", out / "model.safetensors"],
        "resize": [place / "data", out / "copy", "--size", "16"],
        "convert": [theirs, "--model", "deit_tiny", "--num-classes", "3", "--out", out / "ours.safetensors"],
        "summary": [run],
        "curves": [run, "--out", out / "curves.png"],
        "models": [],
        "recipes": ["spvit_mini_flowers17"],
        "study": ["lesson_00", "--report"],
        "list": [],
        "release": [],
        "doctor": ["--out", out / "copies"],
    }


@pytest.mark.slow
@pytest.mark.parametrize(("package", "command"), programs())
def test_the_help_of_every_program_can_be_printed_on_any_stream(package, command):
    recipe = ["vit_mini_flowers17"] if command == "train" else []
    for encoding in ("ascii", "cp1252"):
        status, out, err = call(package, command, *recipe, "--help", encoding=encoding)
        assert (status, err) == (0, b"") and len(out.decode(encoding)) > 60


@pytest.mark.slow
@pytest.mark.parametrize("command", real_runs(Path(), Path()))
def test_every_name_can_be_printed_on_any_stream(command, place, tmp_path):
    """What an encoding lacks is escaped; all else is the same."""
    package = next(package for package, name in programs() if name == command)
    if command == "convert":
        write_third_party_weights(place / "theirs.safetensors")
    texts = {}
    for encoding in ("utf-8", "ascii", "cp1252") if command != "doctor" else ("ascii",):  # the doctor starts other programs
        (out := tmp_path / encoding / FOLDER).mkdir(parents=True)
        status, printed, err = call(package, command, *real_runs(place, out)[command], encoding=encoding)
        assert status in {"predict": (2,), "doctor": (0, 1)}.get(command, (0,)), err
        assert b"Traceback" not in err and err.count(b"error: ") == (command == "predict")
        text = printed.decode(encoding).replace(encoding, "ENCODING")  # in the paths
        texts[encoding] = re.sub(r"\b\d[\d,]*\.\d+", "0", text)  # times
    for encoding, text in texts.items():
        assert text and text == next(iter(texts.values())).encode(encoding, "backslashreplace").decode(encoding)
    if command in ("predict", "evaluate"):
        assert all(name in texts["ascii"] for name in (r"\u96cf\u83ca \u82b1", r"\xe9rable", r"caf\udce9"))


def write_third_party_weights(path):
    """Write a ViT in timm's names, with three classes."""
    model = create_model("deit_tiny", num_classes=3, image_size=32)
    state = {name.replace("mlp.0", "mlp.fc1").replace("mlp.2", "mlp.fc2").replace("attention.", "attn."): tensor
             for name, tensor in model.state_dict().items()}  # fmt: skip
    state = {re.sub("^embed", "patch_embed.proj", name): tensor for name, tensor in state.items()}
    state["cls_token"] = state.pop("class_token")
    patches = state.pop("positions").flatten(2).mT
    state["pos_embed"] = torch.cat([torch.zeros(1, 1, 192), patches], dim=1)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)


# --- files


@pytest.mark.slow
def test_every_file_is_utf_8_and_keeps_the_names(place, tmp_path):
    """What is no UTF-8 is written with escapes, in JSON such that reading gives the name again."""
    out = tmp_path / FOLDER
    out.mkdir()
    for command in ("evaluate", "predict", "label"):
        call("spvit_mini", command, *real_runs(place, out)[command], encoding="ascii")
        if command != "label":
            with open(out / "table.csv", newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            assert sorted({row["class"] for row in rows}) == sorted(["雏菊 花", "érable", r"caf\udce9"])
    assert token_labels.read_info(out / "labels").classes == COMPOSED
    assert json.loads(load_weights(place / "run" / "best.safetensors")[1]["classes"]) == COMPOSED
    assert str(read_recipe(place / "run").data.root) == str(place)
    texts = [path.read_text(encoding="utf-8") for path in [*(place / "run").glob("*.*"), *out.rglob("*.json")]
             if path.suffix in (".csv", ".md", ".json")]  # fmt: skip
    assert len(texts) == 5 and any(r"图像 $x_$ \udce4" in text for text in texts)


@pytest.mark.slow
def test_a_run_is_resumed_from_a_folder_with_any_name(place):
    """The state and the weights are read by paths that are no UTF-8."""
    options = [*SMALL, *data(place), "--run-dir", place / "run", "--resume"]
    assert call("spvit_mini", "train", "vit_mini_flowers17", *options, encoding="ascii")[0] == 0


@pytest.mark.slow
def test_a_run_from_another_system_is_read(place, tmp_path):
    """Its texts begin with a byte order mark, as after a Windows editor; the classes of its weights are decomposed."""
    run = tmp_path / "run"
    shutil.copytree(place / "run", run)
    for name in ("recipe.json", "metrics.csv", "history.json"):
        (run / name).write_text("\ufeff" + (run / name).read_text(encoding="utf-8"), encoding="utf-8")
    state, metadata = load_weights(run / "best.safetensors")
    metadata["classes"] = json.dumps([unicodedata.normalize("NFD", name) for name in COMPOSED])
    save_file(state, run / "best.safetensors", metadata=metadata)
    assert call("spvit_mini", "summary", run)[::2] == (0, b"")
    assert call("spvit_mini", "evaluate", run)[::2] == (0, b"")
    options = [*SMALL, *data(place), "--run-dir", tmp_path / "tuned", "--init-from", run]
    status, out, err = call("spvit_mini", "train", "vit_mini_flowers17", *options)
    assert (status, err) == (0, b"") and b"head included (the same classes)" in out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Glyph")
def test_figures_are_drawn_with_any_name(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    image = next((place / "data" / "val").rglob("caf*.png")).relative_to(place)
    status, out, err = call("spvit_mini", "predict", "run", image, "--explain", "--out", tmp_path, encoding="ascii")
    assert status == 0 and (tmp_path / image.with_name(f"{image.name}.png")).is_file(), err


@pytest.mark.parametrize("package", ["spvit_mini", "spvit_course", "spvit_experiments"])
def test_every_text_file_is_opened_with_an_encoding(package):
    """Files of users may begin with a byte order mark, which utf-8-sig removes; no file is written with one by accident."""
    wrong = []
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            options = {keyword.arg: ast.unparse(keyword.value).strip("'") for keyword in node.keywords}
            modes = {argument.value for argument in node.args if isinstance(argument, ast.Constant)} | {options.get("mode")}
            is_binary = any(isinstance(mode, str) and re.fullmatch("[rwxa+]*b[+]?", mode) for mode in modes)
            is_own = ast.unparse(node.func) in ("Image.open", "os.open", "write_text", "safe_open")
            if name == "open" and not is_binary and not is_own or name in ("read_text", "write_text") and not is_own:
                expected = "utf-8" if name == "write_text" or modes & {"w", "a", "x"} else "utf-8-sig"
                if options.get("encoding") != expected:
                    wrong.append(f"{path}:{node.lineno} {ast.unparse(node)}")
            elif options.get("text") == "True":
                wrong.append(f"{path}:{node.lineno} {ast.unparse(node)}")
    assert wrong == []


# --- readers that go away, and streams that cannot be written


def start(*arguments, shell="", **environment):
    """Start a program in a shell; `shell` redirects its streams. Returns the exit status, stdout and stderr."""
    command = f'exec "$0" -m "$@" {shell}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, *map(str, arguments)], capture_output=True, encoding="utf-8", timeout=100,
        env=os.environ | environment, cwd=ROOT,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def with_closed_pipe(*arguments, both=False, **environment):
    """Run a program whose reader is gone before it begins; returns the exit status and stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", *map(str, arguments)], stdout=writer, stderr=writer if both else subprocess.PIPE,
            env=os.environ | environment, timeout=100, cwd=ROOT,
        )  # fmt: skip
    finally:
        os.close(writer)
    return done.returncode, done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows reports a closed pipe by another error")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "command", ["spvit_mini", "spvit_mini recipes", "spvit_mini train vit_mini_compass --help", "spvit_experiments"]
)
def test_a_reader_that_goes_away_ends_a_program_in_silence(command, unbuffered):
    """With the status that a shell gives for SIGPIPE, as `… | head -1` does; output of a few bytes, and of many."""
    assert with_closed_pipe(*command.split(), PYTHONUNBUFFERED=unbuffered) == (141, b"")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows reports a closed pipe by another error")
@pytest.mark.parametrize("command", ["spvit_mini predict", "spvit_course list"])
def test_a_reader_that_goes_away_ends_a_longer_program_in_silence(command, place):
    images = [place / "run", place / "data" / "val"] if command == "spvit_mini predict" else []
    assert with_closed_pipe(*command.split(), *images) == (141, b"")


@pytest.mark.skipif(os.name == "nt", reason="Windows reports a closed pipe by another error")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_error_that_nobody_reads_is_silent_too(unbuffered):
    assert with_closed_pipe("spvit_mini", "recipes", "none", both=True, PYTHONUNBUFFERED=unbuffered)[0] == 141


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_streams_that_are_closed_from_the_start_swallow_the_output(unbuffered):
    assert start("spvit_mini", "recipes", shell=">&-", PYTHONUNBUFFERED=unbuffered) == (0, "", "")
    assert start("spvit_mini", "recipes", "none", shell="2>&-", PYTHONUNBUFFERED=unbuffered) == (2, "", "")
    assert start("spvit_mini", "recipes", "none", shell=">&- 2>&-", PYTHONUNBUFFERED=unbuffered) == (2, "", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["spvit_mini recipes", "spvit_mini models --help"])
def test_a_full_disk_behind_the_output_is_one_line(command, unbuffered):
    expected = (2, "", "error: the output cannot be written (No space left on device); use another file\n")
    assert start(*command.split(), shell=">/dev/full", PYTHONUNBUFFERED=unbuffered) == expected


def test_an_error_of_the_program_itself_keeps_its_traceback():
    """It is no error of the user: a line would hide where it is."""
    code = "from spvit_mini.cli.program import run_program; run_program(lambda: {}['lost'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.returncode == 1 and "KeyError" in done.stderr
