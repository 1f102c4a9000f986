"""Make the runs of a study, keep their records, and report them.

    python -m spvit_experiments study                                        list the studies and how much of each is recorded
    python -m spvit_experiments study lesson_00                              make the runs that have no record; then a table
    python -m spvit_experiments study lesson_00 --dry-run                    list these runs and how long they may take
    python -m spvit_experiments study lesson_00 --max-minutes 9              stop in time; the same command resumes
    python -m spvit_experiments study lesson_00 --parallel 8                 eight runs at a time on one accelerator
    python -m spvit_experiments study lesson_00 --report --figure study.png  a table and a figure of the records
    python -m spvit_experiments study lesson_00 --arm vit_mini --seed 3 --rerun     make a run and its record again
    python -m spvit_experiments study lesson_00 --arm vit_mini --seed 3 --verify    make a run again and compare its record
    python -m spvit_experiments study mine --import my_study.py              a study of your own: see docs/extending.md

On a cluster with a shared folder, each task of an array makes its shard, and one command collects the records:

    sbatch --array=1-10 --gpus=1 --wrap 'python -m spvit_experiments study lesson_00 --shard $SLURM_ARRAY_TASK_ID/10'
    python -m spvit_experiments study lesson_00 --collect

A study with tuning is made in two steps: first the study of the candidates, on images held out of the training split, then
the study itself, with the best candidate of each arm:

    python -m spvit_experiments study NAME-tuning && python -m spvit_experiments study NAME

Records go to data/results/NAME.csv and NAME.jsonl, described in spvit_experiments/records.py.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from spvit_mini.cli.arguments import parse
from spvit_mini.errors import UserError
from spvit_mini.extensions import read_imports
from spvit_mini.fields import Count, Device, NonNegative, Seed, Workers

from .catalog import get_study, list_studies
from .records import (
    RESULTS,
    Record,
    check_folder,
    collect_records,
    find_first_difference,
    find_mismatch,
    find_records,
    read_record,
    read_runs,
    run_folder,
    write_runs,
)
from .study import Study

if TYPE_CHECKING:
    from .runner import Key, Resources  # needs torch, which lists and --help don't

PROGRAM = "python -m spvit_experiments study"
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class Arguments:
    """The options of the command: which runs of the study to make, and how. `--import FILE` registers your own parts."""

    arm: tuple[str, ...] = ()
    """Only these arms. Default: all."""
    seed: tuple[Seed, ...] = ()
    """Only these seeds. Default: all."""
    shard: str | None = None
    """I/N: only every Nth run, from the Ith on, as a task of an array. The records stay in the run folders for --collect."""
    parallel: Count = 1
    """Number of runs at a time on the one device."""
    max_minutes: NonNegative | None = None
    """Save and stop after so many minutes; the same command resumes. None: no limit."""
    rerun: Flag = False
    """Make also runs that are recorded or begun; their records and run folders are removed first."""
    verify: Flag = False
    """Make recorded runs again in a temporary folder, and compare each with its record."""
    dry_run: Flag = False
    """Only list the runs that would be made."""
    collect: Flag = False
    """Only collect the records from the run folders."""
    report: Flag = False
    """Only print the table of the records, in Markdown."""
    figure: Path | None = None
    """Draw the records, with every seed, into this file."""
    root: Path | None = None
    """Folder of the datasets. None: data."""
    device: Device | None = None
    """Device. None: as in each recipe."""
    workers: Workers | None = None
    """Data-loading processes of each run. None: as in each recipe."""
    threads: Count | None = None
    """CPU threads of each run; results depend on them in the last digits. None: the cores divided by --parallel."""
    out: Path = Path("data/results")
    """Folder of the records."""
    runs: Path = Path("runs/studies")
    """Folder of the run folders, STUDY/ARM-SEED."""

    def __post_init__(self):
        if self.rerun and self.shard:
            raise UserError("--rerun removes records that all shards share. Choose runs by --arm and --seed instead of --shard.")


def main(argv: list[str] | None = None) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in ("--help", "-h"):
        print(__doc__.strip())
        return 0
    imports, argv = read_imports(argv)
    if not argv or argv[0] == "--list":
        print(list_recorded(Arguments()))
        return 0
    name, *options = argv
    if name.startswith("-"):
        raise UserError(f"the name of the study comes first: {PROGRAM} NAME {' '.join(argv)[:60]}. {PROGRAM} --list lists them.")
    study = replace(get_study(name), imports=imports)
    arguments = parse(options, default=Arguments(), prog=f"{PROGRAM} {name}", description=study.question)
    return run(study, arguments)


def run(study: Study, arguments: Arguments) -> int:
    """Make, verify, collect or report the runs of a study; returns the exit status."""
    if arguments.root is not None and not arguments.root.is_dir():
        raise UserError(f"--root is {arguments.root}, which is not a folder; expected the folder of the datasets")
    study = resolve_tuning(study, out=arguments.out, runs=arguments.runs, root=arguments.root)
    folders = {"results": arguments.out, "runs": arguments.runs, "root": arguments.root}
    chosen = select_runs(study, arguments)
    if arguments.verify:
        return verify(study, arguments, chosen)
    if arguments.dry_run:
        print(describe_plan(study, arguments, chosen))
        return 0
    if arguments.report or arguments.collect:
        return print_report(study, (collect_records if arguments.collect else find_records)(study, **folders), arguments)

    check_folder(arguments.out)
    if arguments.rerun:
        for key in chosen:
            shutil.rmtree(run_folder(study, *key, runs=arguments.runs), ignore_errors=True)
        if old := read_runs(study.name, arguments.out):
            write_runs(study.name, arguments.out, [record for record in old if record.key not in chosen])
    records = find_records(study, **folders)
    due = [key for key in chosen if key not in records]
    for line in describe_invalid(study, due, arguments):
        print(line, flush=True)
    start = time.monotonic()

    def on_finished(key: Key) -> None:
        nonlocal records
        # Shards leave the shared files alone: two processes that write at once would lose a record.
        records = find_records(study, **folders) if arguments.shard else collect_records(study, **folders)
        minutes = (time.monotonic() - start) / 60
        print(
            f"{key[0]}, seed {key[1]}: {records[key].final:.1f} %, recorded; {len(records)} of {len(study.runs())} runs "
            f"have a record, {minutes:.1f} minutes after the start",
            flush=True,
        )

    from .runner import run_all

    failures, signal_number = run_all(
        study,
        due,
        folder=lambda arm, seed: run_folder(study, arm, seed, runs=arguments.runs),
        resources=make_resources(arguments),
        parallel=arguments.parallel,
        deadline=None if arguments.max_minutes is None else start + 60 * arguments.max_minutes,
        on_finished=on_finished,
    )
    if arguments.shard:
        print(f"after the last shard: {study.commands()[-1]} --collect")
    elif found := collect_records(study, **folders):
        print_report(study, found, arguments)
    left = [key for key in due if key not in records and key not in failures]
    if left:
        command = write_command(study, arguments)
        print(f"stopped: {len(left)} of {len(chosen)} runs are not finished; the same command resumes them: {command}")
    if failures:
        reasons: dict[str, list[Key]] = {}
        for key, reason in failures.items():
            reasons.setdefault(reason, []).append(key)
        lines = [f"{describe_runs(keys)}: {reason}" for reason, keys in reasons.items()]
        raise UserError(f"{len(failures)} of {len(chosen)} runs failed; the other runs are not affected. {'; '.join(lines)}")
    return 128 + signal_number if signal_number else 0


def describe_runs(keys: list[Key]) -> str:
    """Name the first three of some runs, and count the others."""
    names = [f"{arm} seed {seed}" for arm, seed in keys[:3]]
    return ", ".join(names) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def write_command(study: Study, arguments: Arguments) -> str:
    """Write the command that resumes these runs: the same options, without --rerun, which would remove what is done."""
    words = study.commands()[-1].split()
    arguments = replace(arguments, rerun=False, max_minutes=arguments.max_minutes or None)
    for field in fields(arguments):
        if (value := getattr(arguments, field.name)) != field.default:
            values = list(value) if isinstance(value, tuple) else [] if value is True else [value]
            words += [f"--{field.name.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)


def resolve_tuning(study: Study, *, out: Path = RESULTS, runs: Path = Path("none"), root: Path | None = None) -> Study:
    """Give the arms of a study with tuning their best candidates. Raises UserError while tuning records are missing."""
    if not study.tuning:
        return study
    candidates = study.tuning_study()
    records = find_records(candidates, results=out, runs=runs, root=root)
    missing = len(candidates.runs()) - len(records)
    if missing:
        raise UserError(
            f"{missing} of the {len(candidates.runs())} tuning runs of {study.name} have no record. Make them first with "
            f"{study.commands()[0]}."
        )
    return study.apply_tuning({key: record.final for key, record in records.items()})


def select_runs(study: Study, arguments: Arguments) -> list[Key]:
    """Select the runs that the arguments name, in order."""
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
    if arguments.shard is None:
        return runs
    first, _, shards = arguments.shard.partition("/")
    if not (first.isdecimal() and shards.isdecimal() and 1 <= int(first) <= int(shards)):
        raise UserError(f"shard is {arguments.shard!r}; expected I/N, such as 2/8 for the second of eight shards")
    # Recorded runs count too: tasks that begin at different times must agree on the shards.
    return runs[int(first) - 1 :: int(shards)]


def make_resources(arguments: Arguments, *, threads: int | None = None) -> Resources:
    """Choose the resources of each run."""
    import torch

    from .runner import Resources

    threads = threads or arguments.threads or max(1, torch.get_num_threads() // arguments.parallel)
    return Resources(threads, arguments.root, arguments.device, arguments.workers)


def describe_plan(study: Study, arguments: Arguments, chosen: list[Key]) -> str:
    """Describe for each chosen run whether it is recorded, begun or neither, and its expected time."""
    records = find_records(study, results=arguments.out, runs=arguments.runs, root=arguments.root)
    lines, seconds, unknown = [], 0.0, 0
    for arm, seed in chosen:
        if (arm, seed) in records and not arguments.rerun:
            lines.append(f"{arm}, seed {seed}: recorded, {records[arm, seed].final:.1f} %")
            continue
        is_begun = not arguments.rerun and (run_folder(study, arm, seed, runs=arguments.runs) / "last.pt").exists()
        lines.append(f"{arm}, seed {seed}: {'to be resumed' if is_begun else 'to be made'}")
        if times := [record.seconds for record in records.values() if record.arm == arm and record.seconds]:
            expected = sum(times) / len(times)
            seconds += expected
            lines[-1] += f", about {describe_time(expected)}"
        else:
            unknown += 1
    due = sum("to be" in line for line in lines)
    lines += describe_invalid(study, [key for key in chosen if key not in records], arguments)
    if not due:
        return "\n".join([*lines, "expected: nothing to do, since all runs are recorded"])
    if unknown == due:
        return "\n".join([*lines, "expected: unknown, since no run of these arms is recorded"])
    lines.append(f"expected: {describe_time(seconds)} for one run after the other, from the times of recorded runs")
    if unknown:
        lines[-1] += f"; {unknown} of the {due} runs come on top, since no run of their arms is recorded"
    return "\n".join(lines)


def describe_invalid(study: Study, due: list[Key], arguments: Arguments) -> list[str]:
    """Say which runs have a record that does not count today, and why: a line for each reason."""
    reasons: dict[str, list[Key]] = {}
    cache: dict[tuple, dict[str, str]] = {}
    for record in read_runs(study.name, arguments.out):
        if record.key in due and (reason := find_mismatch(study, record, arguments.root, cache)):
            reasons.setdefault(reason, []).append(record.key)
    does_not = "does not count and will be replaced"
    return [f"the record of {describe_runs(keys)} {does_not}: {reason}" for reason, keys in reasons.items()]


def describe_time(seconds: float) -> str:
    """Format an expected time in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.1g} seconds" if seconds < 1 else f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def print_report(study: Study, records: dict[Key, Record], arguments: Arguments) -> int:
    """Print the table and the command that makes the records, and draw the figure if `--figure` names a file."""
    from . import report  # imports matplotlib, which runs don't need

    command = " && ".join(study.commands())
    if not records:
        raise UserError(f"no runs of {study.name} are recorded in {arguments.out}. Make them with {command}.")
    print(f"\n{report.make_table(study, records)}\n\n    {command}")
    if arguments.figure is not None:
        try:
            report.draw_figure(study, records).savefig(arguments.figure)
        except (OSError, ValueError) as error:  # a missing folder, an unknown format
            raise UserError(f"the figure {arguments.figure} cannot be written ({error}). Name another file.") from None
        print(f"\nfigure: {arguments.figure}")
    return 0


def verify(study: Study, arguments: Arguments, chosen: list[Key]) -> int:
    """Make recorded runs again in a temporary folder, and compare all rows with the records."""
    from .runner import run_all

    records = find_records(study, results=arguments.out, runs=arguments.runs, root=arguments.root)
    if missing := [key for key in chosen if key not in records]:
        raise UserError("{}, seed {} has no record. Choose recorded runs by --arm and --seed.".format(*missing[0]))
    for key in chosen:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / study.name
            resources = make_resources(arguments, threads=records[key].threads)
            failures, signal_number = run_all(study, [key], folder=lambda *_, run=run: run, resources=resources)
            if signal_number:
                return 128 + signal_number
            if failures:
                raise UserError(failures[key])
            record = read_record(run)
        if difference := find_first_difference(records[key], record):
            raise UserError(f"{key[0]}, seed {key[1]} {difference}")
        print(f"{key[0]}, seed {key[1]}: all {len(record.rows)} rows are equal to the record, bit for bit", flush=True)
    return 0


def list_recorded(arguments: Arguments) -> str:
    """List the studies and how much of each is recorded."""
    lines = [f"{PROGRAM} NAME    NAME --help lists the options", "", "studies:"]
    for name, study in list_studies().items():
        size = f"{len(study.arms)} arms × {len(study.seeds)} seeds"
        try:
            study = resolve_tuning(study, out=arguments.out, runs=arguments.runs)
            state = f"{len(find_records(study, results=arguments.out, runs=arguments.runs))} recorded"
        except UserError:
            state = "tuning comes first"
        lines.append(f"  {name:<28}{size}, {state}. {study.question}")
    return "\n".join(lines)
