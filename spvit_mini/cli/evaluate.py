"""Score trained weights on the whole validation part.

    python -m spvit_mini evaluate runs/spvit_mini_compass                      the best weights of a run
    python -m spvit_mini evaluate best.safetensors --data.root /where/it/is    a weights file, wherever it lies
    python -m spvit_mini evaluate runs/deit --weights ema                      the newest weights, averaged or raw
    python -m spvit_mini evaluate runs/deit --data.image-size 384              at another resolution
    python -m spvit_mini evaluate runs/deit --worst-classes 10 --per-class deit.csv    class by class
    torchrun --nproc-per-node 8 -m spvit_mini evaluate runs/deit             on several devices, to the same numbers

Model, preprocessing and data come from the file's own metadata; options change the data.
"""

import csv
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.distributed
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..data import Data, DataOptions, load_data
from ..errors import UserError
from ..recipes.recipe import Recipe
from ..training.checkpoint import replacing
from ..training.distributed import Share, joined
from ..training.loop import choose_device
from ..training.metrics import Counts, evaluate
from ..training.trained_model import Which, open_trained
from ..vit import ViT
from ..weights import find_weights, load_weights, read_metadata
from .arguments import parse
from .program import run_program

PROGRAM = "python -m spvit_mini evaluate"
COLUMNS = ("class", "images", "right", "top1", "confused_with", "confused")


@dataclass(frozen=True)
class Arguments:
    """Which weights and which data, and how to go through them."""

    data: DataOptions
    weights: Which = "best"
    """Of a run folder: the best weights, the last ones, or the last EMA weights."""
    worst: int = 0
    """Print a table of so many classes, those that are recognised worst."""
    per_class: Path | None = None
    """Write a table of all classes to this .csv file, the worst first; a file that is there is replaced."""
    batch: int = 100
    """Images that one process scores at once."""
    device: str = "auto"
    """Where to compute: auto (CUDA if there, else MPS, else CPU), cpu, cuda, cuda:1, mps."""


def main(argv: list[str] | None = None) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("--help", "-h"):
        print(__doc__.strip())
        return 0
    if argv[0].startswith("-"):
        raise UserError(f"the run folder or weights file comes first: {PROGRAM} RUN_OR_WEIGHTS {' '.join(argv)[:60]}")
    path = Path(argv[0])
    metadata = load_weights(find_weights(path))[1]
    trained = Recipe.from_json(metadata["recipe"], source=str(path)) if "recipe" in metadata else Recipe()
    default = Arguments(data=trained.data, device=trained.device)
    arguments = parse(argv[1:], default=default, prog=f"{PROGRAM} {path}", description=f"Score {path}.")
    if "recipe" not in metadata and "--data.name" not in " ".join(argv):
        raise UserError(f"{path} does not say which data it was trained on; name them: --data.name NAME")
    if arguments.batch_size < 1 or arguments.worst < 0:
        wrong = f"--batch-size {arguments.batch_size}" if arguments.batch_size < 1 else f"--worst-classes {arguments.worst}"
        raise UserError(f"{wrong} is too few: at least 1 image is scored at once, and at least 0 classes are listed")
    table = arguments.per_class
    if table is not None and (table.suffix != ".csv" or not table.parent.is_dir()):
        raise UserError(f"--per-class is {table}; it must be the name of a .csv file in a folder that is there")

    model, metadata = open_trained(path, weights=arguments.weights)
    data = load_data(arguments.data, seed=trained.seed, train=False, preprocessing=model.preprocessing)
    check_classes(model, data, read_metadata(metadata, "classes", source=path), source=path)
    replace(model.config, image_size=data.preprocessing.image_size)  # raises UserError if it does not take that size
    device, precision = choose_device(replace(trained, device=arguments.device))
    model.to(device)
    confusion = Confusion(len(data.classes), device) if table or arguments.worst else None
    with joined(device) as team:
        if team.main:
            print(introduce(model, metadata, data, source=path), flush=True)
        loader = DataLoader(Share(data.val, team), batch_size=arguments.batch_size, num_workers=arguments.data.workers)
        bar = tqdm(loader, unit="batch", leave=False, disable=not (team.main and sys.stderr.isatty()))
        scores = evaluate(model, bar, device=device, precision=precision, watch=confusion and confusion.add)
        scores = team.total(scores)
        if confusion is not None and team.world > 1:
            torch.distributed.all_reduce(confusion.matrix)
        if team.main:
            print(report(scores, len(data.classes)))
            if confusion is not None:
                rows = class_rows(confusion.matrix.cpu(), data.classes)
                print_worst(rows[: arguments.worst])
                if table is not None:
                    write_table(table, rows)
                    print(f"all classes: {table}")
            if data.skipped:
                print(f"{len(data.skipped)} bad image files were left out, {data.skipped[0]} first")
    return 0


def check_classes(model: ViT, data: Data, classes: list[str] | None, *, source: Path) -> None:
    """Raise UserError unless the model tells the classes of these data apart. Weights without names are taken to."""
    count = model.config.num_classes
    if (classes or data.classes) != data.classes or count != len(data.classes):
        named = f" ({', '.join(classes[:3])}, …)" if classes else ""
        raise UserError(
            f"{source} tells {count} classes apart{named}, but {data.name} has {len(data.classes)} "
            f"({', '.join(data.classes[:3])}, …); name the data it was trained for with --data.name"
        )


def introduce(model: ViT, metadata: dict[str, str], data: Data, *, source: Path) -> str:
    """Say in two lines whose weights are scored, and on what."""

    def pixels(size: tuple[int, int]) -> str:
        return "×".join(map(str, size))

    size, trained = data.preprocessing.image_size, model.preprocessing.image_size
    there = "" if size == trained else f" (made for {pixels(trained)})"
    crop = "" if data.preprocessing.crop == 1 else f", the central {data.preprocessing.crop:g} of the frame"
    return (
        f"{source}: {model.name}, {metadata.get('weights', 'last')} weights of step {metadata.get('step', '?')}\n"
        f"{data.name}: {len(data.val):,} validation images of {pixels(size)} px{there}{crop}, {len(data.classes)} classes"
    )


def report(scores: Counts, classes: int) -> str:
    """Say the scores, with the counts behind them."""
    lines = [f"top-1  {scores.top1:.2f} %  ({int(scores.right):,} of {int(scores.images):,})"]
    if classes > 5:
        lines.append(f"top-5  {scores.top5:.2f} %  ({int(scores.right5):,} of {int(scores.images):,})")
    return "\n".join([*lines, f"loss   {scores.loss:.4f}"])


class Confusion:
    """Counts which class is taken for which: `matrix` (classes, classes), true class by best answer."""

    def __init__(self, classes: int, device: torch.device) -> None:
        self.matrix = torch.zeros(classes, classes, dtype=torch.int64, device=device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: logits (B, classes), labels (B,). A label of −1 is no image's."""
        best = logits.topk(min(5, logits.shape[-1])).indices[:, 0]  # as `Counts` does, also where two are equal
        images = labels >= 0
        ones = torch.ones_like(labels[images])
        self.matrix.index_put_((labels[images], best[images]), ones, accumulate=True)


def class_rows(matrix: Tensor, classes: list[str]) -> list[dict[str, str | int | float | None]]:
    """Say of each class how well it is recognised, and which it is taken for most: the worst first, then as they come.

    A class without images has neither, and stands last.
    """
    images, right = matrix.sum(1), matrix.diagonal()
    confused, other = matrix.clone().fill_diagonal_(0).max(1)
    rows = [
        {
            "class": name,
            "images": int(images[i]),
            "right": int(right[i]),
            "top1": 100 * int(right[i]) / int(images[i]) if images[i] else None,
            "confused_with": classes[other[i]] if confused[i] else None,
            "confused": int(confused[i]),
        }
        for i, name in enumerate(classes)
    ]
    return sorted(rows, key=lambda row: 101 if row["top1"] is None else row["top1"])


def print_worst(rows: list[dict]) -> None:
    """Print rows of `class_rows` as a table."""
    width = max((len(row["class"]) for row in rows), default=0)
    for row in rows:
        taken = f"  {row['confused']:,} taken for {row['confused_with']}" if row["confused"] else ""
        right = f"{row['top1']:6.2f} %  ({row['right']:,} of {row['images']:,})" if row["images"] else "no images"
        print(f"  {row['class']:<{width}}  {right}{taken}")


def write_table(path: Path, rows: list[dict]) -> None:
    """Write rows of `class_rows` to a CSV file."""
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows({n: f"{v:.6g}" if isinstance(v, float) else v for n, v in row.items()} for row in rows)


if __name__ == "__main__":
    run_program(main)
