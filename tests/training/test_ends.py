"""Each program, failed at each of its stages, ends within seconds with its status, leaves no half of a file, and works then.

Where the end of a process matters, a process is forked from this one, which has torch loaded: when it exits, it waits for its
workers as Python does. Two tests start real processes, of which torchrun starts one pair.
"""

import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image
from torch.utils.data import get_worker_info

from spvit_mini import create_model, save_weights, weights
from spvit_mini.cli import convert, curves, evaluate, export, label, predict, resize, summary
from spvit_mini.cli import train as train_program
from spvit_mini.cli.program import run_program
from spvit_mini.data import images as data_images
from spvit_mini.data import token_labels
from spvit_mini.data.images import CorruptImageError
from spvit_mini.training import loop, metrics
from spvit_mini.training.checkpoint import read_state
from spvit_mini.zoo import model_from_weights

from .processes import start_torchrun

FORK = multiprocessing.get_context("fork")
LIMIT = 60  # seconds until a process counts as one that never ends; the slowest needs about three
FULL = OSError(28, "No space left on device")
NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def send(number):
    """Make an action that sends a signal to this process."""
    return lambda: os.kill(os.getpid(), number)


def kill_a_worker():
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    time.sleep(5)  # torch reports it here


def refuse_in_worker():
    if get_worker_info():
        raise CorruptImageError("is damaged")


def stick_in_second_worker():
    if (info := get_worker_info()) and info.id == 1:
        time.sleep(1000)


OWNERS = {
    "loop": loop, "os": os, "torch": torch, "metrics": metrics.ClassificationMetrics, "images": data_images,
    "evaluate": evaluate, "predict": predict, "label": label, "writer": token_labels.TokenLabelWriter, "weights": weights,
    "resize": resize, "image": Image.Image, "convert": convert, "summary": summary, "curves": curves, "export": export,
}  # fmt: skip


def fail_at(patch, target: str, count: int, action) -> None:
    """Arrange that a call of a function, by its number or each (0), first raises an exception or calls the action."""
    owner, name = OWNERS[target.partition(".")[0]], target.partition(".")[2]
    real, calls = getattr(owner, name), 0

    def failing(*args, **kwargs):
        nonlocal calls
        calls += 1
        if count in (0, calls):
            if isinstance(action, BaseException):
                raise action
            action()
        return real(*args, **kwargs)

    patch.setattr(owner, name, failing)


@pytest.fixture(scope="module")
def stage(tree, tmp_path_factory):
    """A folder with what the programs read: images, a run on them, and weights of another package; and a command to train."""
    folder = tmp_path_factory.mktemp("stage")
    images = f"--data.name tree --data.root {tree} --data.image-size 16 --model.patch 8 --batch-size 5 --device cpu"
    small = "--model.depth 1 --model.dim 16 --model.heads 2 --augment.mixup 0 --augment.cutmix 0 --augment.crop none"
    command = f"vit_mini_flowers17 {images} {small} --duration '2 epochs' --evaluate-every '1 epoch' --save-every '2 steps'"
    assert train_program.main(shlex.split(f"{command} --run-dir {folder / 'run'}")) == 0
    bad = model_from_weights(folder / "run" / "best.safetensors")
    bad.head.bias.data[0] = torch.nan
    save_weights(bad, folder / "nan.safetensors", classes='["blue", "green", "red"]')
    model, state = create_model("deit_tiny", num_classes=7, image_size=32), {}
    for name, tensor in model.state_dict().items():
        for own, theirs in {"mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2", "attention.": "attn.", "embed.": "patch_embed.proj."}.items():
            name = name.replace(own, theirs)
        state[name] = tensor
    state["cls_token"] = state.pop("class_token")
    state["pos_embed"] = torch.cat([torch.zeros(1, 1, 192), state.pop("positions").flatten(2).mT], dim=1)
    torch.save(state, folder / "theirs.pth")
    return folder, tree, command


def end_of(program, arguments: str, tmp_path, *faults) -> tuple[int, str]:
    """Run a program in a forked process; return its exit status and its output. No process of it may be left."""

    def child():
        os.setsid()
        for number in (1, 2):
            os.dup2(os.open(tmp_path / "output", os.O_CREAT | os.O_APPEND | os.O_WRONLY), number)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        for fault in faults:
            fail_at(pytest.MonkeyPatch(), *fault)
        run_program(lambda: program.main(shlex.split(arguments)))

    process = FORK.Process(target=child)
    process.start()
    process.join(LIMIT)
    output = (tmp_path / "output").read_text()
    (tmp_path / "output").unlink()
    if process.exitcode is None:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"it never ends: {output}")
    until = time.monotonic() + LIMIT
    while True:  # its workers are in its group
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return process.exitcode, output
        assert time.monotonic() < until, "a worker is left"
        time.sleep(0.05)


def assert_end(status: int, output: str, says: str) -> None:
    """Check what is printed: a line of a failure, nothing about an end by a signal, the traceback of a fault of the package."""
    assert says in output
    assert (output.count("error: "), output.count("Traceback")) == (status == 2, status == 1), output


# Where a training with two workers fails, what happens there, the exit status, and a part of what is printed.
TRAININGS = {
    "start, SIGTERM": ([("loop.create_model", 1, send(signal.SIGTERM))], 143, ""),
    "start, SIGINT": ([("loop.create_model", 1, send(signal.SIGINT))], 130, ""),
    "first step, a fault": ([("loop.lr_at", 1, KeyError("a fault"))], 1, "KeyError: 'a fault'"),
    "first step, a full GPU": ([("loop.lr_at", 1, NO_MEMORY)], 2, "the memory is full (CUDA out of memory. Tried to allocate"),
    "first step, all images bad": ([("images.open_image", 0, refuse_in_worker)], 2, "none of the 33 images in"),
    "first step, a full memory": ([("images.open_image", 3, MemoryError())], 2, "the memory is full"),
    "first step, a stuck worker": (
        [("images.open_image", 0, stick_in_second_worker), ("loop.lr_at", 1, KeyError("a fault"))], 1, "KeyError: 'a fault'"
    ),
    "middle, a worker dies": ([("loop.lr_at", 4, kill_a_worker)], 2, "a worker process died (DataLoader worker"),
    "middle, SIGTERM": ([("loop.lr_at", 4, send(signal.SIGTERM))], 143, "stopped at step 4 of 12, saved in"),
    "middle, SIGHUP": ([("loop.lr_at", 4, send(signal.SIGHUP))], 129, "stopped at step 4 of 12, saved in"),
    "in a save, a full disk": ([("torch.save", 2, FULL)], 2, "could not be written (No space left on device)"),
    "in an evaluation, a fault": ([("metrics.update", 8, KeyError("a fault"))], 1, "KeyError: 'a fault'"),
    "at the end, a full memory": ([("loop.end_session", 1, MemoryError())], 2, "the memory is full"),
}  # fmt: skip


@pytest.mark.parametrize("case", TRAININGS)
def test_a_training_with_workers_ends_and_the_same_command_finishes_it(stage, tmp_path, case):
    """A failure in the first step leaves no folder."""
    faults, status, says = TRAININGS[case]
    command = f"{stage[2]} --run-dir {tmp_path / 'run'} --resume --data.on-corrupt-image skip"
    ended, output = end_of(train_program, f"{command} --data.workers 2", tmp_path, *faults)
    assert ended == status, output
    assert_end(status, output, says)
    assert not list(tmp_path.rglob("*.tmp"))
    assert (tmp_path / "run" / "recipe.json").exists() == (not case.startswith(("start", "first")))
    assert train_program.main(shlex.split(command)) == 0
    assert read_state(tmp_path / "run" / "last.pt")["position"]["step"] == 12


OTHERS_WITH_WORKERS = {
    "evaluate, a fault": (evaluate, "{stage}/run", [("metrics.update", 2, KeyError("a fault"))], 1, "KeyError: 'a fault'"),
    "evaluate, SIGTERM": (evaluate, "{stage}/run", [("metrics.update", 2, send(signal.SIGTERM))], 143, ""),
    "evaluate, a bad image": (evaluate, "{stage}/run", [("images.open_image", 0, refuse_in_worker)], 2, "is damaged; replace it"),
    "label, a fault": (label, "--model {stage}/run", [("writer.commit", 2, KeyError("a fault"))], 1, "KeyError: 'a fault'"),
    "label, SIGINT": (label, "--model {stage}/run", [("writer.commit", 2, send(signal.SIGINT))], 130, ""),
    "label, not finite": (label, "--model {stage}/nan.safetensors", [], 2, "the logits of"),
}


@pytest.mark.parametrize("case", OTHERS_WITH_WORKERS)
def test_other_programs_with_workers_end(stage, tmp_path, case):
    program, first, faults, status, says = OTHERS_WITH_WORKERS[case]
    out = f"--per-class {tmp_path}/out.csv" if program is evaluate else f"--out {tmp_path}/labels"
    options = f"--data.name tree --data.root {stage[1]} --batch-size 4 --device cpu {out}"
    ended, output = end_of(program, f"{first.format(stage=stage[0])} {options} --data.workers 2", tmp_path, *faults)
    assert ended == status, output
    assert_end(status, output, says)
    assert not list(tmp_path.rglob("*.tmp")) and not (tmp_path / "out.csv").exists()
    good = first.format(stage=stage[0]).replace("nan.safetensors", "run")
    options = options.replace("/labels", "/others") if "finite" in case else options
    assert program.main(shlex.split(f"{good} {options}")) == 0


# Without workers: the program, its arguments, what it writes (a name begins with the folder), and its stages: where each fails,
# what happens there, the exit status.
PROGRAMS = {
    "evaluate": (evaluate, "{stage}/run --device cpu --per-class {out}/a.csv", "a.csv", {
        "start": ("evaluate.load_trained", 1, NO_MEMORY, 2),
        "middle": ("evaluate.update_confusion", 1, KeyboardInterrupt(), 130),
        "end": ("os.replace", 1, FULL, 2),
    }),
    "predict": (predict, "{stage}/run {tree}/tree/val --device cpu --csv {out}/a.csv", "a.csv", {
        "start": ("predict.load_trained", 1, NO_MEMORY, 2),
        "middle": ("predict.read_image", 3, MemoryError(), 2),
        "end": ("os.replace", 1, FULL, 2),
    }),
    "label": (label, "--model {stage}/run --data.name tree --data.root {tree} --batch-size 9 --device cpu --out {out}/a", "a", {
        "start": ("label.load_teacher", 1, NO_MEMORY, 2),
        "middle": ("writer.commit", 2, KeyboardInterrupt(), 130),
        "a full disk at the start": ("os.replace", 1, FULL, 2),
        "end": ("writer.close", 1, send(signal.SIGTERM), 143),
    }),
    "export": (export, "{stage}/run --out {out}/a.safetensors", "a.safetensors", {
        "start": ("export.load_trained", 1, KeyboardInterrupt(), 130),
        "middle": ("weights.save", 1, MemoryError(), 2),
        "end": ("os.replace", 1, FULL, 2),
        "end, SIGTERM": ("os.fsync", 1, send(signal.SIGTERM), 143),
    }),
    "convert": (convert, "{stage}/theirs.pth --model deit_tiny --num-classes 7 --out {out}/a.safetensors", "a.safetensors", {
        "start": ("convert.read_state", 1, MemoryError(), 2),
        "middle": ("convert.load_state", 1, KeyboardInterrupt(), 130),
        "end": ("os.fsync", 1, FULL, 2),
        "end, SIGHUP": ("os.fsync", 1, send(signal.SIGHUP), 129),
    }),
    "resize": (resize, "{tree}/tree {out}/a --size 16 --workers 2", "a/val/red/3.png", {
        "start": ("resize.write_record", 1, KeyboardInterrupt(), 130),
        "middle": ("image.save", 20, FULL, 2),
        "a full memory": ("resize.read_image", 30, MemoryError(), 2),
        "end": ("resize.copy_annotations", 1, send(signal.SIGTERM), 143),
    }),
    "summary": (summary, "{stage}/run", "", {
        "start": ("summary.write_summary", 1, MemoryError(), 2),
        "middle": ("summary.write_summary", 1, KeyboardInterrupt(), 130),
    }),
    "curves": (curves, "{stage}/run --out {out}/a.png", "a.png", {
        "start": ("curves.read_runs", 1, MemoryError(), 2),
        "middle": ("curves.draw", 1, KeyboardInterrupt(), 130),
        "end": ("os.fsync", 1, FULL, 2),
        "end, SIGTERM": ("os.replace", 1, send(signal.SIGTERM), 143),
    }),
}  # fmt: skip


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, (*_, cases) in PROGRAMS.items() for case in cases])
def test_a_program_that_fails_at_any_stage_works_then(stage, tmp_path, monkeypatch, capsys, name, case):
    program, arguments, written, cases = PROGRAMS[name]
    target, count, action, status = cases[case]
    argv = shlex.split(arguments.format(stage=stage[0], tree=stage[1], out=tmp_path))
    with monkeypatch.context() as patch:
        fail_at(patch, target, count, action)
        with pytest.raises(SystemExit) as end:
            run_program(lambda: program.main(argv))
    assert end.value.code == status and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert_end(status, capsys.readouterr().err, "")
    assert not list(tmp_path.rglob("*.tmp"))
    assert name in ("label", "resize") or not list(tmp_path.iterdir())
    assert program.main(argv) == 0
    assert (tmp_path / written).exists() and not list(tmp_path.rglob("*.tmp"))


FAULTY = """
import os
from spvit_mini import register_attention
from spvit_mini.attention import MHSA

class Faulty(MHSA):
    calls = 0

    def attend(self, *args):
        Faulty.calls += 1
        if Faulty.calls == 1 and os.environ.get("RANK", "1") == "1":
            raise MemoryError(KIND)
        return super().attend(*args)

register_attention("faulty", lambda dim, heads, *, grid, **options: Faulty(dim, heads, **options))
"""


@pytest.mark.slow
@pytest.mark.xdist_group("signals")
@pytest.mark.parametrize("processes", [1, 2])
def test_real_processes_with_workers_end_when_one_fails(stage, tmp_path, processes):
    """Of two that torchrun starts, the second fails, while the first waits for its gradients; one prints the line."""
    (tmp_path / "faulty.py").write_text(FAULTY.replace("KIND", "'no memory'"))
    options = shlex.split(f"{stage[2]} --run-dir {tmp_path / 'run'} --batch-size 4 --data.workers 1")
    train = ["-m", "spvit_mini", "train", *options, "--import", str(tmp_path / "faulty.py"), "--model.attention", "faulty"]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = start_torchrun(*train) if processes == 2 else subprocess.Popen([sys.executable, *train], **piped)
    try:
        _, err = process.communicate(timeout=2 * LIMIT)
    finally:
        process.kill()
    assert process.returncode == (1 if processes == 2 else 2)  # torchrun's own status is 1
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "the memory is full (no memory)" in lines[0], err
    assert processes == 1 or "process 1 of 2" in lines[0]
    assert train_program.main([*options, "--max-steps", "1"]) == 0
