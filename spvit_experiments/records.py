"""Records of a study's runs: two files in data/results/, ordered by arm and then by seed.

    NAME.csv      a row per evaluation: arm, seed, and the columns of metrics.csv without times. A run on the same machine
                  with the same number of threads reproduces its rows bit for bit.
    NAME.jsonl    a line per run: its recipe, commit, device, versions, parameters, time

A run writes its record only into its own run folder, runs/studies/NAME/ARM-SEED/record.json, by one rename;
`collect_records` merges the run folders into the two files. So processes on several hosts that share the folder can work
on one study without waiting for each other, and none can damage the records of another.

A record is valid while its recipe is the study's, and while what it learned from (images, initial weights, token labels, own
code) is what the study would learn from today, wherever that is. Other records are ignored, and their runs are made again.
Records without fingerprints, and files that aren't here, are compared by the recipe alone.
"""

import csv
import itertools
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from spvit_mini import __version__
from spvit_mini.errors import UserError
from spvit_mini.files import atomic_write
from spvit_mini.recipes.recipe import Recipe

from .study import Study

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "data" / "results"
INTEGERS = ("seed", "step", "images", "skipped_steps")


@dataclass
class Record:
    """The record of a finished run.

    Attributes:
        arm, seed: the run within the study.
        recipe: the recipe as JSON, without the user's data folder and device; `imports` names the user's own parts, and
            `sources` has the fingerprints of what the run learned from.
        commit: commit of the code; dirty: whether files differed from it (None: unknown).
        device, threads: device, and number of CPU threads.
        versions: of spvit_mini, torch and Python.
        parameters: number of parameters of the model; None if the run diverged.
        ms_per_step: median over the intervals between evaluations, without the evaluations.
        seconds: total time.
        diverged: whether the run was stopped because its gradient stayed non-finite.
        rows: a dictionary per evaluation, without the columns that have no value.
    """

    arm: str
    seed: int
    recipe: dict[str, Any]
    commit: str
    dirty: bool | None
    device: str
    threads: int
    versions: dict[str, str]
    parameters: int | None
    ms_per_step: float | None
    seconds: float
    diverged: bool
    rows: list[dict[str, float]]

    @property
    def key(self) -> tuple[str, int]:
        """The run within the study, (arm, seed)."""
        return self.arm, self.seed

    @property
    def final(self) -> float:
        """Validation accuracy after the last step, in percent; 0 if it diverged, so that failures count."""
        return 0.0 if self.diverged else self.rows[-1]["val_top1"]

    @property
    def curve(self) -> list[tuple[float, float]]:
        """Validation accuracy in percent over steps, as (step, value)."""
        return [(row["step"], row["val_top1"]) for row in self.rows]


def read_records(name: str, folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Read the rows of a study: dictionaries with arm, seed, step, val_top1 and the other columns of metrics.csv.

    Missing values are None. Raises UserError if the study has no records.

        for row in read_records("lesson_00"):
            print(row["arm"], row["seed"], row["step"], row["val_top1"])
    """
    path = folder / f"{name}.csv"
    if not path.is_file():
        raise UserError(f"the file of records {path} is missing. Make it with python -m spvit_experiments study {name}.")
    with path.open(newline="", encoding="utf-8-sig") as file:
        return [{column: _number(column, text) for column, text in row.items()} for row in csv.DictReader(file)]


def _number(column: str, text: str) -> Any:
    if column == "arm":
        return text
    return None if text == "" else int(text) if column in INTEGERS else float(text)


@dataclass(frozen=True)
class OutOptions:
    """Make the records."""

    out: Path | None = None
    """Folder to write to. None: runs/COMMAND, so that the records of this project stay as they are; --out data/results replaces
    them."""


def parse_out(command: str, about: str, argv: list[str] | None) -> Path:
    """Parse the command line of a program that makes records, `--out FOLDER`; returns the folder, to which it can write."""
    from spvit_mini.cli.arguments import parse

    argv, prog = sys.argv[1:] if argv is None else argv, f"python -m spvit_experiments {command}"
    folder = parse(argv, default=OutOptions(), prog=prog, description=about).out or Path("runs") / command
    check_folder(folder)
    return folder


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows, dictionaries with the same columns, to a CSV file by one rename, floats with six digits; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: six_digits(v) if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return path


def read_runs(name: str, folder: Path) -> list[Record]:
    """Read all records of a study, with any recipe; an empty list if there are none."""
    path = folder / f"{name}.jsonl"
    if not path.is_file():
        return []
    rows = {}
    for row in read_records(name, folder):
        values = {column: value for column, value in row.items() if value is not None and column not in ("arm", "seed")}
        rows.setdefault((row["arm"], row["seed"]), []).append(values)
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    records = [_parse(line, source=f"{path}, line {number}") for number, line in enumerate(lines, start=1)]
    for record in records:
        record.rows = rows.get(record.key, [])
    return [record for record in records if record.rows or record.diverged]


def _parse(text: str, *, source: str) -> Record:
    try:
        return Record(**{"rows": []} | json.loads(text))
    except (json.JSONDecodeError, TypeError) as error:
        raise UserError(f"{source} is not a record of a study ({error}). Restore it from git, or remove it.") from None


def write_runs(name: str, folder: Path, records: Iterable[Record]) -> None:
    """Write both files, each by one rename, without the columns for which no run has a value."""
    from spvit_mini.training.metrics import COLUMNS  # needs torch, which reading doesn't

    records = list(records)
    columns = [column for column in COLUMNS if any(column in row for record in records for row in record.rows)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be created ({error.strerror}). Name another with --out.") from None
    with atomic_write(folder / f"{name}.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["arm", "seed", *columns])
        for record in records:
            writer.writerows([record.arm, record.seed, *(row.get(c, "") for c in columns)] for row in record.rows)
    with atomic_write(folder / f"{name}.jsonl") as temporary:
        lines = [json.dumps({k: v for k, v in asdict(record).items() if k != "rows"}) for record in records]
        temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def check_folder(folder: Path) -> None:
    """Raise UserError, before any work is done, if a folder of records can't be created or written to."""
    parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        reason = "is not writable" if parent.is_dir() else "is a file"
        raise UserError(f"the folder {folder} cannot be written to, since {parent} {reason}. Name another with --out.")


def write_record(run: Path, record: Record) -> None:
    """Write the record of a finished run into its run folder."""
    with atomic_write(run / "record.json") as temporary:
        temporary.write_text(json.dumps(asdict(record)) + "\n", encoding="utf-8")


def read_record(run: Path) -> Record | None:
    """Read the record of a run from its run folder; None if the run is not finished."""
    path = run / "record.json"
    return _parse(path.read_text(encoding="utf-8-sig"), source=str(path)) if path.is_file() else None


def make_record(
    study: Study, arm: str, seed: int, rows: list[dict[str, Any]], *, sources: dict[str, str], **others: Any
) -> Record:
    """Make the record of a run from its rows of metrics and its `Recipe.sources`.

    `others` are the fields device, parameters and diverged.
    """
    import torch

    from spvit_mini.training.metrics import COLUMNS, TIME_COLUMNS

    columns = [column for column in COLUMNS if column not in TIME_COLUMNS]
    recipe = replace(study.recipe(arm, seed), sources=sources)
    paces = sorted(row["images_per_second"] for row in rows)
    dirty, commit = _find_commit()
    return Record(
        arm=arm,
        seed=seed,
        recipe=json.loads(recipe.to_json()),
        commit=commit,
        dirty=dirty,
        threads=torch.get_num_threads(),
        versions={"spvit_mini": __version__, "torch": torch.__version__, "python": platform.python_version()},
        ms_per_step=six_digits(1000 * recipe.batch_size / paces[len(paces) // 2]) if paces else None,
        seconds=six_digits(rows[-1]["seconds"]) if rows else 0.0,
        rows=[
            {c: int(row[c]) if c in INTEGERS else six_digits(row[c]) for c in columns if is_number(row.get(c))}
            for row in rows
        ],
        **others,
    )


def _find_commit() -> tuple[bool | None, str]:
    """Find whether tracked files differ from the commit, and the commit; (None, "unknown") outside a git checkout."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, encoding="utf-8")
        except OSError:  # there is no git
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
    return None if changed is None else bool(changed), git("rev-parse", "--short", "HEAD") or "unknown"


def is_number(value: float | None) -> bool:
    """Test that a value was measured: neither None nor NaN."""
    return value is not None and not math.isnan(value)


def six_digits(value: float) -> float:
    """Round a number to six significant digits."""
    return float(f"{value:.6g}")


def find_records(study: Study, *, results: Path, runs: Path, root: Path | None = None) -> dict[tuple[str, int], Record]:
    """Find the valid records of a study in order, in its results and in its run folders, which take precedence.

    `root` is the folder of the datasets; None: that of the recipes.
    """
    order = [(arm, seed) for arm in study.arms for seed in study.seeds]
    records = {record.key: record for record in read_runs(study.name, results)}
    cache: dict[tuple, dict[str, str]] = {}  # files are read once, and again at the next call
    for key in order:
        record = read_record(run_folder(study, *key, runs=runs))
        if record is not None and find_mismatch(study, record, root, cache) is None:
            records[key] = record
    return {key: records[key] for key in order if key in records and find_mismatch(study, records[key], root, cache) is None}


def collect_records(study: Study, *, results: Path, runs: Path, root: Path | None = None) -> dict[tuple[str, int], Record]:
    """Merge the records of the run folders into the results; returns all valid records."""
    records = find_records(study, results=results, runs=runs, root=root)
    if records:
        write_runs(study.name, results, records.values())
    return records


def find_mismatch(
    study: Study, record: Record, root: Path | None = None, cache: dict[tuple, dict[str, str]] | None = None
) -> str | None:
    """Find why a record is not valid for the study as it is now; None if it is valid.

    `root` is the folder of the datasets; `cache` has the fingerprints that were made before.
    """
    if record.arm not in study.arms or record.seed not in study.seeds:
        return f"the study has no arm {record.arm} with seed {record.seed}"
    try:
        recorded, recipe = Recipe.from_json(json.dumps(record.recipe)), study.recipe(*record.key)
    except UserError as error:
        return str(error)
    if recorded.sources:
        recipe = add_sources(recipe if root is None else recipe.override({"data.root": root}), {} if cache is None else cache)
        before, now = recorded.flatten(), recipe.flatten()
        for name in ("init_from", "token_labels.folder"):
            if name in recorded.sources and name not in recipe.sources and before[name] != now[name]:
                return f"it was made with {name} = {before[name]} ({recorded.sources[name]}), and {now[name]} can't be read here"
    difference = recorded.find_difference(recipe)
    return difference and "it was made with {} = {}, not {}".format(*difference)


def add_sources(recipe: Recipe, cache: dict[tuple, dict[str, str]]) -> Recipe:
    """Add to a recipe the fingerprints of what it would learn from."""
    from spvit_mini.recipes.identity import find_sources  # needs torch, which older records don't

    key = recipe.data, recipe.init_from, recipe.token_labels.folder, recipe.imports
    if key not in cache:
        cache[key] = find_sources(recipe)
    return replace(recipe, sources=cache[key])


def run_folder(study: Study, arm: str, seed: int, *, runs: Path) -> Path:
    """Give the run folder of a run."""
    return runs / study.name / f"{arm}-{seed}"


def find_first_difference(before: Record, now: Record) -> str | None:
    """Find where two records of a run first differ, and a possible reason; None if all rows are equal."""
    for old, new in itertools.zip_longest(before.rows, now.rows, fillvalue={}):
        for column in old or new:  # an older record may lack what is measured today
            if old.get(column) != new.get(column):
                step = (old or new)["step"]
                line = f"differs from its record first at step {step}: {column} was {old.get(column)}, is {new.get(column)}"
                machines = [", ".join([record.device, *record.versions.values()]) for record in (before, now)]
                return line if machines[0] == machines[1] else "{}; it was made with {}, and now with {}".format(line, *machines)
    return None
