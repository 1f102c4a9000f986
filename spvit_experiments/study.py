"""Make the runs of a named study, keep their records, and say what came of them.

    python -m spvit_experiments study                                        the studies, and how much of each is recorded
    python -m spvit_experiments study lesson_00                              make the runs that are not recorded yet; then a table
    python -m spvit_experiments study lesson_00 --dry-run                    say which those are, and how long they may take
    python -m spvit_experiments study lesson_00 --max-minutes 9              stop in time; the same command goes on
    python -m spvit_experiments study lesson_00 --parallel 8                 eight at a time on one accelerator
    python -m spvit_experiments study lesson_00 --report --figure study.png  the table and a figure of what is recorded
    python -m spvit_experiments study lesson_00 --arm vit_mini --seed 3 --rerun     make a run and its record anew
    python -m spvit_experiments study lesson_00 --arm vit_mini --seed 3 --verify    make it anew and compare the record

On a cluster with a shared folder, each task of an array makes its part, and one command collects them:

    sbatch --array=1-10 --gpus=1 --wrap 'python -m spvit_experiments study lesson_00 --part $SLURM_ARRAY_TASK_ID/10'
    python -m spvit_experiments study lesson_00 --collect

A study that tunes is made in two: first the study of its candidates, on images held out of the training part, then, with
the best of them for each arm, itself:

    python -m spvit_experiments study NAME-tuning && python -m spvit_experiments study NAME

Records go to data/results/NAME.csv and NAME.jsonl: see studies/records.py. A run that was stopped goes on where it was.
"""

import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from spvit_mini.cli.arguments import parse
from spvit_mini.cli.program import run_program
from spvit_mini.errors import UserError

from . import get_study, list_studies, read_records
from .design import TUNING, Study
from .records import Record, collect, first_difference, read_record, read_runs, recorded, run_folder, write_runs
from .runner import Key, Place, run_all

PROGRAM = "python -m spvit_experiments study"
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]

__all__ = ["main", "read_records"]


@dataclass(frozen=True)
class Arguments:
    """What the command line says: which of the study's runs, and how to make them."""

    arm: tuple[str, ...] = ()
    """Only these arms."""
    seed: tuple[int, ...] = ()
    """Only these seeds."""
    part: str | None = None
    """I/N: only every Nth run, from the Ith on, as a task of an array. Its records wait in the run folders for --collect."""
    parallel: int = 1
    """How many runs are made at a time, side by side on the one device."""
    max_minutes: float | None = None
    """Save and stop after so long. The same command goes on."""
    again: Flag = False
    """Make also those runs anew that are recorded or begun; what there is of them is removed first."""
    verify: Flag = False
    """Make recorded runs anew, elsewhere, and compare each with its record."""
    dry_run: Flag = False
    """Only say which runs would be made."""
    collect: Flag = False
    """Only collect what the run folders hold."""
    report: Flag = False
    """Only say what is recorded, as a table in Markdown."""
    figure: Path | None = None
    """Draw the records, every seed, into this file."""
    root: Path | None = None
    """The folder that holds the data sets, if it is not data."""
    device: str | None = None
    """Where to compute, if not where each recipe says."""
    workers: int | None = None
    """Processes that prepare the images of each run, if not as each recipe says."""
    threads: int | None = None
    """Threads of each run on a CPU; if not given, the cores are divided among those side by side. Digits depend on it."""
    out: Path = Path("data/results")
    """The folder for the records."""
    runs: Path = Path("runs/studies")
    """The folder for the run folders, STUDY/ARM-SEED."""

    def __post_init__(self):
        if self.parallel < 1 or (self.threads is not None and self.threads < 1):
            raise UserError("parallel and threads are numbers of at least 1")
        if self.again and self.part:
            raise UserError("--rerun removes records, which the parts share; choose runs by --arm and --seed instead")


def main(argv: list[str] | None = None) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] == "--list":
        print(overview(Arguments()))
        return 0
    if argv[0] in ("--help", "-h"):
        print(__doc__.strip())
        return 0
    name, *options = argv
    if name.startswith("-"):
        raise UserError(f"the study comes first: {PROGRAM} NAME {' '.join(argv)[:60]}; {PROGRAM} --list names them all")
    study = get_study(name)
    arguments = parse(options, default=Arguments(), prog=f"{PROGRAM} {name}", description=study.question)
    return run(study, arguments)


def run(study: Study, arguments: Arguments) -> int:
    """Do what the arguments ask of a study; returns the exit status."""
    study = settled(study, arguments)
    places = {"results": arguments.out, "runs": arguments.runs}
    chosen = choose(study, arguments)
    if arguments.verify:
        return verify(study, arguments, chosen)
    if arguments.dry_run:
        print(plan(study, arguments, chosen))
        return 0
    if arguments.report or arguments.collect:
        records = collect(study, **places) if arguments.collect else recorded(study, **places)
        return tell(study, records, arguments)

    if arguments.again:
        for key in chosen:
            shutil.rmtree(run_folder(study, *key, runs=arguments.runs), ignore_errors=True)
        if held := read_runs(study.name, arguments.out):
            write_runs(study.name, arguments.out, [record for record in held if record.key not in chosen])
    records = recorded(study, **places)
    todo = [key for key in chosen if key not in records]
    started = time.monotonic()

    def finished(key: Key) -> None:
        nonlocal records
        # A part leaves the files that all parts share alone: two that write at once would lose a record.
        records = recorded(study, **places) if arguments.part else collect(study, **places)
        minutes = (time.monotonic() - started) / 60
        print(
            f"{key[0]}, seed {key[1]}: {records[key].final:.1f} %, recorded; {len(records)} of {len(study.runs())} runs "
            f"are, {minutes:.1f} minutes from the start",
            flush=True,
        )

    failures, stopped_by = run_all(
        study,
        todo,
        folder=lambda arm, seed: run_folder(study, arm, seed, runs=arguments.runs),
        place=place_of(arguments),
        parallel=arguments.parallel,
        deadline=None if arguments.max_minutes is None else started + 60 * arguments.max_minutes,
        on_finished=finished,
    )
    left = [key for key in todo if key not in records and key not in failures]
    if left:
        print(f"stopped: {len(left)} of {len(chosen)} runs are not finished; the same command goes on with them")
    if arguments.part:
        print(f"after the last part: {PROGRAM} {study.name} --collect")
    else:
        tell(study, collect(study, **places), arguments)
    if failures:
        told = "; ".join(f"{arm} seed {seed}: {reason}" for (arm, seed), reason in failures.items())
        raise UserError(f"{len(failures)} of {len(chosen)} runs failed, the others are as they should be. {told}")
    return 128 + stopped_by if stopped_by else 0


def settled(study: Study, arguments: Arguments) -> Study:
    """Give a study that tunes the options that its tuning has found best."""
    if not study.tuning:
        return study
    candidates = study.tuning_study()
    records = recorded(candidates, results=arguments.out, runs=arguments.runs)
    missing = len(candidates.runs()) - len(records)
    if missing:
        raise UserError(
            f"the tuning of {study.name} lacks {missing} of its {len(candidates.runs())} runs; make them first: "
            f"{PROGRAM} {study.name}{TUNING}"
        )
    return study.tuned({key: record.final for key, record in records.items()})


def choose(study: Study, arguments: Arguments) -> list[Key]:
    """List the runs that the arguments name, in the order in which they are made."""
    for arm in arguments.arm:
        study.check_arm(arm)
    for seed in arguments.seed:
        if seed not in study.seeds:
            raise UserError(f"study {study.name} has no seed {seed}; its seeds: {', '.join(map(str, study.seeds))}")
    runs = [
        (arm, seed)
        for arm, seed in study.runs()
        if (not arguments.arm or arm in arguments.arm) and (not arguments.seed or seed in arguments.seed)
    ]
    if arguments.part is None:
        return runs
    first, _, parts = arguments.part.partition("/")
    if not (first.isdecimal() and parts.isdecimal() and 1 <= int(first) <= int(parts)):
        raise UserError(f"part is {arguments.part!r}; it must be like 2/8, the second of eight parts")
    # Of all runs, recorded or not: the tasks of an array must agree on who makes which, whenever each begins.
    return runs[int(first) - 1 :: int(parts)]


def place_of(arguments: Arguments, *, threads: int | None = None) -> Place:
    """Say where and how runs are computed."""
    threads = threads or arguments.threads or max(1, torch.get_num_threads() // arguments.parallel)
    return Place(threads, arguments.root, arguments.device, arguments.workers)


def plan(study: Study, arguments: Arguments, chosen: list[Key]) -> str:
    """Say of every chosen run whether it is recorded, begun or neither, and how long it may take."""
    records = recorded(study, results=arguments.out, runs=arguments.runs)
    lines, minutes, unknown = [], 0.0, 0
    for arm, seed in chosen:
        if (arm, seed) in records and not arguments.again:
            lines.append(f"{arm}, seed {seed}: recorded, {records[arm, seed].final:.1f} %")
            continue
        begun = not arguments.again and (run_folder(study, arm, seed, runs=arguments.runs) / "last.pt").exists()
        lines.append(f"{arm}, seed {seed}: {'goes on' if begun else 'to be made'}")
        if known := [record.seconds / 60 for record in records.values() if record.arm == arm]:
            expected = sum(known) / len(known)
            minutes += expected
            lines[-1] += f", about {expected:.1f} minutes"
        else:
            unknown += 1
    lines.append(f"expected: {minutes:.1f} minutes, one run after the other, by what the recorded ones took")
    if unknown:
        lines[-1] += f"; for {unknown} runs nothing is recorded to go by"
    return "\n".join(lines)


def tell(study: Study, records: dict[Key, Record], arguments: Arguments) -> int:
    """Print the table, and draw the figure if one is asked for."""
    from . import report  # brings matplotlib, which the runs can do without

    if not records:
        raise UserError(f"no runs of {study.name} are recorded in {arguments.out}; make them: {PROGRAM} {study.name}")
    print(f"\n{report.table(study, records)}")
    if arguments.figure is not None:
        try:
            report.figure(study, records).savefig(arguments.figure)
        except (OSError, ValueError) as error:  # a folder that is not there, a kind of file that is not known
            raise UserError(f"the figure {arguments.figure} cannot be written ({error}); name another file") from None
        print(f"\nfigure: {arguments.figure}")
    return 0


def verify(study: Study, arguments: Arguments, chosen: list[Key]) -> int:
    """Make recorded runs anew in a folder that is removed afterwards, and compare all rows with the records."""
    records = recorded(study, results=arguments.out, runs=arguments.runs)
    if missing := [key for key in chosen if key not in records]:
        raise UserError("not recorded: {}, seed {}; choose runs by --arm and --seed".format(*missing[0]))
    for key in chosen:
        with tempfile.TemporaryDirectory() as folder:
            place = place_of(arguments, threads=records[key].threads)
            failures, stopped_by = run_all(study, [key], folder=lambda *_: Path(folder) / study.name, place=place)
            if stopped_by:
                return 128 + stopped_by
            if failures:
                raise UserError(failures[key])
            again = read_record(Path(folder) / study.name)
        if difference := first_difference(records[key], again):
            raise UserError(f"{key[0]}, seed {key[1]} {difference}")
        print(f"{key[0]}, seed {key[1]}: all {len(again.rows)} rows are as recorded, to the last digit", flush=True)
    return 0


def overview(arguments: Arguments) -> str:
    """List the studies, and how much of each is recorded."""
    lines = [f"{PROGRAM} NAME    NAME --help lists the options", "", "studies:"]
    for name, study in list_studies().items():
        due = f"{len(study.arms)} arms × {len(study.seeds)} seeds"
        try:
            study = settled(study, arguments)
            known = f"{len(recorded(study, results=arguments.out, runs=arguments.runs))} recorded"
        except UserError:
            known = "tuning to come first"
        lines.append(f"  {name:<28}{due}, {known}. {study.question}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_program(main)
