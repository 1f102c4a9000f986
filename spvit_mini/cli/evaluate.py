"""Measure the accuracy of trained weights on the validation set.

    python -m spvit_mini evaluate runs/spvit_mini_compass                      the best weights of a run
    python -m spvit_mini evaluate best.safetensors --data.root FOLDER          a weights file
    python -m spvit_mini evaluate runs/deit --weights ema                      the last EMA weights
    python -m spvit_mini evaluate runs/deit --data.image-size 384              at another resolution
    python -m spvit_mini evaluate runs/deit --worst-classes 10 --per-class deit.csv
    torchrun --nproc-per-node 8 -m spvit_mini evaluate runs/deit               on several devices, with the same result

Model, preprocessing and dataset are read from the metadata of the weights; options change the dataset.
"""

import math
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..data import Data, DataOptions, load_data
from ..errors import UserError
from ..fields import Count, Device, Natural
from ..files import compose, write_csv
from ..recipes.recipe import Recipe
from ..training.checkpoint import WeightsChoice, load_trained
from ..training.devices import choose_device
from ..training.distributed import ValidationShard, open_process_group
from ..training.metrics import ClassificationMetrics, evaluate
from ..training.signals import open_workers
from ..vit import VisionModel
from ..weights import find_weights, load_metadata, read_metadata
from .arguments import Imports, Program

PROGRAM = Program("python -m spvit_mini evaluate", __doc__, first="RUN_OR_WEIGHTS")
COLUMNS = ("class", "images", "right", "top1", "confused_with", "confused", "precision")
NO_CLASS = "no class (logits not finite)"


@dataclass(frozen=True)
class Arguments:
    """Which weights and which dataset, and how to evaluate."""

    data: DataOptions = field(default_factory=DataOptions)
    weights: WeightsChoice = "best"
    """Of a run folder: the best weights, the last weights, or the last EMA weights."""
    worst_classes: Natural = 0
    """Number of classes to print, those with the lowest accuracy."""
    per_class: Path | None = None
    """CSV file to write with the accuracy of all classes, the lowest first; an existing file is replaced. None: no file."""
    batch_size: Count = 100
    """Images per batch of each process."""
    device: Device = "auto"
    """Device: auto (CUDA if there is one, else MPS, else CPU), cpu, cuda, cuda:1, mps."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the forward pass. bfloat16 is faster on a GPU, but rounds scores: it can confuse similar classes."""
    imports: Imports = ()


def main(argv: list[str]) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    word, options = PROGRAM.split(argv, Arguments())
    path = Path(word)
    metadata = load_metadata(find_weights(path))
    recipe = Recipe.from_json(metadata["recipe"], source=str(path)) if "recipe" in metadata else Recipe()
    arguments = PROGRAM.parse(options, Arguments(data=recipe.data, device=recipe.device), first=word)
    if "recipe" not in metadata and "--data.name" not in " ".join(options):
        raise UserError(f"{path} does not name the dataset that it was trained on; add --data.name NAME")
    table = arguments.per_class
    if table is not None and (table.suffix != ".csv" or not table.parent.is_dir()):
        raise UserError(f"--per-class is {table}; expected the name of a .csv file in an existing folder")

    model, metadata = load_trained(path, weights=arguments.weights)
    data = load_data(arguments.data, seed=recipe.seed, train=False, preprocessing=model.preprocessing)
    check_classes(model, data, read_metadata(metadata, "classes", source=path), source=path)
    replace(model.config, image_size=data.preprocessing.image_size)  # raises UserError for an image size that it does not accept
    device, precision = choose_device(replace(recipe, device=arguments.device, precision=arguments.precision))
    model.to(device)
    count = len(data.classes)
    confusion = torch.zeros(count, count + 1, dtype=torch.int64, device=device) if table or arguments.worst_classes else None
    with open_process_group(device) as group, open_workers() as begin_worker:
        if group.is_main:
            print(f"{describe(model, metadata, data, source=path)}, {arguments.precision}", flush=True)
        loading: dict[str, Any] = {"num_workers": arguments.data.workers, "worker_init_fn": begin_worker}
        loader = DataLoader(ValidationShard(data.val, group), batch_size=arguments.batch_size, **loading)
        bar = tqdm(loader, unit="batch", leave=False, disable=not (group.is_main and sys.stderr.isatty()))
        on_batch = None if confusion is None else partial(update_confusion, confusion)
        metrics = evaluate(model, bar, device=device, precision=precision, on_batch=on_batch)
        metrics = group.sum(metrics)
        if confusion is not None and group.world_size > 1:
            torch.distributed.all_reduce(confusion)
        if group.is_main:
            print(format_metrics(metrics, count))
            if confusion is not None:
                rows = list_classes(confusion.cpu(), data.classes)
                print_worst(rows[: arguments.worst_classes])
                if table is not None:
                    write_table(table, [row | {"precision": arguments.precision} for row in rows])
                    print(f"all classes: {table}")
            if data.skipped_files:
                print(f"{len(data.skipped_files)} corrupt image files were skipped, {data.skipped_files[0]} first")
    return 0


def check_classes(model: VisionModel, data: Data, classes: list[str] | None, *, source: Path) -> None:
    """Raise UserError unless the model has the classes of the dataset: their number, and their names if the file has names."""
    count = model.config.num_classes
    if list(map(compose, classes or data.classes)) != data.classes or count != len(data.classes):
        names = f" ({', '.join(classes[:3])}, …)" if classes else ""
        raise UserError(
            f"{source} has {count} classes{names}, but {data.name} has {len(data.classes)} "
            f"({', '.join(data.classes[:3])}, …); name the dataset of the weights with --data.name"
        )


def describe(model: VisionModel, metadata: dict[str, str], data: Data, *, source: Path) -> str:
    """Describe in two lines the weights and the dataset."""
    size, own_size = ("×".join(map(str, of.preprocessing.image_size)) for of in (data, model))
    note = "" if size == own_size else f" (trained at {own_size})"
    crop = "" if data.preprocessing.crop == 1 else f", the central {data.preprocessing.crop:g} of the frame"
    return (
        f"{source}: {model.name}, {metadata.get('weights', 'last')} weights of step {metadata.get('step', '?')}\n"
        f"{data.name}: {len(data.val):,} validation images of {size} px{note}{crop}, {len(data.classes)} classes"
    )


def format_metrics(metrics: ClassificationMetrics, classes: int) -> str:
    """Format accuracy and loss, with the counts."""
    lines = [f"top-1  {metrics.top1:.2f} %  ({int(metrics.correct):,} of {int(metrics.images):,})"]
    if classes > 5:
        lines.append(f"top-5  {metrics.top5:.2f} %  ({int(metrics.correct5):,} of {int(metrics.images):,})")
    diverged = "" if math.isfinite(metrics.loss) else ": these weights have diverged, and logits that are not finite are wrong"
    return "\n".join([*lines, f"loss   {metrics.loss:.4f}{diverged}"])


def update_confusion(confusion: Tensor, logits: Tensor, labels: Tensor) -> None:
    """Count a batch in a confusion matrix (classes, classes + 1), true class by predicted class, or none. Label −1 is padding."""
    best = logits.topk(min(5, logits.shape[-1])).indices[:, 0]  # as `ClassificationMetrics` does, also for ties
    best = best.where(logits.isfinite().all(-1), logits.shape[-1])
    images = labels >= 0
    confusion.index_put_((labels[images], best[images]), torch.ones_like(labels[images]), accumulate=True)


def list_classes(confusion: Tensor, classes: list[str]) -> list[dict[str, str | int | float | None]]:
    """List each class with its accuracy and the class it is confused with most often, the lowest accuracy first.

    Ties keep the order of the classes. A class without images has neither value and comes last.
    """
    images, right = confusion.sum(1), confusion.diagonal()
    errors, other = confusion.clone().fill_diagonal_(0).max(1)
    rows = [
        {
            "class": name,
            "images": int(images[i]),
            "right": int(right[i]),
            "top1": 100 * int(right[i]) / int(images[i]) if images[i] else None,
            "confused_with": [*classes, NO_CLASS][other[i]] if errors[i] else None,
            "confused": int(errors[i]),
        }
        for i, name in enumerate(classes)
    ]
    return sorted(rows, key=lambda row: 101 if row["top1"] is None else row["top1"])


def print_worst(rows: list[dict]) -> None:
    """Print rows of `list_classes` as a table."""
    width = max((len(row["class"]) for row in rows), default=0)
    for row in rows:
        confused = f"  {row['confused']:,} confused with {row['confused_with']}" if row["confused"] else ""
        right = f"{row['top1']:6.2f} %  ({row['right']:,} of {row['images']:,})" if row["images"] else "no images"
        print(f"  {row['class']:<{width}}  {right}{confused}")


def write_table(path: Path, rows: list[dict]) -> None:
    """Write rows of `list_classes` to a CSV file."""
    cells = ([f"{row[name]:.6g}" if isinstance(row[name], float) else row[name] for name in COLUMNS] for row in rows)
    write_csv(path, [COLUMNS, *cells])
