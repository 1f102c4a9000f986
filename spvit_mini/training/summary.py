"""A run in one page of Markdown, for a reader who was not there: what was trained, on what, with what end.

It is made from a run folder alone: recipe.json, metrics.csv and history.json. The last one has an entry for each part of
the run, that is for each time it was begun or resumed: the facts of the machine and of the data that no other file holds.
"""

import dataclasses
import json
import math
import platform
import shlex
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import nn

from .. import __version__
from ..data import Data
from ..errors import UserError
from ..recipes import get_recipe, list_recipes
from ..recipes.recipe import Recipe
from .checkpoint import read_recipe, replacing
from .devices import name_of
from .metrics import COLUMNS, read_rows

MOST_ROWS = 12
ALWAYS = ("step", "epoch", "images", "val_top1", "images_per_second", "data_seconds", "seconds")  # never empty in a row


@dataclasses.dataclass
class Part:
    """A part of a run, from a start of the program to its end, and what it worked on and with."""

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
    ended_at: int | None = None  # step; None while it lasts, and for ever if it was killed
    bad_images: int = 0  # files that were left out, as far as the main process knows


def read_history(run: Path) -> list[Part]:
    """Read a run's parts, the first one first; none if it has no history.json. Raises UserError if that is damaged."""
    path = run / "history.json"
    if not path.is_file():
        return []
    try:
        return [Part(**part) for part in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError):
        raise UserError(f"{path} is no history of a run; move it away: it only serves summary.md") from None


def write_history(run: Path, parts: list[Part]) -> None:
    """Write a run's parts as history.json."""
    with replacing(run / "history.json") as temporary:
        temporary.write_text(json.dumps([dataclasses.asdict(part) for part in parts], indent=2) + "\n", encoding="utf-8")


def begin_part(
    run: Path,
    model: nn.Module,
    data: Data,
    *,
    step: int,
    steps: int,
    multiply_adds: int,
    device: torch.device,
    precision: torch.dtype,
    processes: int,
) -> None:
    """Note in history.json that a run goes on from a step, of `steps` in all, and what it works on and with."""
    part = Part(
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
        device=name_of(device),
        processes=processes,
        precision=str(precision).removeprefix("torch."),
        torch=torch.__version__,
        python=platform.python_version(),
        spvit_mini=__version__,
    )
    write_history(run, [*read_history(run), part])


def end_part(run: Path, *, step: int, bad_images: int) -> None:
    """Note that the last part ends at a step, and write summary.md if there is a row of metrics.

    A part in which nothing was done, as when a finished run is resumed, is forgotten.
    """
    *before, part = read_history(run)
    ended = [dataclasses.replace(part, ended_at=step, bad_images=bad_images)]
    write_history(run, before + ended if step > part.begun_at else before or ended)
    if read_metrics(run):
        with replacing(run / "summary.md") as temporary:
            temporary.write_text(summary(run), encoding="utf-8")


def read_metrics(run: Path) -> list[dict[str, float]]:
    """Read a run's rows. Raises UserError if there is no metrics.csv, or something else under its name."""
    path = run / "metrics.csv"
    if not path.is_file():
        raise UserError(f"{run} holds no metrics.csv; name the folder of a run, as --run-dir did")
    try:
        rows = read_rows(path)
        if any(not row.keys() >= set(COLUMNS) or math.isnan(sum(row[name] for name in ALWAYS)) for row in rows):
            raise ValueError
    except (OSError, ValueError, TypeError, AttributeError):  # csv gives None for cells that are missing
        raise UserError(
            f"{path} is no metrics.csv that this version of spvit_mini has written; restore it, or leave the run out"
        ) from None
    return rows


def summary(run: Path) -> str:
    """Sum up a run folder in Markdown. Raises UserError if it holds no run with a row of metrics."""
    rows, recipe, parts = read_metrics(run), read_recipe(run), read_history(run)
    if recipe is None or not rows:
        what = "recipe.json" if recipe is None else "row of metrics.csv yet"
        raise UserError(f"{run} holds no {what}; a run has one after its first evaluation")
    best, last = max(rows, key=accuracy), rows[-1]
    facts = {
        "recipe": f"`{recipe.name}`{differences(recipe)}",
        **(about(parts) if parts else {}),
        "best": f"**{accuracy(best):.2f} %** at step {best['step']:,.0f}, {which(best)} weights (`best.safetensors`)",
        "last": f"step {last['step']:,.0f}{f' of {parts[-1].steps:,}' if parts else ''}: {scores(last)}",
        "speed": speed(rows),
        "time": f"{clock(last['seconds'])} (hours:minutes:seconds), evaluations included",
        "left out": left_out(rows, parts),
        "seed": str(recipe.seed),
    }
    lines = [f"# {run.absolute().name}: {accuracy(best):.2f} % right", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {fact} |" for name, fact in facts.items() if fact]
    if recipe.name in list_recipes():
        lines += ["", "Made by:", "", f"    {command(recipe, run, processes=parts[-1].processes if parts else 1)}"]
    return "\n".join([*lines, "", *table(rows), ""])


def about(parts: list[Part]) -> dict[str, str]:
    """Say what the history knows: model, data, machine, how often the run was resumed."""
    part = parts[-1]
    size = "×".join(map(str, part.image_size))
    resumed = [f"{later.begun_at:,}" for later in parts[1:]]
    listed = ", ".join(resumed if len(resumed) <= MOST_ROWS else ["…", *resumed[-MOST_ROWS:]])
    devices = " / ".join(dict.fromkeys(f"{p.processes} × {p.device}" if p.processes > 1 else p.device for p in parts))
    times = "once" if len(resumed) == 1 else f"{len(resumed)} times"
    return {
        "model": f"{part.model}, {part.parameters:,} parameters, {part.multiply_adds / 1e6:,.1f} M multiply-adds an image",
        "data": f"{part.data}, {part.train_images:,} training and {part.val_images:,} validation images of {size} px, "
        f"{part.classes} classes; guessing is right in {100 / part.classes:.3g} %",
        "device": f"{devices}, {part.precision}",
        "software": f"spvit_mini {part.spvit_mini}, torch {part.torch}, Python {part.python}",
        "resumed": f"{times}, at step {listed}" if resumed else "never",
    }


def accuracy(row: dict[str, float]) -> float:
    """Take the better accuracy of a row: of the weights, or of their average."""
    averaged = row["ema_top1"]
    return row["val_top1"] if math.isnan(averaged) else max(row["val_top1"], averaged)


def which(row: dict[str, float]) -> str:
    """Say whose accuracy that is."""
    return "last" if accuracy(row) == row["val_top1"] else "ema"


def scores(row: dict[str, float]) -> str:
    """Say how well the weights of a row do, and their average."""
    text = f"{row['val_top1']:.2f} % right, loss {row['val_loss']:.4f}"
    if not math.isnan(row["ema_top1"]):
        text += f"; averaged {row['ema_top1']:.2f} %, loss {row['ema_loss']:.4f}"
    return text


def speed(rows: list[dict[str, float]]) -> str:
    """Say the training speed of the whole run, its MFU, and how much of the time it waited for images."""
    before = [{"images": 0.0}, *rows]
    images = [row["images"] - earlier["images"] for earlier, row in zip(before, rows, strict=False)]
    seconds = [count / row["images_per_second"] for count, row in zip(images, rows, strict=True)]
    total = sum(seconds)
    text = f"{sum(images) / total:,.0f} images/s"
    used = sum(row["mfu"] * time for row, time in zip(rows, seconds, strict=True)) / total
    if not math.isnan(used):
        text += f", MFU {used:.1f} %"
    return f"{text}, {sum(row['data_seconds'] for row in rows) / total:.1%} of the training time waiting for images"


def clock(seconds: float) -> str:
    """Write a time as hours:minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def left_out(rows: list[dict[str, float]], parts: list[Part]) -> str:
    """Say what was skipped: steps whose gradient was not finite, and image files that could not be read."""
    steps, images = rows[-1]["skipped_steps"], max((part.bad_images for part in parts), default=0)
    said = [f"{count:,.0f} {what}" for count, what in ((steps, "steps (gradient not finite)"), (images, "bad images")) if count]
    return " and ".join(said) or "nothing"


def differences(recipe: Recipe) -> str:
    """List the options in which a recipe differs from the one of its name."""
    if recipe.name not in list_recipes():
        return ", which is none of the package's: recipe.json holds it"
    listed = [f"{name} {told(mine)} (not {told(named)})" for name, (mine, named) in changes(recipe).items()]
    return f" with {', '.join(listed)}" if listed else ""


def changes(recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    """Find the options in which a recipe differs from the one of its name: (value, the named recipe's)."""
    mine, named = recipe.flat(), get_recipe(recipe.name).flat()
    return {name: (mine[name], named[name]) for name in mine if mine[name] != named[name]}


def told(value: Any) -> str:
    """Write an option's value as one reads it."""
    return " ".join(words(value)) or "nothing"


def words(value: Any) -> list[str]:
    """Write an option's value as the command line takes it, without its name."""
    if isinstance(value, dict):
        return [word for pair in value.items() for word in map(str, pair)]
    return [str(part) for part in value] if isinstance(value, tuple | list) else [str(value)]


def command(recipe: Recipe, run: Path, *, processes: int = 1) -> str:
    """Write the command that makes a run like this one, of a recipe that has a name."""
    # Behind the two dashes nothing is torchrun's own; without them it takes --run-dir for the beginning of its --run-path.
    start = "python -m" if processes == 1 else f"torchrun --nproc-per-node {processes} -m --"
    line = [*start.split(), "spvit_mini.cli.train", recipe.name]
    for name, (value, _) in changes(recipe).items():
        section, dot, leaf = name.replace("_", "-").rpartition(".")
        if is_flag(name):
            line.append(f"--{section}{dot}{'' if value else 'no-'}{leaf}")
        else:
            line += [f"--{section}{dot}{leaf}", *words(value)]
    return shlex.join([*line, "--run-dir", str(run)])


def is_flag(name: str) -> bool:
    """Say whether an option is yes or no, so that the command line has it as --option and --no-option."""
    kind = Recipe
    for part in name.split("."):
        kind = get_type_hints(kind)[part]
    return kind is bool


def table(rows: list[dict[str, float]]) -> list[str]:
    """Lay out at most MOST_ROWS rows of the metrics: the first, the last, the best, and others evenly between."""
    last = len(rows) - 1
    chosen = {round(i * last / max(1, MOST_ROWS - 2)) for i in range(MOST_ROWS - 1)} | {rows.index(max(rows, key=accuracy))}
    averaged = not math.isnan(rows[-1]["ema_top1"])
    names = ["step", "epoch", "train loss", "val loss", "val top-1", *(["averaged top-1"] if averaged else []), "time"]
    lines = [f"| {' | '.join(names)} |", "|" + "---:|" * len(names)]
    for row in (rows[i] for i in sorted(chosen)):
        cells = [f"{row['step']:,.0f}", f"{row['epoch']:.2f}", f"{row['train_loss']:.4f}", f"{row['val_loss']:.4f}"]
        cells += [f"{row['val_top1']:.2f} %", *([f"{row['ema_top1']:.2f} %"] if averaged else []), clock(row["seconds"])]
        lines.append(f"| {' | '.join(cells)} |")
    return lines
