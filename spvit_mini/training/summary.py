"""The summary of a run on one page of Markdown: what was trained, on what, for how long, with what result.

It is written from a run folder alone: recipe.json, metrics.csv and history.json. history.json has an entry for each session of
the run, that is for each start or resume: the facts of the machine and the data that no other file has.
"""

import dataclasses
import json
import math
import platform
import shlex
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..data import Data
from ..errors import UserError
from ..fields import check_fields, parse_json
from ..files import write_text
from ..recipes import get_recipe, list_recipes
from ..recipes.recipe import Recipe
from ..vit import VisionModel
from .checkpoint import read_recipe
from .devices import device_name
from .metrics import COLUMNS, best_top1, best_weights, read_rows

MAX_ROWS = 12
REQUIRED = ("step", "epoch", "images", "val_top1", "images_per_second", "data_seconds", "seconds")  # columns without empty cells


@dataclasses.dataclass
class Session:
    """A session of a run, from a start of the program to its end: its model, data and machine."""

    begun_at: int  # step
    steps: int  # of the whole recipe
    model: str
    parameters: int
    multiply_adds: int  # of one image's forward pass
    image_size: tuple[int, int]
    data: str
    classes: int
    train_images: int
    val_images: int
    device: str
    processes: int
    precision: str
    torch: str
    python: str
    spvit_mini: str
    ended_at: int | None = None  # step; None while the session lasts, or if it was killed
    bad_images: int = 0  # corrupt files that were skipped, as far as the main process knows

    def __post_init__(self) -> None:
        check_fields(self)


def read_history(run_dir: Path) -> list[Session]:
    """Read the sessions of a run in their order; none without history.json. Raises UserError for a damaged file."""
    path = run_dir / "history.json"
    if not path.is_file():
        return []
    try:
        return parse_json(list[Session], path.read_text(encoding="utf-8-sig"), str(path))
    except (ValueError, UserError):
        raise UserError(f"{path} is not the history of a run. Move it away; only summary.md needs it.") from None


def write_history(run_dir: Path, sessions: list[Session]) -> None:
    """Write the sessions of a run to history.json."""
    content = [dataclasses.asdict(session) for session in sessions]
    write_text(run_dir / "history.json", json.dumps(content, indent=2) + "\n")


def begin_session(
    run_dir: Path,
    model: VisionModel,
    data: Data,
    *,
    step: int,
    steps: int,
    multiply_adds: int,
    device: torch.device,
    precision: torch.dtype,
    processes: int,
) -> None:
    """Add a session to history.json that begins at a step, of `steps` in all."""
    assert data.train is not None
    session = Session(
        begun_at=step,
        steps=steps,
        model=model.name,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        multiply_adds=multiply_adds,
        image_size=model.config.image_size,
        data=data.name,
        classes=len(data.classes),
        train_images=len(data.train),
        val_images=len(data.val),
        device=device_name(device),
        processes=processes,
        precision=str(precision).removeprefix("torch."),
        torch=torch.__version__,
        python=platform.python_version(),
        spvit_mini=__version__,
    )
    write_history(run_dir, [*(read_history(run_dir) if step else []), session])  # what failed before a state is forgotten


def end_session(run_dir: Path, *, step: int, bad_images: int) -> None:
    """Write the last step of the session, and summary.md if metrics.csv has a row.

    A session without a step, as when a finished run is resumed, is removed.
    """
    *before, session = read_history(run_dir)
    ended = [dataclasses.replace(session, ended_at=step, bad_images=bad_images)]
    write_history(run_dir, before + ended if step > session.begun_at else before or ended)
    if read_metrics(run_dir):
        write_text(run_dir / "summary.md", write_summary(run_dir))


def read_metrics(run_dir: Path) -> list[dict[str, float]]:
    """Read the rows of a run. Raises UserError for a missing or foreign metrics.csv."""
    path = run_dir / "metrics.csv"
    if not path.is_file():
        raise UserError(f"{run_dir} has no metrics.csv; expected the folder of a run, as in --run-dir")
    try:
        rows = read_rows(path)
        if any(not row.keys() >= set(COLUMNS) or math.isnan(sum(row[name] for name in REQUIRED)) for row in rows):
            raise ValueError
    except (OSError, ValueError, TypeError, AttributeError):  # csv gives None for missing cells
        raise UserError(f"{path} is not a metrics.csv of this version of spvit_mini. Restore it, or leave the run out.") from None
    return rows


def write_summary(run_dir: Path) -> str:
    """Summarise a run folder in Markdown. Raises UserError if it has no run with a row of metrics."""
    rows, recipe, sessions = read_metrics(run_dir), read_recipe(run_dir), read_history(run_dir)
    if recipe is None or not rows:
        what = "recipe.json" if recipe is None else "row of metrics.csv yet"
        raise UserError(f"{run_dir} has no {what}; a run has it after its first evaluation")
    best, last, diverged = max(rows, key=best_top1), rows[-1], [row for row in rows if not math.isfinite(row["val_loss"])]
    has_best = best_top1(best) > -math.inf
    facts = {
        "recipe": f"`{recipe.name}`{describe_changes(recipe)}",
        **(describe_sessions(sessions) if sessions else {}),
        "best": f"**{best_top1(best):.2f} %** at step {best['step']:,.0f}, {best_weights(best)} weights (`best.safetensors`)"
        if has_best
        else "none: the validation loss was never finite",
        "last": f"step {last['step']:,.0f}{f' of {sessions[-1].steps:,}' if sessions else ''}: {describe_scores(last)}",
        "diverged": diverged and f"the validation loss is not finite in {len(diverged)} of {len(rows)} rows, first at step "
        f"{diverged[0]['step']:,.0f}",
        "speed": describe_speed(rows),
        "time": f"{format_time(last['seconds'])} (hours:minutes:seconds), evaluations included",
        "skipped": describe_skipped(rows, sessions),
        "learned from": "; ".join(f"{name}: {text}" for name, text in recipe.sources.items()),
        "seed": str(recipe.seed),
    }
    title = f"{best_top1(best):.2f} % top-1" if has_best else "diverged"
    lines = [f"# {run_dir.absolute().name}: {title}", "", "| | |", "|---|---|"]
    cells = {name: fact.replace("|", r"\|") for name, fact in facts.items() if fact}
    lines += [f"| {name} | {cell} |" for name, cell in cells.items()]
    if recipe.name in list_recipes():
        command = write_command(recipe, run_dir, processes=sessions[-1].processes if sessions else 1)
        lines += ["", "Command:", "", f"    {command}"]
    return "\n".join([*lines, "", *format_table(rows), ""])


def describe_sessions(sessions: list[Session]) -> dict[str, str]:
    """Describe model, data and machine of the last session, and how often the run was resumed."""
    session = sessions[-1]
    size = "×".join(map(str, session.image_size))
    steps = [f"{later.begun_at:,}" for later in sessions[1:]]
    listed = ", ".join(steps if len(steps) <= MAX_ROWS else ["…", *steps[-MAX_ROWS:]])
    devices = " / ".join(dict.fromkeys(f"{s.processes} × {s.device}" if s.processes > 1 else s.device for s in sessions))
    return {
        "model": f"{session.model}, {session.parameters:,} parameters, "
        f"{session.multiply_adds / 1e6:,.1f} M multiply-adds per image",
        "data": f"{session.data}, {session.train_images:,} training and {session.val_images:,} validation images of {size} px, "
        f"{session.classes} classes; chance is {100 / session.classes:.3g} %",
        "device": f"{devices}, {session.precision}",
        "software": f"spvit_mini {session.spvit_mini}, torch {session.torch}, Python {session.python}",
        "resumed": f"{'once' if len(steps) == 1 else f'{len(steps)} times'}, at step {listed}" if steps else "never",
    }


def describe_scores(row: dict[str, float]) -> str:
    """Describe accuracy and loss of a row, also of its EMA weights."""
    text = f"{row['val_top1']:.2f} % top-1, loss {row['val_loss']:.4f}"
    if not math.isnan(row["ema_top1"]):
        text += f"; EMA {row['ema_top1']:.2f} %, loss {row['ema_loss']:.4f}"
    return text


def describe_speed(rows: list[dict[str, float]]) -> str:
    """Describe the training speed of the whole run, its MFU, and the share of the time spent waiting for images."""
    before = [{"images": 0.0}, *rows]
    images = [row["images"] - earlier["images"] for earlier, row in zip(before, rows, strict=False)]
    # Early runs have a speed of 0 where all steps were skipped.
    timed = [(n, row) for n, row in zip(images, rows, strict=True) if row["images_per_second"]]
    images, rows = [n for n, _ in timed], [row for _, row in timed]
    seconds = [n / row["images_per_second"] for n, row in timed]
    if not (total := sum(seconds)):
        return ""
    text = f"{sum(images) / total:,.0f} images/s"
    mfu = sum(row["mfu"] * time for row, time in zip(rows, seconds, strict=True)) / total
    if not math.isnan(mfu):
        text += f", MFU {mfu:.1f} %"
    return f"{text}, {sum(row['data_seconds'] for row in rows) / total:.1%} of the training time waiting for images"


def format_time(seconds: float) -> str:
    """Format a time as hours:minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def describe_skipped(rows: list[dict[str, float]], sessions: list[Session]) -> str:
    """Describe what was skipped: steps whose gradient was not finite, and corrupt image files."""
    steps, images = rows[-1]["skipped_steps"], max((session.bad_images for session in sessions), default=0)
    counts = {"steps (gradient not finite)": steps, "corrupt images": images}
    return " and ".join(f"{count:,.0f} {what}" for what, count in counts.items() if count) or "nothing"


def describe_changes(recipe: Recipe) -> str:
    """List the options in which a recipe differs from the recipe of its name."""
    if recipe.name not in list_recipes():
        return ", which is not registered here; recipe.json has all its options"
    changes = [f"{name} {format_value(own)} (not {format_value(named)})" for name, (own, named) in find_changes(recipe).items()]
    return f" with {', '.join(changes)}" if changes else ""


def find_changes(recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    """Find the options in which a recipe differs from the recipe of its name: (own value, value of the named recipe)."""
    own, named = recipe.flatten(), get_recipe(recipe.name).flatten()
    return {name: (own[name], named[name]) for name in own if own[name] != named[name] and name != "imports"}


def format_value(value: Any) -> str:
    """Format an option's value for readers."""
    return " ".join(to_arguments(value)) or "nothing"


def to_arguments(value: Any) -> list[str]:
    """Convert an option's value to command-line arguments, without its name."""
    if isinstance(value, dict):
        return [word for pair in value.items() for word in map(str, pair)]
    return [str(item) for item in value] if isinstance(value, tuple | list) else [str(value)]


def write_command(recipe: Recipe, run_dir: Path, *, processes: int = 1) -> str:
    """Write the command that repeats a run of a registered recipe."""
    launcher = ["python"] if processes == 1 else ["torchrun", "--nproc-per-node", str(processes)]
    words = [*launcher, "-m", "spvit_mini", "train", recipe.name]
    words += ["--import", *recipe.imports] if recipe.imports else []
    for name, (value, _) in find_changes(recipe).items():
        section, dot, leaf = name.replace("_", "-").rpartition(".")
        if isinstance(Recipe().flatten()[name], bool):  # --option and --no-option
            words.append(f"--{section}{dot}{'' if value else 'no-'}{leaf}")
        else:
            words += [f"--{section}{dot}{leaf}", *to_arguments(value)]
    return shlex.join([*words, "--run-dir", str(run_dir)])


def format_table(rows: list[dict[str, float]]) -> list[str]:
    """Format at most MAX_ROWS rows of the metrics as a table: the first, the last, the best, and others evenly between."""
    last = len(rows) - 1
    indices = {round(i * last / max(1, MAX_ROWS - 2)) for i in range(MAX_ROWS - 1)} | {rows.index(max(rows, key=best_top1))}
    has_ema = not math.isnan(rows[-1]["ema_top1"])
    names = ["step", "epoch", "train loss", "val loss", "val top-1", *(["EMA top-1"] if has_ema else []), "time"]
    lines = [f"| {' | '.join(names)} |", "|" + "---:|" * len(names)]
    for row in (rows[i] for i in sorted(indices)):
        cells = [f"{row['step']:,.0f}", f"{row['epoch']:.2f}", f"{row['train_loss']:.4f}", f"{row['val_loss']:.4f}"]
        cells += [f"{row['val_top1']:.2f} %", *([f"{row['ema_top1']:.2f} %"] if has_ema else []), format_time(row["seconds"])]
        lines.append(f"| {' | '.join(cells)} |")
    return lines
