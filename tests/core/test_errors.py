"""Errors of the user: the line, the exit status, the near names, and the way out of a loader's worker process."""

import importlib
import pickle
import subprocess
import sys

import pytest
from torch.utils.data import DataLoader, Dataset

from spvit_mini.cli.program import run_program
from spvit_mini.errors import UserError, near


def test_near_names_the_likely_ones_best_first():
    names = ["vit_mini", "spvit_mini", "convit_mini", "deit_small"]
    assert near("spvit_mimi", names).startswith(" Did you mean spvit_mini")
    assert near("DEIT_SMALL", names) == " Did you mean deit_small?"
    assert near("compas", ["compass", "rings"]) == " Did you mean compass?"
    assert near("ab", ["abc", "abd"]) in (" Did you mean abc or abd?", " Did you mean abd or abc?")
    assert near("zzzz", names) == ""
    assert near("zzzz", []) == ""


def test_a_user_error_is_one_line_and_survives_pickling():
    error = UserError("first\nsecond\n")
    assert str(error) == "first second"
    assert isinstance(error, ValueError)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is UserError and str(again) == "first second"


def test_a_user_error_prints_one_line_and_exits_with_2(capsys):
    def main():
        raise UserError("no such recipe: spvit. Did you mean spvit_mini?")

    with pytest.raises(SystemExit) as exit_:
        run_program(main)
    assert exit_.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: no such recipe: spvit. Did you mean spvit_mini?\n")


def test_an_interrupt_is_quiet_and_exits_with_130(capsys):
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as exit_:
        run_program(main)
    assert exit_.value.code == 130
    assert capsys.readouterr() == ("", "")


def test_status_of_main_and_faults_of_the_package_pass_through():
    run_program(lambda: None)
    run_program(lambda: 0)
    with pytest.raises(SystemExit) as exit_:
        run_program(lambda: 3)
    assert exit_.value.code == 3

    def faulty():
        raise ValueError("a fault, not the user's")

    with pytest.raises(ValueError, match="a fault"):
        run_program(faulty)


class Failing(Dataset):
    """Raise a `UserError` whose text itself speaks of an error."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise UserError(f"image {index}: cut off; replace it, or skip such files (a text with 'quotes' and: colons)")


@pytest.mark.parametrize("workers", [0, 1])
def test_out_of_a_worker_process_comes_the_same_line(workers):
    try:
        next(iter(DataLoader(Failing(), batch_size=2, num_workers=workers)))
        said = "nothing"
    except UserError as error:
        said = str(error)
        error.__traceback__ = None  # lets the iterator go at once; collected as garbage it waits for its workers
    assert said == "image 0: cut off; replace it, or skip such files (a text with 'quotes' and: colons)"


@pytest.mark.parametrize("name", ["heads", "sparsity", "speed"])
def test_small_programs_say_what_they_do_and_refuse_unknown_options(name, monkeypatch, capsys):
    main = importlib.import_module(f"spvit_experiments.{name}").main
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0 and f"python -m spvit_experiments {name}" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [name, "--seeds", "3"])
    with pytest.raises(UserError, match="there is no option --seeds"):
        main()


@pytest.mark.parametrize(("missing", "name"), [("torch", "create_model"), ("safetensors", "load_weights")])
def test_a_missing_package_is_named_with_its_cure(missing, name):
    hidden = f"import sys; sys.modules[{missing!r}] = None; from spvit_mini import {name}"
    ended = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True)
    last = ended.stderr.splitlines()[-1]
    assert ended.returncode == 1 and f"{missing} is not installed" in last and "pip install --editable .[lab]" in last
