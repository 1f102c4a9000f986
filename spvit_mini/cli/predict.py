"""Classify images; with --explain, draw what the model attends to.

    python -m spvit_mini predict runs/spvit_mini_flowers17 a.jpg b.jpg         the best weights of a run
    python -m spvit_mini predict best.safetensors photos/*.jpg --top 3         a weights file
    python -m spvit_mini predict runs/spvit_mini_flowers17 a.jpg --explain     and a figure for each image

Prints a table: image, rank, class, probability. --explain also writes a figure for each image: the model's input, attention
rollout, the relevance of each patch for the best class, and the spatial priors of a few heads. A file that cannot be read costs
one line on stderr and exit status 2; the other images are still classified.
"""

import itertools
import sys
import tempfile
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
from ..data.image_folders import EXTENSIONS
from ..data.images import CorruptImageError, read_image
from ..errors import UserError
from ..explain.attribution import attention_rollout, check_has_attention, class_relevance, gates, lay_over, priors
from ..files import atomic_write
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
    """Images: JPEG, PNG, WebP, BMP, GIF, PPM or TIFF files."""
    explain: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Draw for each image what the model attends to, into --out."""
    out: Path = Path("runs/explained")
    """Folder for the figures; created if missing."""
    top: int = 5
    """Number of classes to print per image."""
    weights: WeightsChoice = "best"
    """Of a run folder: the best weights, the last weights, or the last EMA weights."""
    image_size: int | None = None
    """Side of the model's input in pixels; positions are interpolated to it. None: the image size of the weights."""
    device: str = "auto"
    """Device: auto (CUDA if there is one, else MPS, else CPU), cpu, cuda, cuda:1, mps."""
    imports: Imports = ()
    seed: int = 0
    """Seed of torch, as in all programs. A trained model draws no random numbers, so that it changes no result."""


def main(argv: list[str]) -> int:
    """Run the program on command-line arguments; returns its exit status, 2 if any image could not be read."""
    word, options = PROGRAM.split(argv, Arguments())
    if word.lower().endswith(EXTENSIONS):
        raise UserError(f"{word} is an image; expected RUN_OR_WEIGHTS before the images: {PROGRAM} RUN_OR_WEIGHTS IMAGE…")
    arguments, path = PROGRAM.parse(options, Arguments(), first=word), Path(word)
    if not arguments.images:
        raise UserError(f"no image is named; expected {PROGRAM} {path} IMAGE…")
    if arguments.top < 1:
        raise UserError(f"--top is {arguments.top}; expected at least 1")

    torch.manual_seed(arguments.seed)
    model, metadata = load_trained(path, weights=arguments.weights, image_size=arguments.image_size)
    classes = class_names(metadata, model.config.num_classes, source=path)
    device, _ = choose_device(Recipe(device=arguments.device, precision="float32"))
    model.to(device)
    if arguments.explain:
        check_has_attention(model)
        make_folder(arguments.out)

    width = max(5, *(len(str(image)) for image in arguments.images))
    class_width = max(5, *map(len, classes))
    print(f"{'image':<{width}}  rank  {'class':<{class_width}}  probability", flush=True)
    prepare, failures = transforms_for(model), 0
    figures: list[Path] = []
    for image in arguments.images:
        try:
            pixels = prepare(read_image(image)).to(device)
        except (CorruptImageError, UserError) as reason:
            failures += 1
            line = UserError(f"{image} {reason}" if isinstance(reason, CorruptImageError) else str(reason))
            print(f"error: {line}", file=sys.stderr, flush=True)
            continue
        with torch.no_grad():
            probabilities, order = model(pixels[None])[0].softmax(-1).sort(descending=True)
        best = list(zip(probabilities.tolist(), order.tolist(), strict=True))[: arguments.top]
        for rank, (probability, label) in enumerate(best, start=1):
            print(f"{str(image):<{width}}  {rank:>4}  {classes[label]:<{class_width}}  {100 * probability:>9.2f} %", flush=True)
        if arguments.explain:
            probability, label = best[0]
            title = f"{image.name}: {classes[label]}, {100 * probability:.1f} %"
            out = free_name(arguments.out, image, used=[*arguments.images, *figures])
            figure = draw_explanation(model, pixels, label=label, class_name=classes[label], title=title)
            with atomic_write(out) as temporary:
                figure.savefig(temporary, format="png")
            plt.close(figure)
            figures.append(out)
    for out in figures:
        print(f"explained: {out}")
    return 2 if failures else 0


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


def free_name(folder: Path, image: Path, *, used: list[Path]) -> Path:
    """Choose a file name for an image's figure that replaces no image and no other figure of this call."""
    used_paths = {path.resolve() for path in used}
    names = (folder / f"{image.stem}_explained{f'_{number}' if number > 1 else ''}.png" for number in itertools.count(1))
    return next(name for name in names if name.resolve() not in used_paths)


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
