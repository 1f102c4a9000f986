"""The study program: its runs survive, side by side or in parts, and their records are the same whatever happened."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import torch
from filelock import FileLock

from spvit_experiments import Arm, Study, runner
from spvit_experiments import study_command as program
from spvit_experiments.records import read_records, read_runs, write_record
from spvit_experiments.study_command import Arguments
from spvit_mini.errors import UserError

ROOT = Path(__file__).parents[2]


def at(folder: Path, **others) -> Arguments:
    return Arguments(out=folder / "results", runs=folder / "runs", threads=1, device="cpu", **others)


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory) -> Path:
    """The study made in one go, one run after the other."""
    folder = tmp_path_factory.mktemp("whole")
    assert program.run(tiny, at(folder)) == 0
    return folder


def rows(folder: Path) -> str:
    return (folder / "results" / "tiny.csv").read_text()


@pytest.mark.slow
def test_a_study_is_made_recorded_and_not_made_again(tiny, whole, capsys):
    read = read_records("tiny", whole / "results")
    assert [(r["arm"], r["seed"], r["step"]) for r in read] == [
        (arm, seed, step) for arm in ("plain", "prior") for seed in (0, 1) for step in (3, 6)
    ]
    one = read_runs("tiny", whole / "results")[3]
    assert one.recipe["optim"]["lr"] == 1e-3 and one.recipe["seed"] == 1 and one.recipe["device"] == "auto"
    assert (
        one.parameters == 3704 + 2 * (2 * 32 + 32 + 32 + 1)
        and one.device == "CPU, 1 thread"
        and one.ms_per_step > 0
        and len(one.commit) >= 7
    )
    assert not list(whole.glob("runs/*/*/*.pt")) and len(list(whole.glob("runs/*/*/best.safetensors"))) == 4
    before = {path: path.stat().st_mtime_ns for path in whole.glob("runs/*/*/*")}
    assert program.run(tiny, at(whole)) == 0
    assert {path: path.stat().st_mtime_ns for path in whole.glob("runs/*/*/*")} == before
    assert "| plain |" in capsys.readouterr().out


@pytest.mark.slow
def test_runs_side_by_side_give_the_same_records(tiny, whole, tmp_path):
    assert program.run(tiny, at(tmp_path, parallel=2)) == 0
    assert rows(tmp_path) == rows(whole)


@pytest.mark.slow
def test_parts_are_merged_into_the_whole(tiny, whole, tmp_path, capsys):
    for shard in ("2/3", "1/3", "3/3"):
        assert program.run(tiny, at(tmp_path, shard=shard)) == 0
    assert not (tmp_path / "results").exists(), "parts leave the shared files alone"
    assert program.run(tiny, at(tmp_path, collect=True)) == 0
    assert rows(tmp_path) == rows(whole)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_from_its_state(tiny, whole, tmp_path, monkeypatch, capsys):
    run = tmp_path / "runs" / "tiny" / "prior-0"

    def killed(recipe, *, on_evaluation, **others):
        def die(*_):
            raise RuntimeError("killed")

        return train(recipe, on_evaluation=die, **others)

    train = runner.train
    with monkeypatch.context() as patch:
        patch.setattr(runner, "train", killed)
        with pytest.raises(RuntimeError, match="killed"):  # at step 3, one after a save
            runner.make_run(tiny, "prior", 0, run, program.make_resources(at(tmp_path)))
    assert (run / "last.pt").exists() and not (run / "record.json").exists()
    program.run(tiny, at(tmp_path, dry_run=True))
    assert "prior, seed 0: to be resumed" in capsys.readouterr().out
    assert program.run(tiny, at(tmp_path)) == 0
    assert rows(tmp_path) == rows(whole)


@pytest.mark.slow
def test_a_signal_saves_what_runs_and_stops(tiny, tmp_path, capsys):
    endless = replace(tiny, changes=tiny.changes | {"duration": "1000000 steps", "save_every": "1000000 steps"})
    runs = tmp_path / "runs" / "tiny"

    def lines() -> list[int]:
        return [path.read_text().count("\n") for path in runs.glob("*/metrics.csv")]

    def when_both_have_begun():
        while sum(count > 1 for count in lines()) < 2:
            time.sleep(0.05)
        # A cluster signals every process, and this one passes on what it is told: a run hears it more than once.
        children = multiprocessing.active_children()
        for _ in range(5):
            for child in children:
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGTERM)
            time.sleep(0.003)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=when_both_have_begun, daemon=True).start()
    # A table of nothing is an error of its own; a part makes none.
    assert program.run(endless, at(tmp_path, parallel=2, shard="1/1")) == 128 + signal.SIGTERM
    assert {path.parent.name for path in runs.glob("*/last.pt")} >= {"plain-0", "prior-0"}
    assert "4 of 4 runs are not finished; the same command resumes them" in capsys.readouterr().out


@pytest.mark.slow
def test_runs_whose_program_is_killed_save_and_end_by_themselves(tmp_path):
    command = [sys.executable, "-m", "spvit_experiments", "study", "lesson_00", "--arm", "vit_mini", "--seed", "0"]
    places = ["--out", str(tmp_path / "results"), "--runs", str(tmp_path), "--threads", "1"]
    killed = subprocess.Popen([*command, *places], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run = tmp_path / "lesson_00" / "vit_mini-0"
    while not (run / "metrics.csv").exists() or (run / "metrics.csv").read_text().count("\n") < 2:
        assert killed.poll() is None
        time.sleep(0.05)
    killed.kill()
    with FileLock(run / ".lock", timeout=60):  # the run holds it until its process ends
        state = torch.load(run / "last.pt", weights_only=True)
    assert 20 <= state["position"]["step"] < 240 and not (run / "record.json").exists()


def test_no_time_left_begins_nothing(tiny, tmp_path, capsys):
    assert program.run(tiny, at(tmp_path, max_minutes=0.0, shard="1/1")) == 0
    assert "stopped: 4 of 4 runs are not finished" in capsys.readouterr().out and not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_failed_run_stops_no_other_and_a_diverged_one_is_an_outcome(tiny, tmp_path, capsys):
    study = Study(
        "tiny",
        "What goes wrong?",
        {
            "missing": Arm("vit_mini_compass6", {"data.name": "no_such_set"}),
            "diverged": Arm("vit_mini_compass6", {"optim.lr": 1e30, "optim.clip_grad_norm": None, "duration": "20 steps"}),
            "good": Arm("vit_mini_compass6"),
        },
        (0,),
        tiny.changes,
    )
    with pytest.raises(UserError, match="1 of 3 runs failed.* missing seed 0: there is no dataset 'no_such_set'"):
        program.run(study, at(tmp_path))
    found = {record.arm: record for record in read_runs("tiny", tmp_path / "results")}
    assert list(found) == ["diverged", "good"]
    assert found["diverged"].diverged and found["diverged"].final == 0 and not found["good"].diverged
    assert "missing seed 0" in capsys.readouterr().out


def told(study, arguments, capsys, monkeypatch, *, failures=None, stopped_by=None, makes=()) -> tuple[int, str]:
    """Run the program with runs that end at once with a given outcome; returns its status, and its output with the error last."""

    def run_all(study, due, *, folder, on_finished, **_):
        for key in due:
            if key in makes:
                folder(*key).mkdir(parents=True, exist_ok=True)
                write_record(folder(*key), makes[key])
                on_finished(key)
        return {key: reason for key, reason in (failures or {}).items() if key in due}, stopped_by

    monkeypatch.setattr(runner, "run_all", run_all)
    try:
        status, error = program.run(study, arguments), ""
    except UserError as caught:
        status, error = 2, str(caught)
    return status, capsys.readouterr().out + error


def test_runs_that_all_fail_say_why_and_not_that_there_are_no_records(tiny, tmp_path, capsys, monkeypatch):
    failures = dict.fromkeys(tiny.runs(), "there is no dataset 'x'")
    status, text = told(tiny, at(tmp_path), capsys, monkeypatch, failures=failures)
    assert status == 2 and "no runs of tiny are recorded" not in text
    assert text.endswith("not affected. plain seed 0, prior seed 0, plain seed 1 and 1 more: there is no dataset 'x'")
    assert not (tmp_path / "results").exists()


def test_a_failing_arm_is_named_and_the_records_of_the_others_are_kept(tiny, tmp_path, capsys, monkeypatch, made):
    makes = {("plain", seed): made(tiny, "plain", seed, [50.0 + seed]) for seed in tiny.seeds}
    failures = {("prior", 0): "out of memory", ("prior", 1): "another reason"}
    status, text = told(tiny, at(tmp_path), capsys, monkeypatch, failures=failures, makes=makes)
    assert status == 2 and "| plain | 50.0 51.0 |" in text
    assert text.endswith("not affected. prior seed 0: out of memory; prior seed 1: another reason")
    assert [record.key for record in read_runs("tiny", tmp_path / "results")] == [("plain", 0), ("plain", 1)]


@pytest.mark.parametrize(("stopped_by", "status"), [(None, 0), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_a_stop_before_the_first_run_is_done_says_what_resumes_it(tiny, tmp_path, capsys, monkeypatch, stopped_by, status):
    arguments = at(tmp_path, max_minutes=1.0, arm=("plain", "prior"), rerun=True)
    found, text = told(tiny, arguments, capsys, monkeypatch, stopped_by=stopped_by)
    options = f"--arm plain prior --max-minutes 1.0 --device cpu --threads 1 --out {tmp_path}"
    command = f"python -m spvit_experiments study tiny {options}"
    assert found == status and f"4 of 4 runs are not finished; the same command resumes them: {command}" in text
    assert "--rerun" not in text and "are recorded" not in text


@pytest.mark.parametrize(
    ("option", "value"), [("max-minutes", "-1"), ("max-minutes", "nan"), ("max-minutes", "inf"), ("workers", "-1")]
)
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(UserError, match=f"{option} is {value}[.0]*; expected"):
        program.main(["lesson_00", f"--{option}", value])


def test_a_folder_of_datasets_that_does_not_exist_is_refused_at_once(tiny, tmp_path):
    for kind in ({}, {"report": True}, {"max_minutes": 1.0}):
        with pytest.raises(UserError, match="--root is /nowhere, which is not a folder; expected the folder of the datasets"):
            program.run(tiny, at(tmp_path, root=Path("/nowhere"), **kind))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="the folder .*file/x cannot be written to, since .*file is a file"):
        program.run(tiny, Arguments(out=tmp_path / "file" / "x", runs=tmp_path))


def test_the_expected_time_is_an_estimate_or_unknown(tiny, tmp_path, capsys, monkeypatch, made):
    def plan() -> list[str]:
        return told(tiny, at(tmp_path, dry_run=True), capsys, monkeypatch)[1].splitlines()

    assert plan()[-1] == "expected: unknown, since no run of these arms is recorded"
    makes = {("plain", 0): made(tiny, "plain", 0, [50.0], seconds=0.25)}
    told(tiny, at(tmp_path, arm=("plain",), seed=(0,)), capsys, monkeypatch, makes=makes)
    assert plan() == [
        "plain, seed 0: recorded, 50.0 %",
        "prior, seed 0: to be made",
        "plain, seed 1: to be made, about 0.2 seconds",
        "prior, seed 1: to be made",
        "expected: 0.2 seconds for one run after the other, from the times of recorded runs; "
        "2 of the 3 runs come on top, since no run of their arms is recorded",
    ]
    makes = {key: made(tiny, *key, [50.0], seconds=7200.0) for key in tiny.runs()}
    told(tiny, at(tmp_path), capsys, monkeypatch, makes=makes)
    assert plan()[-1] == "expected: nothing to do, since all runs are recorded"
    assert [program.describe_time(seconds) for seconds in (89.0, 600.0, 7200.0)] == ["89 seconds", "10.0 minutes", "2.0 hours"]


def test_a_record_that_does_not_count_any_more_is_said_with_its_reason(tiny, tmp_path, capsys, monkeypatch, made):
    makes = {key: made(tiny, *key, [50.0]) for key in tiny.runs()}
    told(tiny, at(tmp_path), capsys, monkeypatch, makes=makes)
    changed = replace(tiny, arms=tiny.arms | {"prior": replace(tiny.arms["prior"], changes={"optim.lr": 5e-3})})
    line = "the record of prior seed 0, prior seed 1 does not count and will be replaced: "
    line += "it was made with optim.lr = 0.001, not 0.005"
    for arguments in (at(tmp_path, dry_run=True), at(tmp_path, max_minutes=0.0)):
        text = told(changed, arguments, capsys, monkeypatch)[1]
        assert text.count(line) == 1 and "plain seed" not in text
    assert "--max-minutes" not in text  # with 0 minutes the same command would resume nothing


@pytest.mark.slow
def test_an_arm_is_made_again_when_its_initial_weights_change(tiny, tmp_path, monkeypatch, capsys):
    """A run that was begun from other weights is not resumed, and its record stands for it alone."""
    start, run = tmp_path / "start", tmp_path / "runs" / "tiny" / "plain-0"
    recipe = tiny.recipe("plain", 7)
    runner.train(recipe, run_dir=start, progress=False)
    study = replace(tiny, changes=tiny.changes | {"init_from": start})
    resources = program.make_resources(at(tmp_path))
    accuracies = {}
    for name, changed in (("first", study), ("again", study), ("from scratch", tiny)):
        runner.make_run(changed, "plain", 0, run, resources)
        (record,) = program.collect_records(changed, results=tmp_path / "results", runs=tmp_path / "runs").values()
        accuracies[name] = record.rows
    assert accuracies["first"] == accuracies["again"] != accuracies["from scratch"]
    assert program.find_records(study, results=tmp_path / "results", runs=tmp_path / "runs") == {}


@pytest.mark.slow
def test_a_run_is_verified_or_made_again_by_name(tiny, whole, tmp_path, capsys):
    results = tmp_path / "results"
    results.mkdir()
    for path in (whole / "results").iterdir():
        (results / path.name).write_text(path.read_text())
    one = {"arm": ("plain",), "seed": (1,)}
    assert program.run(tiny, at(tmp_path, verify=True, **one)) == 0
    assert "plain, seed 1: all 2 rows are equal to the record" in capsys.readouterr().out

    written = rows(tmp_path)
    wrong = [line.split(",") for line in written.splitlines()]
    wrong[4][wrong[0].index("val_top1")] = "99"
    (results / "tiny.csv").write_text("\n".join(map(",".join, wrong)) + "\n")
    with pytest.raises(UserError, match="plain, seed 1 differs from its record first at step 6: val_top1 was 99.0, is"):
        program.run(tiny, at(tmp_path, verify=True, **one))
    assert program.run(tiny, at(tmp_path, rerun=True, **one)) == 0
    assert rows(tmp_path) == written
    assert [path.name for path in (tmp_path / "runs" / "tiny").iterdir()] == ["plain-1"]


@pytest.mark.slow
def test_a_study_is_tuned_first_and_then_made_with_what_was_found(tiny, tmp_path, capsys):
    study = replace(tiny, seeds=(0,), tuning={"optim.lr": (1e-3, 4e-3)}, tuning_seeds=(100,))
    with pytest.raises(UserError, match="4 of the 4 tuning runs of tiny have no record.*study tiny-tuning"):
        program.run(study, at(tmp_path))
    assert program.run(study.tuning_study(), at(tmp_path)) == 0
    tried = {record.key: record for record in read_runs("tiny-tuning", tmp_path / "results")}
    assert all(record.recipe["data"]["holdout"] == 0.2 for record in tried.values())
    assert program.run(study, at(tmp_path)) == 0
    for record in read_runs("tiny", tmp_path / "results"):
        finals = {value: tried[f"{record.arm}@optim.lr={value}", 100].final for value in (1e-3, 4e-3)}
        assert record.recipe["optim"]["lr"] == max(finals, key=finals.get) and record.recipe["data"]["holdout"] == 0


@pytest.mark.parametrize(
    "command, said",
    [
        (["demoo"], "no study is called 'demoo'. Did you mean demo"),
        (["--arm", "x"], "the name of the study comes first"),
        (["lesson_00", "--arm", "vit_min"], "study lesson_00 has no arm 'vit_min'. Did you mean vit_mini"),
        (["lesson_00", "--seed", "9"], "study lesson_00 has no seed 9; its seeds: 0, 1, 2, 3, 4"),
        (["lesson_00", "--shard", "9/8"], "shard is '9/8'; expected I/N, such as 2/8"),
        (["lesson_00", "--parallel", "0"], "parallel is 0; expected an integer from 1"),
        (["lesson_00", "--shard", "1/2", "--rerun"], "Choose runs by --arm and --seed"),
        (["lesson_00", "--report", "--out", "/nowhere", "--runs", "/nowhere"], "no runs of lesson_00 are recorded in /nowhere"),
    ],
)
def test_mistakes_are_one_clear_line(command, said):
    with pytest.raises(UserError) as caught:
        program.main(command)
    assert said in str(caught.value)


@pytest.mark.slow
def test_the_studies_are_listed_with_what_is_recorded(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert program.main([]) == 0
    assert re.search(r"lesson_00 +2 arms × 5 seeds, 10 recorded\. Which way", capsys.readouterr().out)


@pytest.mark.slow
def test_lists_help_and_records_need_no_torch():
    code = "import contextlib, sys\nfrom spvit_experiments import read_records, study_command\n"
    code += "assert study_command.main(['--list']) == 0 and len(read_records('lesson_00')) == 120\n"
    code += "with contextlib.suppress(SystemExit): study_command.main(['lesson_00', '--help'])\n"
    code += "assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "10 recorded. Which way" in done.stdout and "--rerun" in done.stdout, done.stderr


def test_the_recorded_runs_are_told_and_drawn(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert program.main(["lesson_00", "--report", "--figure", str(tmp_path / "study.png")]) == 0
    assert "| spvit_mini | 99.8 91.3 99.2 96.0 98.0 | 96.9 ± 3.4 | 5 of 5 |" in capsys.readouterr().out
    assert (tmp_path / "study.png").stat().st_size > 20_000
    with pytest.raises(UserError, match="cannot be written"):
        program.main(["lesson_00", "--report", "--figure", str(tmp_path / "none" / "study.png")])


def test_lesson_00_quotes_its_records():
    cells = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4).cells
    text = " ".join(" ".join(cell.source for cell in cells).split())
    said = re.search(r"priors end between ([\d.]+) % and ([\d.]+) % .*?ones between ([\d.]+) % and ([\d.]+) %", text)
    finals = {"spvit_mini": [], "vit_mini": []}
    for record in read_runs("lesson_00", ROOT / "data" / "results"):
        finals[record.arm].append(record.final)
    spvit, vit = finals["spvit_mini"], finals["vit_mini"]
    assert [float(x) for x in said.groups()] == [min(spvit), max(spvit), min(vit), max(vit)]
    assert min(spvit) > 6 * 12.5 > 2 * 12.5 > max(vit)
