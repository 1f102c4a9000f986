"""The run folder: whole files or none, two states kept, and a clear line for every state that cannot be resumed."""

import multiprocessing
import os
import pickle
import random
import resource
import signal
import sys
import time

import pytest
import torch

from spvit_mini.cli.program import run_program
from spvit_mini.errors import UserError
from spvit_mini.files import atomic_write
from spvit_mini.recipes import get_recipe
from spvit_mini.training import checkpoint as c

FORK = multiprocessing.get_context("fork")


def a_state(step, size=2000):
    generator = torch.Generator().manual_seed(step)
    return {
        **{"recipe": "", "classes": [], "train_images": 0, "optimiser": {}, "ema": None},
        "position": {"step": step, "rows": [{"step": step, "x": 0.1}]},
        "model": {"w": torch.randn(size, generator=generator)},
    }


def exit_status_of(work) -> int:
    """Run a function in a process that is forked from this one, which has torch loaded; return its exit status."""
    child = FORK.Process(target=work)
    child.start()
    child.join()
    return child.exitcode


def step_of(state):
    return state["position"]["step"]


def test_a_state_comes_back_to_the_last_bit(tmp_path):
    c.save_state(tmp_path, a_state(7))
    state, path = c.find_state(tmp_path)
    assert path == tmp_path / "last.pt"
    assert state["position"] == {"step": 7, "rows": [{"step": 7, "x": 0.1}]}
    assert torch.equal(state["model"]["w"], a_state(7)["model"]["w"])
    assert not (tmp_path / "previous.pt").exists()


def test_the_last_two_states_are_kept_and_nothing_else(tmp_path):
    for step in (1, 2, 3):
        c.save_state(tmp_path, a_state(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.pt", "previous.pt"]
    assert [step_of(c.read_state(tmp_path / n)) for n in ("last.pt", "previous.pt")] == [3, 2]


def test_nothing_saved_is_no_error(tmp_path):
    assert c.find_state(tmp_path) is None


def test_a_kill_between_the_two_renames_goes_on_from_previous(tmp_path):
    for step in (1, 2):
        c.save_state(tmp_path, a_state(step))
    (tmp_path / "last.pt").rename(tmp_path / "previous.pt")
    (tmp_path / "last.pt.tmp").write_bytes(b"whatever a third save had written so far")
    state, path = c.find_state(tmp_path)
    assert (step_of(state), path.name) == (2, "previous.pt")
    c.save_state(tmp_path, a_state(3))
    assert [step_of(c.read_state(tmp_path / n)) for n in ("last.pt", "previous.pt")] == [3, 2]
    assert not (tmp_path / "last.pt.tmp").exists()


@pytest.mark.parametrize("seed", range(12))
def test_a_state_cut_at_any_length_is_named_and_the_way_on_said(tmp_path, seed):
    for step in (1, 2):
        c.save_state(tmp_path, a_state(step))
    whole = (tmp_path / "last.pt").read_bytes()
    length = [0, 1, 2, 3, 4, 30, len(whole) - 1][seed] if seed < 7 else random.Random(seed).randrange(len(whole))
    (tmp_path / "last.pt").write_bytes(whole[:length])
    with pytest.raises(UserError) as caught:
        c.find_state(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'last.pt'} is cut off or damaged; the state saved before it, previous.pt (step 1), is complete: "
        "move last.pt away and repeat the command to resume from it"
    )
    assert (tmp_path / "last.pt").read_bytes() == whole[:length]
    (tmp_path / "last.pt").unlink()
    assert step_of(c.find_state(tmp_path)[0]) == 1


@pytest.mark.parametrize("seed", range(5))
def test_a_flipped_byte_among_the_numbers_is_found(tmp_path, seed):
    c.save_state(tmp_path, a_state(1))
    data = bytearray((tmp_path / "last.pt").read_bytes())
    at = data.find(a_state(1)["model"]["w"].numpy().tobytes()[:16]) + random.Random(seed).randrange(8000)
    data[at] ^= 1 << seed
    (tmp_path / "last.pt").write_bytes(data)
    with pytest.raises(UserError, match="damaged.*there is no other complete state"):
        c.find_state(tmp_path)


class Dangerous:
    def __reduce__(self):
        return (open, ("ran", "w"))


@pytest.mark.parametrize("kind", ["pickle", "torch", "tensor", "dict", "text", "zip", "folder"])
def test_foreign_files_are_refused_and_run_no_code(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.pt"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Dangerous()))
    elif kind == "torch":
        torch.save({"format": c.FORMAT, "step": Dangerous()}, path)
    elif kind == "tensor":
        torch.save(torch.ones(3), path)
    elif kind == "dict":
        torch.save({"model": {"w": torch.ones(3)}, "epoch": 3}, path)
    elif kind == "text":
        path.write_text("Port of call")
    elif kind == "zip":
        import zipfile

        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("notes.txt", "hello")
    else:
        path.mkdir()
    with pytest.raises(UserError) as caught:
        c.find_state(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{path} is not a training state" if kind != "folder" else f"{path} cannot be read")
    assert "train again in another folder" in message
    assert not (tmp_path / "ran").exists()


def test_a_failed_write_leaves_what_was_there(tmp_path):
    for step in (1, 2):
        c.save_state(tmp_path, a_state(step))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with (
        pytest.raises(UserError, match="could not be written.*untouched"),
        atomic_write(tmp_path / "last.pt") as temporary,
    ):
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_full_disk_is_one_line_and_the_old_states_stay(tmp_path):
    """A limit on the size of files stands for the full disk: in a process of its own, since it cannot be removed again."""
    run = tmp_path / "run"
    run.mkdir()
    for step in (1, 2):
        c.save_state(run, a_state(step))

    def write_too_much():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        with open(tmp_path / "stderr", "w") as sys.stderr:
            run_program(lambda: c.save_state(run, {"step": 3, "model": torch.ones(1_000_000)}))

    assert exit_status_of(write_too_much) == 2
    line = (tmp_path / "stderr").read_text()
    assert line.startswith(f"error: {run / 'last.pt'} could not be written (") and line.count("\n") == 1
    assert sorted(p.name for p in run.iterdir()) == ["last.pt", "previous.pt"]
    assert [step_of(c.read_state(run / n)) for n in ("last.pt", "previous.pt")] == [2, 1]


class Dying:
    """A file that accepts a number of bytes, and then kills the process."""

    def __init__(self, path, allowed):
        self.file, self.left = open(path, "wb"), allowed  # noqa: SIM115

    def write(self, data):
        self.file.write(bytes(data)[: self.left])
        self.file.flush()
        self.left -= len(data)
        if self.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return len(data)

    def flush(self):
        self.file.flush()


def test_killed_at_any_byte_of_a_save_there_is_always_a_whole_state(tmp_path):
    """Writers that kill themselves, one process each."""
    save = torch.save
    for i in range(20):
        folder, allowed = tmp_path / str(i), random.Random(i).randrange(400_000)
        folder.mkdir()
        for step in (1, 2):
            c.save_state(folder, a_state(step))

        def write_until_killed(folder=folder, allowed=allowed):
            torch.save = lambda state, path: save(state, Dying(path, allowed))
            c.save_state(folder, {"step": 3, "model": torch.ones(100_000)})

        assert exit_status_of(write_until_killed) == -signal.SIGKILL
    for folder in tmp_path.iterdir():
        assert (folder / "last.pt.tmp").exists()  # it was killed while writing
        state, path = c.find_state(folder)
        assert (step_of(state), path.name) == (2, "last.pt")
        assert torch.equal(state["model"]["w"], a_state(2)["model"]["w"])


def test_a_run_folder_below_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot be created, since .*file is a file. Use another --run-dir"):
        c.check_run_dir(tmp_path / "file" / "runs" / "x", get_recipe("vit_mini_compass"), resume=False)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="is not writable"):
        c.check_run_dir(tmp_path / "x", get_recipe("vit_mini_compass"), resume=False)


@pytest.mark.parametrize("held", ["metrics.csv", "last.pt", "previous.pt", "best.safetensors"])
def test_a_folder_that_holds_a_run_is_not_written_over(tmp_path, held):
    (tmp_path / held).write_text("kept")
    with pytest.raises(UserError, match="has a run already.*--resume"):
        c.check_run_dir(tmp_path, get_recipe("vit_mini_compass"), resume=False)
    assert (tmp_path / held).read_text() == "kept"


def test_another_recipe_is_not_resumed(tmp_path):
    recipe = get_recipe("vit_mini_compass")
    with c.open_run_dir(tmp_path, recipe, c.TrainState()):
        c.check_run_dir(tmp_path, recipe.override({"optim.lr": 0.003}), resume=True)  # nothing is trained yet
        (tmp_path / "last.pt").touch()
        c.check_run_dir(tmp_path, recipe.override({"data.workers": 2}), resume=True)
        with pytest.raises(UserError, match=r"has optim.lr = 0.002, not 0.003"):
            c.check_run_dir(tmp_path, recipe.override({"optim.lr": 0.003}), resume=True)
    assert c.read_recipe(tmp_path) == recipe


@pytest.mark.slow
def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path):
    """The first is another process, which is then killed."""
    recipe, is_open = get_recipe("vit_mini_compass"), FORK.Event()

    def hold():
        with c.open_run_dir(tmp_path, recipe, c.TrainState()):
            is_open.set()
            time.sleep(99)

    first = FORK.Process(target=hold)
    first.start()
    assert is_open.wait(30)
    says = "another process is training in .*--run-dir"
    with pytest.raises(UserError, match=says), c.open_run_dir(tmp_path, recipe, c.TrainState()):
        pass
    first.kill()
    first.join()
    for _ in range(2):  # and each gives it back
        with c.open_run_dir(tmp_path, recipe, c.TrainState()):
            pass


def test_a_broken_recipe_is_named(tmp_path):
    (tmp_path / "recipe.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "last.pt").touch()
    with pytest.raises(UserError, match="recipe.json"):
        c.check_run_dir(tmp_path, get_recipe("vit_mini_compass"), resume=True)
