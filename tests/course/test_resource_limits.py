"""What an answer may not do: run for ever, or call the package's solution."""

import signal
import threading
import time

import pytest

from spvit_course.checks.resource_limits import OutOfReach, TookTooLong, hide_solution, limit_time
from spvit_mini.geometry import patch_grid


def plain_loop():
    while True:
        pass


def loop_that_catches_exceptions():
    while True:
        try:
            plain_loop()
        except Exception:
            continue


def loop_that_once_catches_everything():
    try:
        plain_loop()
    except BaseException:
        plain_loop()


LOOPS = [plain_loop, loop_that_catches_exceptions, loop_that_once_catches_everything]


def limited(loop) -> str:
    try:
        with limit_time(0.05):
            loop()
    except TookTooLong:
        return "interrupted"
    return "ended"


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_endless_loops_are_interrupted_in_the_main_thread(loop):
    assert limited(loop) == "interrupted"


@pytest.mark.parametrize("loop", LOOPS)
def test_endless_loops_are_interrupted_in_other_threads(loop):
    found = []
    thread = threading.Thread(target=lambda: found.append(limited(loop)))
    thread.start()
    thread.join(timeout=30)
    assert found == ["interrupted"]


def test_endless_loops_are_interrupted_where_there_is_no_alarm(monkeypatch):
    monkeypatch.delattr(signal, "setitimer")
    assert limited(plain_loop) == "interrupted"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no alarm signal")
def test_a_sleeping_answer_is_woken():
    assert limited(lambda: time.sleep(60)) == "interrupted"


@pytest.mark.parametrize("in_thread", [False, True])
def test_nothing_rings_after_the_end(in_thread):
    def work():
        with limit_time(0.05):
            pass
        time.sleep(0.1)
        found.append(sum(range(1000)))

    found = []
    if in_thread:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    else:
        work()
    assert found == [499500]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no alarm signal")
def test_an_alarm_that_was_set_before_still_rings():
    rung = []
    handler = signal.signal(signal.SIGALRM, lambda *_: rung.append(True))
    outer = signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        assert limited(plain_loop) == "interrupted"
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
        while not rung:
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *outer)


def test_a_function_is_out_of_reach_by_any_name():
    import spvit_mini.geometry

    with hide_solution(spvit_mini.geometry.patch_grid):
        for call in (patch_grid, spvit_mini.geometry.patch_grid):
            with pytest.raises(OutOfReach):
                call((8, 8), patch=4)
    assert patch_grid((8, 12), 4) == (2, 3)


class Base:
    def forward(self):
        return "forward"


class Child(Base):
    def forward(self):
        return "child " + super().forward()


class WithStart(Base):
    def __init__(self, name="x"):
        self.name = name


@pytest.mark.parametrize("kind", [Base, Child, WithStart])
def test_a_class_is_out_of_reach_with_instances_made_before(kind):
    before = kind()
    names = set(vars(kind))
    with hide_solution(kind):
        with pytest.raises(OutOfReach):
            kind()
        if "forward" in names:
            with pytest.raises(OutOfReach):
                before.forward()
    assert set(vars(kind)) == names
    assert kind().forward() in ("forward", "child forward")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, TookTooLong])
def test_what_was_out_of_reach_comes_back_after_any_exception(error):
    with pytest.raises(error), hide_solution(patch_grid):
        raise error
    with pytest.raises(error), hide_solution(Child):
        raise error
    assert patch_grid((8, 8), 4) == (2, 2)
    assert Child().forward() == "child forward"
