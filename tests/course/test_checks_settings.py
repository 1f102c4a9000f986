"""Checks under whatever a notebook has set: the results are those of a fresh notebook, and the settings stay as they were."""

import builtins
import os
import random
import sys
import warnings
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from spvit_course.checks.engine import examine
from spvit_course.checks.exchange import exchange
from spvit_course.checks.settings import fixed_settings
from spvit_course.classroom.proctor import MIME, signed_check
from spvit_course.lesson import PROFILES, Lesson
from spvit_mini.attention import MHSA

from .bank import EXERCISES, VARIED
from .test_checks import check, right_answer

ALL = EXERCISES | VARIED


def enter(make):
    """Make a setting of a context that the notebook has entered and not left."""
    return lambda stack, tmp_path: stack.enter_context(make())


def call(function, *arguments, **options):
    """Make a setting of a call."""
    return lambda stack, tmp_path: function(*arguments, **options)


def delete_the_working_directory(stack, tmp_path):
    os.chdir(tmp_path)
    tmp_path.rmdir()


def replace_print(stack, tmp_path):
    stack.enter_context(pytest.MonkeyPatch.context()).setattr(builtins, "print", lambda *values, **options: None)


def draw_numbers(stack, tmp_path):
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    torch.randn(3), np.random.normal(), random.gauss(0, 1)  # of two normal numbers NumPy and Python keep one for later


SETTINGS = {
    "float64": call(torch.set_default_dtype, torch.float64),
    "float16": call(torch.set_default_dtype, torch.float16),
    "no gradients": call(torch.set_grad_enabled, False),
    "no_grad": enter(torch.no_grad),
    "inference mode": enter(torch.inference_mode),
    "device meta": call(torch.set_default_device, "meta"),
    "inside a device": enter(lambda: torch.device("meta")),
    "autocast": enter(lambda: torch.autocast("cpu", torch.bfloat16)),
    "deterministic": call(torch.use_deterministic_algorithms, True),
    "deterministic, warn only": call(torch.use_deterministic_algorithms, True, warn_only=True),
    "anomalies": call(torch.autograd.set_detect_anomaly, True),
    "anomalies, no NaN check": call(torch.autograd.set_detect_anomaly, True, check_nan=False),
    "medium precision": call(torch.set_float32_matmul_precision, "medium"),
    "precision by backend": lambda stack, tmp_path: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
    "no denormal numbers": call(torch.set_flush_denormal, True),
    "no backend of attention": enter(lambda: torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.CUDNN_ATTENTION)),
    "two threads": call(torch.set_num_threads, 2),
    "NumPy raises": call(np.seterr, all="raise"),
    "NumPy prints": call(np.set_printoptions, precision=1, threshold=3),
    "torch prints": call(torch.set_printoptions, precision=1, profile="short", sci_mode=True),
    "warnings as errors": call(warnings.simplefilter, "error"),
    "a low recursion limit": call(sys.setrecursionlimit, 400),
    "a high recursion limit": call(sys.setrecursionlimit, 10**9),
    "no working directory": delete_the_working_directory,
    "print replaced": replace_print,
    "random numbers": draw_numbers,
    "style": lambda stack, tmp_path: matplotlib.rcParams.update({"lines.linewidth": 9, "text.usetex": True}),
}
TINY = 5e-324


def observe() -> dict:
    """Describe all settings, by other means than the checks' own where there are some."""
    with suppress(RuntimeError):
        precision = None
        precision = torch.get_float32_matmul_precision()
    with suppress(FileNotFoundError):
        folder = None
        folder = os.getcwd()
    return {
        "dtype": torch.get_default_dtype(),
        "device": (torch.get_default_device(), torch.empty(()).device, torch._C._len_torch_function_stack()),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        "anomalies": (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        "precision": (precision, torch.backends.mkldnn.matmul.fp32_precision, TINY * 1.0),
        "kernels": (torch.backends.cuda.math_sdp_enabled(), torch.backends.cuda.flash_sdp_enabled()),
        "threads": torch.get_num_threads(),
        "NumPy": (np.geterr(), np.get_printoptions(), repr(np.random.get_state()[2:]), np.random.get_state()[1].tobytes()),
        "Python": (random.getstate(), sys.getrecursionlimit(), list(warnings.filters), folder, builtins.print),
        "torch": (torch.get_rng_state().numpy().tobytes(), str(torch._tensor_str.PRINT_OPTS)),
        "style": dict(dict.items(matplotlib.rcParams)),
    }


@contextmanager
def notebook(names, tmp_path):
    """Set what a notebook has set; give the settings, and restore those of the tests at the end."""
    here, folder = Path.cwd(), tmp_path / "deleted"
    folder.mkdir(parents=True)
    before = observe()
    with ExitStack() as stack:
        stack.callback(os.chdir, here)
        stack.enter_context(fixed_settings())
        inner = stack.enter_context(ExitStack())  # contexts end before the settings are restored
        for name in names:
            SETTINGS[name](inner, folder)
        yield observe()
    assert observe() == before


def draw_settings(key: str, number: int) -> list[str]:
    """Draw five settings, the same ones in each run. Of several devices, the last one holds."""
    return random.Random(f"{key} {number}").sample(sorted(SETTINGS), 5)


@pytest.mark.parametrize(("key", "number"), [(key, n) for key in ALL for n in range(3 if key in EXERCISES else 1)])
def test_a_check_says_the_same_under_any_settings_and_restores_them(key, number, tmp_path):
    exercise = ALL[key]
    mistake = random.Random(number).choice(exercise.bank)
    for answer, name in ((right_answer(key), None), (mistake.answer, mistake.name)):
        expected = check(key, answer, number)
        assert (expected.passed, expected.mistake) == (name is None, name)
        with notebook(draw_settings(key, number), tmp_path / (name or "right").replace("/", "")) as settings:
            assert examine(exercise, answer, seed=number) == expected
            assert observe() == settings


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_alone_has_no_influence_on_a_check_with_gradients_and_types(name, tmp_path):
    exercise = EXERCISES["01 one_head"]
    detached = lambda q, k, v: F.softmax(q @ k.T / q.shape[-1] ** 0.5, -1).detach() @ v  # noqa: E731
    for answer, says in ((exercise.answer, "PASS"), (detached, "Was a part detached?")):
        with notebook([name], tmp_path / says[:4]) as settings:
            assert says in str(examine(exercise, answer))
            assert observe() == settings


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("fails", [False, True])
def test_what_an_answer_sets_is_undone_also_after_an_error(name, fails, tmp_path):
    exercise = EXERCISES["03 pad_prefix"]
    (tmp_path / "inside").mkdir()

    def answer(spatial, prefix, neutral):
        result = exercise.answer(spatial, prefix, neutral)
        if (tmp_path / "inside").exists():
            SETTINGS[name](ExitStack(), tmp_path / "inside")
        if fails:
            raise SystemExit
        return result.flip(-1)

    before = observe()
    try:
        result = examine(exercise, answer)
        assert not result.passed and ("SystemExit" in str(result)) == fails
        assert observe() | {"Python": None} == before | {"Python": None}
        assert name == "print replaced" or observe() == before
    finally:
        os.chdir(tmp_path)


def test_an_answer_that_changes_settings_does_not_change_what_is_said_of_it(tmp_path):
    """The known mistakes are computed under the fixed settings again."""
    exercise = EXERCISES["03 pad_prefix"]

    def answer(spatial, prefix, neutral):
        torch.set_default_dtype(torch.float16)
        return exercise.answer(spatial, prefix, neutral, rows="last", columns="last")

    assert examine(exercise, answer).mistake == "placed last"


@pytest.mark.parametrize("name", ["float64", "inference mode", "device meta", "no gradients", "warnings as errors"])
def test_two_classes_are_compared_under_the_fixed_settings_too(name, tmp_path):
    with notebook([name], tmp_path):
        x, settings = torch.randn(2, 6, 8, device="cpu", dtype=torch.float32), observe()
        result = exchange(type("Own", (MHSA,), {}), MHSA, build={"dim": 8, "heads": 2}, inputs=(x, (2, 3)))
        assert "it calls the package's own solution" in str(result)
        assert exchange(make_layer(), MHSA, build={"dim": 8, "heads": 2}, inputs=(x, (2, 3))).passed
        assert observe() == settings


def test_a_right_answer_gets_its_receipt_under_any_settings(tmp_path):
    messages = []
    graded = signed_check(messages.append, "secret")
    names = ["float64", "print replaced", "inference mode", "device meta", "warnings as errors", "no working directory"]
    for name in names:
        with notebook([name], tmp_path / name.replace(" ", "_")) as settings:
            graded("03", EXERCISES["03 pad_prefix"].answer, {})
            assert observe() == settings
    assert [list(message[MIME]) for message in messages] == [["receipt"]] * len(names)


def make_layer():
    """Give lesson 01's class with the package's arguments."""
    return EXERCISES["01 MHSA"].answer


def test_a_recursion_without_end_is_an_error_of_the_answer(tmp_path):
    def answer(spatial, prefix, neutral):
        return answer(spatial, prefix, neutral)

    with notebook(["a high recursion limit"], tmp_path):
        assert "RecursionError" in str(examine(EXERCISES["03 pad_prefix"], answer))


def test_progress_is_printed_where_the_working_directory_is_gone(tmp_path, capsys):
    with notebook(["no working directory"], tmp_path):
        Lesson("03", PROFILES["smoke"]).progress()
    assert capsys.readouterr().out.startswith("Lesson 03: 0 of ")
