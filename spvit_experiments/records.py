"""What is kept of a study's runs, in two files of data/results/, in the order of the arms and then of the seeds.

    NAME.csv      a row for each evaluation of each run: arm, seed, and the columns of metrics.csv but those about time.
                  It is what a run made again on the same machine gives again, digit by digit.
    NAME.jsonl    a line for each run: its recipe as run, commit, device, versions, parameters, time.

A run writes neither. It puts its whole record into its own run folder, runs/studies/NAME/ARM-SEED/record.json, by one
rename, and `collect` merges what lies there into the two files. So any number of processes, on any number of hosts that
share the folder, can work on one study without waiting for each other, and none can spoil what another has written.

A record counts as long as its recipe is what the study asks for. One that was made by another is left out, and its run
is due again.
"""

import csv
import itertools
import json
import math
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from spvit_mini import __version__
from spvit_mini.errors import UserError
from spvit_mini.recipes.recipe import Recipe
from spvit_mini.training.checkpoint import replacing
from spvit_mini.training.metrics import COLUMNS, TIME_COLUMNS

from .design import Study

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "data" / "results"
KEPT = [column for column in COLUMNS if column not in TIME_COLUMNS]
INTEGERS = ("seed", "step", "images", "skipped_steps")


@dataclass
class Record:
    """A finished run.

    Attributes:
        arm, seed: which run of the study it is.
        recipe: as run, as JSON has it; but for where the data lay and on what device it was.
        commit: of the code that finished it; dirty says whether files differed from that commit, if it is known.
        device, threads: what it was computed on, and by how many threads of a CPU.
        versions: of spvit_mini, torch and Python.
        parameters: of the model; None where it diverged.
        ms_per_step: the median over the stretches between evaluations, these left out.
        seconds: in all.
        diverged: whether it had to be given up, since its gradient stayed not finite.
        rows: a dictionary per evaluation; a column that has no value is not in it.
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
        """Its place in the study."""
        return self.arm, self.seed

    @property
    def final(self) -> float:
        """Validation accuracy after the last step, in percent; 0 if it diverged, so that no failure is left out."""
        return 0.0 if self.diverged else self.rows[-1]["val_top1"]

    @property
    def curve(self) -> list[tuple[float, float]]:
        """Validation accuracy in percent at each evaluation, as (step, value)."""
        return [(row["step"], row["val_top1"]) for row in self.rows]


def read_records(name: str, folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Read the rows of a study: dictionaries with arm, seed, step, val_top1 and the other columns of metrics.csv.

    Numbers are numbers; a value that is not there is None. Raises UserError if the study has no records.

        for row in read_records("lesson_00"):
            print(row["arm"], row["seed"], row["step"], row["val_top1"])
    """
    path = folder / f"{name}.csv"
    if not path.is_file():
        raise UserError(f"there are no records {path}; python -m spvit_experiments study {name} makes them")
    with path.open(newline="", encoding="utf-8") as file:
        return [{column: _number(column, text) for column, text in row.items()} for row in csv.DictReader(file)]


def _number(column: str, text: str) -> Any:
    if column == "arm":
        return text
    return None if text == "" else int(text) if column in INTEGERS else float(text)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows, dictionaries of the same columns, to a CSV file by one rename; returns its path."""
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return path


def read_runs(name: str, folder: Path) -> list[Record]:
    """Read all records of a study, whatever recipes they were made by; none if there are none yet."""
    path = folder / f"{name}.jsonl"
    if not path.is_file():
        return []
    rows = {}
    for row in read_records(name, folder):
        values = {column: value for column, value in row.items() if value is not None and column not in ("arm", "seed")}
        rows.setdefault((row["arm"], row["seed"]), []).append(values)
    lines = path.read_text(encoding="utf-8").splitlines()
    records = [_read(line, source=f"{path}, line {number}") for number, line in enumerate(lines, start=1)]
    for record in records:
        record.rows = rows.get(record.key, [])
    return [record for record in records if record.rows or record.diverged]


def _read(text: str, *, source: str) -> Record:
    try:
        return Record(**{"rows": []} | json.loads(text))
    except (json.JSONDecodeError, TypeError) as error:
        raise UserError(f"{source} is no record of a study ({error}); restore it from git, or remove it") from None


def write_runs(name: str, folder: Path, records: Iterable[Record]) -> None:
    """Write both files anew, each by one rename. A column that no run has a value for is left out."""
    records = list(records)
    columns = [column for column in KEPT if any(column in row for record in records for row in record.rows)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be made ({error.strerror}); name another with --out") from None
    with (
        replacing(folder / f"{name}.csv") as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["arm", "seed", *columns])
        for record in records:
            table.writerows([record.arm, record.seed, *(row.get(c, "") for c in columns)] for row in record.rows)
    with replacing(folder / f"{name}.jsonl") as temporary:
        lines = [json.dumps({k: v for k, v in asdict(record).items() if k != "rows"}) for record in records]
        temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def write_record(run: Path, record: Record) -> None:
    """Put the record of a finished run into its folder."""
    with replacing(run / "record.json") as temporary:
        temporary.write_text(json.dumps(asdict(record)) + "\n", encoding="utf-8")


def read_record(run: Path) -> Record | None:
    """Read the record of a finished run from its folder; None if it is not finished."""
    path = run / "record.json"
    return _read(path.read_text(encoding="utf-8"), source=str(path)) if path.is_file() else None


def make_record(study: Study, arm: str, seed: int, rows: list[dict[str, Any]], **others: Any) -> Record:
    """Make the record of a run that has just ended from its rows of metrics; `others` are the fields that they don't give."""
    recipe = study.recipe(arm, seed)
    paces = sorted(row["images_per_second"] for row in rows)
    dirty, commit = _commit()
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
            {c: int(row[c]) if c in INTEGERS else six_digits(row[c]) for c in KEPT if is_number(row.get(c))}
            for row in rows
        ],
        **others,
    )


def _commit() -> tuple[bool | None, str]:
    """Ask git whether the package's files differ from their commit, and which that is."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        except OSError:  # there is no git
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
    return None if changed is None else bool(changed), git("rev-parse", "--short", "HEAD") or "unknown"


def is_number(value: float | None) -> bool:
    """Tell whether something was measured: neither None nor NaN."""
    return value is not None and not math.isnan(value)


def six_digits(value: float) -> float:
    """Round a number to what is enough to plot and to compare."""
    return float(f"{value:.6g}")


def recorded(study: Study, *, results: Path, runs: Path) -> dict[tuple[str, int], Record]:
    """Find all records that count, in the study's results and in its run folders, which go first; in order."""
    order = [(arm, seed) for arm in study.arms for seed in study.seeds]
    found = {record.key: record for record in read_runs(study.name, results)}
    for key in order:
        record = read_record(run_folder(study, *key, runs=runs))
        if record is not None and outdated(study, record) is None:
            found[key] = record
    return {key: found[key] for key in order if key in found and outdated(study, found[key]) is None}


def collect(study: Study, *, results: Path, runs: Path) -> dict[tuple[str, int], Record]:
    """Merge the run folders' records into the study's results, and return them all."""
    records = recorded(study, results=results, runs=runs)
    if records:
        write_runs(study.name, results, records.values())
    return records


def outdated(study: Study, record: Record) -> str | None:
    """Say why a record is none of the study as it is now; None if it is."""
    if record.arm not in study.arms or record.seed not in study.seeds:
        return f"the study has no arm {record.arm} with seed {record.seed}"
    try:
        difference = Recipe.from_json(json.dumps(record.recipe)).difference(study.recipe(*record.key))
    except UserError as error:
        return str(error)
    return difference and "it was made with {} = {}, not {}".format(*difference)


def run_folder(study: Study, arm: str, seed: int, *, runs: Path) -> Path:
    """Name the folder of a run."""
    return runs / study.name / f"{arm}-{seed}"


def first_difference(before: Record, now: Record) -> str | None:
    """Say where two records of one run first differ, and what may be the reason; None if all rows are equal."""
    for old, new in itertools.zip_longest(before.rows, now.rows, fillvalue={}):
        for column in old or new:  # an older record may lack what is measured today
            if old.get(column) != new.get(column):
                step = (old or new)["step"]
                told = f"differs from its record first at step {step}: {column} was {old.get(column)}, is {new.get(column)}"
                made = [", ".join([record.device, *record.versions.values()]) for record in (before, now)]
                return told if made[0] == made[1] else f"{told}; it was made with {made[0]}, and now with {made[1]}"
    return None
