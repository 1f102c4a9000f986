"""The proctor and the autograder, function by function: what is protected, what is refused, what gives points."""

import copy
import socket

import pytest
import torch

import spvit_mini
from spvit_course.checks import engine, exercises
from spvit_course.checks.engine import CheckFailed
from spvit_course.classroom import proctor
from spvit_course.classroom.assignments import assemble
from spvit_course.classroom.proctor import MIME, audit_hook, protected_parts, receipt, signed_check
from spvit_course.lesson import Lesson
from spvit_course.lessons import grading
from spvit_experiments import statistics
from spvit_mini import attention, data, geometry

from .submissions import SMALL, cell

OPTIONS = {"name": None, "variant": None}


@pytest.fixture
def messages():
    return []


@pytest.fixture
def check(messages):
    return signed_check(messages.append, "secret")


def offsets(rows, columns):
    down, right = torch.arange(1 - rows, rows), torch.arange(1 - columns, columns)
    return torch.stack(torch.meshgrid(down, right, indexing="ij"), dim=-1)


def wrong(rows, columns):
    return torch.zeros(3)


# Receipts ---------------------------------------------------------------------------------------------------------------


def expected(name):
    """The receipts that a check of the small set must give."""
    autograding = pytest.importorskip("spvit_course.classroom.autograding", reason="needs nbgrader")
    return autograding.expected_receipts(cell(assemble(SMALL), f"check-{name}").source, "secret")


def test_a_passed_check_gives_the_receipt_that_its_cell_must_give(check, messages):
    check("03", offsets, OPTIONS)
    (message,) = messages
    assert {message[MIME]["receipt"]} == expected("offsets") != expected("pad_prefix")


def test_a_wrong_answer_gives_no_receipt(check, messages):
    with pytest.raises(CheckFailed, match="NOT YET offsets"):
        check("03", wrong, {"name": "offsets"})
    assert messages == []


def test_an_answer_under_the_name_of_a_solved_exercise_gives_no_receipt_for_its_own(check, messages):
    check("03", offsets, {})  # as `pad_prefix = offsets` makes the check of pad_prefix do
    assert messages[0][MIME]["receipt"] not in expected("pad_prefix")


def test_a_receipt_depends_on_secret_lesson_exercise_and_options():
    base = ("secret", "03", "offsets", {})
    changes = [("other", *base[1:]), ("secret", "04", *base[2:]), (*base[:2], "spread", {}), (*base[:3], {"variant": "x_first"})]
    assert len({receipt(*each) for each in (base, *changes)}) == 5


# What must not change ---------------------------------------------------------------------------------------------------


def test_all_three_packages_and_what_they_use_are_protected(check):
    parts = set(dict(protected_parts()))
    assert {"spvit_course.lesson.Lesson.check", "spvit_course.checks.engine.examine", "the code of spvit_mini.geometry.offsets",
            "spvit_mini.create_model", "spvit_mini.data.synthetic.Compass", "spvit_experiments.statistics.paired",
            "torch.allclose", "Tensor.backward", "builtins.sum", "hmac.new"} <= parts  # fmt: skip
    assert any(name.startswith("spvit_course.checks.") and name.endswith("[0].mistakes") for name in parts)


def same(*arguments, **options):
    return True


CHANGES = {
    "a method": (Lesson, "check", same, "spvit_course.lesson.Lesson.check"),
    "torch": (torch, "allclose", same, "torch.allclose"),
    "a function's code": (engine.examine, "__code__", same.__code__, "the code of spvit_course.checks.engine.examine"),
    "a function's defaults": (geometry.pad_prefix, "__defaults__", (7,), "the defaults of"),
    "an exercise": (exercises("03")["offsets"], "mistakes", (), "mistakes"),
    "the library": (geometry, "offsets", same, "spvit_mini.geometry.offsets"),
    "a name imported on first use": (spvit_mini, "create_model", same, "spvit_mini.create_model"),
    "a name that hides one": (data, "Compass", same, "spvit_mini.data.Compass"),
    "the experiments": (statistics, "paired", same, "spvit_experiments.statistics.paired"),
}


IN_DICTIONARY = ("an exercise", "a name that hides one")  # attributes that can't be set, or that getattr finds elsewhere


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_graded_once_a_part_has_changed(check, messages, monkeypatch, change):
    owner, name, value, says = CHANGES[change]
    with monkeypatch.context() as patch, pytest.raises(CheckFailed, match=r"not graded: the notebook has changed .*"):
        patch.setitem(vars(owner), name, value) if change in IN_DICTIONARY else patch.setattr(owner, name, value)
        check("03", offsets, OPTIONS)
    (message,) = messages
    assert says in message[MIME]["changed"]
    check("03", offsets, OPTIONS)  # all is as it was


def test_what_python_adds_by_itself_is_no_change(check, messages, monkeypatch):
    layer = attention.SPSA(8, 2)
    copy.deepcopy(layer)  # adds __slotnames__ to the class
    assert attention.SPSA.__annotations__ is not None
    monkeypatch.setitem(vars(geometry), "__warningregistry__", {})
    check("03", offsets, OPTIONS)
    assert "receipt" in messages[0][MIME]


def test_a_module_in_the_packages_place_is_seen(check, messages, monkeypatch):
    monkeypatch.setitem(proctor.sys.modules, "spvit_mini.geometry", type(geometry)("fake"))
    with pytest.raises(CheckFailed, match="not graded"):
        check("03", offsets, OPTIONS)
    assert "spvit_mini.geometry" in messages[0][MIME]["changed"]


# What is refused --------------------------------------------------------------------------------------------------------


def test_network_programs_and_the_class_s_files_are_refused_and_reported(messages, monkeypatch, tmp_path):
    own = tmp_path / "autograded" / "ada" / "small"
    own.mkdir(parents=True)
    monkeypatch.chdir(own)
    audit = audit_hook(messages.append, str(tmp_path))
    with socket.socket() as one:
        asked = [
            ("socket.connect", (one, ("127.0.0.1", 9)), "network", "127.0.0.1"),
            ("socket.getaddrinfo", ("example.com", 80), "network", "example.com"),
            ("os.system", (b"touch ran",), "program", "touch ran"),
            ("os.fork", (), "program", "os.fork"),
            ("sqlite3.connect", ("../../../gradebook.db",), "file", f"{tmp_path}/gradebook.db"),
            ("open", (str(tmp_path / "submitted" / "bob" / "small.ipynb"), "r", 0), "file", "bob/small.ipynb"),
        ]
        for event, arguments, kind, says in asked:
            with pytest.raises(PermissionError, match=f"refused while this is graded: {kind}"):
                audit(event, arguments)
            assert says in messages[-1][MIME][kind]
    for event, arguments in (("open", ("figure.png", "w", 0)), ("open", ("/usr/share/x", "r", 0)), ("import", ("torch",)),
                             ("open", (str(tmp_path) + "2", "r", 0))):  # fmt: skip
        audit(event, arguments)
    assert len(messages) == len(asked)


# Points -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def executor():
    """An executor as `preprocess` sets it up, with one graded cell of the small set."""
    autograding = pytest.importorskip("spvit_course.classroom.autograding", reason="needs nbgrader")
    executor = autograding.ProctoredExecute()
    executor.reset_execution_trackers()
    executor.clear_before_next_output = False
    executor.receipts, executor.output_sizes, executor.odd = {0: set()}, {0: 0}, []
    executor.cell, executor.secret = cell(assemble(SMALL), "check-offsets"), "secret"
    executor.cell.outputs = []
    return executor


def show(executor, kind="stream", **content):
    """Let the executor receive a message of the kernel."""
    content = {"name": "stdout"} | content if kind == "stream" else {"metadata": {}} | content
    message = {"msg_type": kind, "header": {"msg_type": kind}, "parent_header": {"msg_id": "1"}, "content": content}
    executor.output(executor.cell.outputs, message, None, 0)


def settled(executor):
    executor.apply_receipts(executor.cell, 0)
    return [(output.output_type, output.get("name") or output.get("ename")) for output in executor.cell.outputs]


def test_with_its_receipt_a_warning_or_a_value_costs_nothing(executor):
    show(executor, name="stderr", text="a warning")
    show(executor, "execute_result", data={"text/plain": "1"}, execution_count=1)
    show(executor, "display_data", data={MIME: {"receipt": expected("offsets").pop()}})
    assert settled(executor) == [("stream", "stdout")] and executor.odd == []


NO_RECEIPT = "the cell check-offsets showed no error, yet its check did not pass: no points"


FORGED = [None, "f" * 64, receipt("guess", "03", "offsets", {}), receipt("secret", "03", "pad_prefix", {})]


@pytest.mark.parametrize("forged", FORGED, ids=["none", "invented", "another secret", "another exercise"])
def test_without_its_receipt_a_check_that_shows_no_error_gives_no_points(executor, forged):
    """As where `lesson` is a fake, errors are hidden, the proctor is replaced, or an answer displays a receipt of its own."""
    show(executor, text="PASS offsets")
    if forged:
        show(executor, "display_data", data={MIME: {"receipt": forged}})
    assert settled(executor) == [("stream", "stdout"), ("error", "NotGraded")] and executor.odd == [NO_RECEIPT]


def test_of_a_failed_check_students_read_the_message_alone(executor):
    show(executor, "error", ename="CheckFailed", evalue="NOT YET", traceback=["the way", "through the checks"])
    assert settled(executor) == [("error", "CheckFailed")] and executor.odd == []
    assert executor.cell.outputs[0].traceback == ["CheckFailed: NOT YET"]


def test_an_error_after_the_check_passed_gives_no_points(executor):
    show(executor, "display_data", data={MIME: {"receipt": expected("offsets").pop()}})
    show(executor, "error", ename="NameError", evalue="x", traceback=[])
    assert settled(executor) == [("error", "NameError")]


def test_cells_that_no_receipt_is_for_stay_as_they_are(executor):
    executor.cell.source = "lesson.check(offsets, grade=True)"  # no hidden test of `release`
    assert settled(executor) == []
    executor.cell = cell(assemble(SMALL), "offsets")
    assert settled(executor) == [] and not grading(executor.cell)["grade"]


def test_long_output_is_cut_once_and_what_is_refused_is_told_once(executor):
    for _ in range(30):
        show(executor, text="x" * 9_999)
        show(executor, "display_data", data={MIME: {"network": "127.0.0.1"}})
    assert sum(len(output.text) for output in executor.cell.outputs) < 100_100
    assert executor.odd == [
        "the cell check-offsets asked for the network: 127.0.0.1",
        "the cell check-offsets printed more than 100,000 characters; the rest was cut",
    ]
