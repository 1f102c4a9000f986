"""Classify images; with --explain, draw what the model attends to.

    python -m spvit_mini predict runs/spvit_mini_flowers17 a.jpg b.jpg         the best weights of a run
    python -m spvit_mini predict best.safetensors photos --csv photos.csv      a weights file, and all images in a folder
    python -m spvit_mini predict runs/spvit_mini_flowers17 a.jpg --explain     and a figure for each image

Prints a table: image, rank, class, probability; names with spaces or special characters stand in quotation marks. --csv also
writes it to a file. --explain also writes a figure for each image: the model's input, attention rollout, the relevance of each
patch for the best class, and the spatial priors of a few heads. A file that cannot be read costs one line on stderr and exit
status 2; the other images are still classified.
"""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
import tyro
from matplotlib.figure import Figure
from torch import Tensor

from .. import plots
from ..data.image_folders import EXTENSIONS, list_images
from ..data.images import CorruptImageError, read_image
from ..errors import UserError
from ..explain.attribution import attention_rollout, check_has_attention, class_relevance, gates, lay_over, priors
from ..fields import Count, Device, Pixels, Seed
from ..files import atomic_write, write_csv
from ..recipes.recipe import Recipe
from ..training.checkpoint import WeightsChoice, load_trained
from ..training.devices import choose_device
from ..vit import VisionModel
from ..weights import read_metadata
from ..zoo import transforms_for
from .arguments import Imports, Program

PROGRAM = Program("python -m spvit_mini predict", __doc__, first="RUN_OR_WEIGHTS")


@dataclass(frozen=True)
class Arguments:
    """Which images, and what to print and draw."""

    images: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Images: JPEG, PNG, WebP, BMP, GIF, PPM or TIFF files, or folders with such files in and below them."""
    csv: Path | None = None
    """CSV file to write with the table; an existing file is replaced. None: no file."""
    explain: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Draw for each image what the model attends to, into --out, each figure by the path of its image."""
    out: Path = Path("runs/explained")
    """Folder for the figures; created if missing."""
    top: Count = 5
    """Number of classes to print per image."""
    weights: WeightsChoice = "best"
    """Of a run folder: the best weights, the last weights, or the last EMA weights."""
    image_size: Pixels | None = None
    """Side of the model's input in pixels; positions are interpolated to it. None: the image size of the weights."""
    device: Device = "auto"
    """Device: auto (CUDA if there is one, else MPS, else CPU), cpu, cuda, cuda:1, mps."""
    imports: Imports = ()
    seed: Seed = 0
    """Seed of torch, as in all programs. A trained model draws no random numbers, so that it changes no result."""


def main(argv: list[str]) -> int:
    """Run the program on command-line arguments; returns its exit status, 2 if any image could not be read."""
    word, options = PROGRAM.split(argv, Arguments())
    if word.lower().endswith(EXTENSIONS):
        raise UserError(f"{word} is an image; expected RUN_OR_WEIGHTS before the images: {PROGRAM} RUN_OR_WEIGHTS IMAGE…")
    arguments, path = PROGRAM.parse(options, Arguments(), first=word), Path(word)
    if not arguments.images:
        raise UserError(f"no image is named; expected {PROGRAM} {path} IMAGE…")
    if (table := arguments.csv) is not None and (table.suffix != ".csv" or not table.parent.is_dir()):
        raise UserError(f"--csv is {table}; expected the name of a .csv file in an existing folder")
    images = find_images(arguments.images)

    torch.manual_seed(arguments.seed)
    model, metadata = load_trained(path, weights=arguments.weights, image_size=arguments.image_size)
    classes = class_names(metadata, model.config.num_classes, source=path)
    device, _ = choose_device(Recipe(device=arguments.device, precision="float32"))
    model.to(device)
    figures = {image: figure_path(arguments.out, image) for image in images} if arguments.explain else {}
    if arguments.explain:
        check_has_attention(model)
        make_folder(arguments.out)
        if replaced := {os.path.abspath(path) for path in images} & {os.path.abspath(path) for path in figures.values()}:
            raise UserError(f"a figure would replace the image {min(replaced)}; use another folder with --out")

    shown = {image: quote(str(image)) for image in images}
    width, class_width = max(5, *map(len, shown.values())), max(5, *(len(quote(name)) for name in classes))
    print(f"{'image':<{width}}  rank  {'class':<{class_width}}  probability", flush=True)
    prepare, rows, drawn, failures = transforms_for(model), [], [], 0
    for image in images:
        try:
            pixels = prepare(read_image(image)).to(device)
            with torch.no_grad():
                logits = model(pixels[None])[0]
            if not logits.isfinite().all():
                raise UserError(f"the logits of {path} for {image} are not finite; use weights from before the training diverged")
        except (CorruptImageError, UserError) as reason:
            failures += 1
            line = UserError(f"{image} {reason}" if isinstance(reason, CorruptImageError) else str(reason))
            print(f"error: {line}", file=sys.stderr, flush=True)
            continue
        probabilities, order = logits.softmax(-1).sort(descending=True)
        best = list(zip(probabilities.tolist(), order.tolist(), strict=True))[: arguments.top]
        for rank, (probability, label) in enumerate(best, start=1):
            name = f"{quote(classes[label]):<{class_width}}"
            print(f"{shown[image]:<{width}}  {rank:>4}  {name}  {100 * probability:>9.2f} %", flush=True)
            rows.append((image, rank, classes[label], f"{probability:.6g}"))
        if arguments.explain:
            probability, label = best[0]
            title = plots.escape(f"{image.name}: {classes[label]}, {100 * probability:.1f} %")
            figure = draw_explanation(model, pixels, label=label, class_name=plots.escape(classes[label]), title=title)
            make_folder(figures[image].parent)
            with atomic_write(figures[image]) as temporary:
                figure.savefig(temporary, format="png")
            plt.close(figure)
            drawn.append(figures[image])
    for out in drawn:
        print(f"explained: {out}")
    if table is not None:
        write_csv(table, [("image", "rank", "class", "probability"), *rows])
        print(f"table: {table}")
    return 2 if failures else 0


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Find the images, each once: files as they are named, and the images in and below folders."""
    images: dict[str, Path] = {}
    for path in paths:
        found = [Path(name) for name, _ in list_images(path)] if path.is_dir() else [path]
        if not found:
            raise UserError(f"{path} holds no images; expected files such as {', '.join(EXTENSIONS[:4])} in or below it")
        for image in found:
            images.setdefault(os.path.abspath(image), image)
    return list(images.values())


def quote(name: str) -> str:
    """Quote a name as in JSON if it has spaces, quotation marks, or characters that cannot be printed."""
    return name if name.isprintable() and not {" ", '"'} & set(name) else json.dumps(name, ensure_ascii=False)


def class_names(metadata: dict[str, str], count: int, *, source: Path) -> list[str]:
    """Read the names of the classes from a weights file's metadata; numbers if it has none."""
    names = read_metadata(metadata, "classes", source=source)
    if names is None:
        return [f"class {label}" for label in range(count)]
    if len(names) != count:
        raise UserError(f"{source} names {len(names)} classes, but its model has {count}; write the file again")
    return names


def make_folder(folder: Path) -> None:
    """Create the folder for the figures, and check that files can be written there, before any image is classified."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"cannot write figures into {folder} ({error.strerror}); use another folder with --out") from None


def figure_path(folder: Path, image: Path) -> Path:
    """Name an image's figure by the path of the image, from the current folder or else from the root: a/b.jpg.png."""
    path, here = Path(os.path.abspath(image)), Path.cwd()
    return folder / path.relative_to(here if path.is_relative_to(here) else path.anchor).with_name(f"{path.name}.png")


def draw_explanation(model: VisionModel, pixels: Tensor, *, label: int, class_name: str, title: str) -> Figure:
    """Draw what a model attends to in an image: its input (3, height, width), rollout, relevance for a class, priors."""
    plots.style()
    mean, std = (torch.tensor(v)[:, None, None] for v in (model.preprocessing.mean, model.preprocessing.std))
    image = (pixels.cpu() * std + mean).clamp(0, 1)
    head_priors = choose_priors(model)
    figure = plt.figure(figsize=(9.2, 5.8 if head_priors else 3.2))
    [upper], *lower = figure.subfigures(2, 1, height_ratios=[1.3, 1], squeeze=False) if head_priors else [[figure]]
    upper.suptitle(title, x=0.01, ha="left", fontsize=12)

    axes = upper.subplots(1, 3)
    plots.image(axes[0], image, title=f"model input, {image.shape[-2]}×{image.shape[-1]} px")
    rollout = attention_rollout(model, pixels[None])[0]
    overlay = lay_over(axes[1], image, rollout / rollout.mean().clamp(min=1e-12), title="attention rollout")
    upper.colorbar(overlay, ax=axes[1], shrink=0.8, label="1 = the mean patch")
    relevance = class_relevance(model, pixels[None], classes=label)[0]
    overlay = lay_over(axes[2], image, relevance, title=f"relevance for {class_name}")
    # Relevance has no unit, and its scale depends on the pooling: only the order of the patches counts.
    bar = upper.colorbar(overlay, ax=axes[2], shrink=0.8)
    bar.set_ticks(overlay.get_clim(), labels=["least", "most"])
    if head_priors:
        draw_priors(lower[0][0], head_priors)
    return figure


@dataclass(frozen=True)
class HeadPrior:
    """A head's prior over the offsets, (2R−1, 2C−1), with its title."""

    title: str
    multiplies: bool
    table: Tensor


def choose_priors(model: VisionModel, count: int = 4) -> list[HeadPrior]:
    """Choose the heads whose priors vary most over the offsets, in the order of the layers.

    In a model with multiplicative maps these are their factors; otherwise the softmax of the map (attention by position alone).
    """
    candidates = priors(model)
    candidates = [prior for prior in candidates if prior.multiplies] or candidates
    heads: list[HeadPrior] = []
    for layer, multiplies, tables in candidates:
        gate = gates(model)[layer]
        for head, table in enumerate(tables.cpu()):
            if not multiplies:
                table = table.flatten().softmax(-1).view_as(table)
            suffix = "" if gate is None else f", gate {gate[head]:.2f}"
            which = "all heads" if len(tables) == 1 < model.config.heads else f"head {head}"
            heads.append(HeadPrior(f"layer {layer}, {which}{suffix}", multiplies, table))
    best = sorted(range(len(heads)), key=lambda i: -heads[i].table.std().item())[:count]
    return [heads[i] for i in sorted(best)]


def draw_priors(figure, head_priors: list[HeadPrior]) -> None:
    """Draw priors side by side with common colour limits; the query in the centre is outlined."""
    tables = torch.stack([prior.table for prior in head_priors]).float().numpy()
    rows, columns = tables.shape[-2:]
    factor = head_priors[0].multiplies
    colours = plots.diverging_colours(tables, 1.0) if factor else {"cmap": plots.CONTENT, "vmin": 0, "vmax": tables.max()}
    axes = figure.subplots(1, len(head_priors), squeeze=False, sharex=True, sharey=True)[0]
    for prior, table, ax in zip(head_priors, tables, axes, strict=True):
        mappable = ax.imshow(table, extent=(-columns / 2, columns / 2, rows / 2, -rows / 2), **colours)
        plots.frame(ax, 0, 0, colour="black" if factor else "white")
        ax.set_title(prior.title, fontsize=9)
        ax.grid(False)
    for axis in (axes[0].xaxis, axes[0].yaxis):
        axis.get_major_locator().set_params(integer=True)
    axes[0].set(xlabel="columns right", ylabel="rows down")
    label = "prior f(δ), multiplies scores" if factor else "attention by position"
    figure.colorbar(mappable, ax=list(axes), label=label, shrink=0.8)
