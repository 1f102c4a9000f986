"""Say what is on images, and show why the model thinks so.

    python -m spvit_mini predict runs/spvit_mini_flowers17 a.jpg b.jpg         the best weights of a run
    python -m spvit_mini predict best.safetensors photos/*.jpg --top 3         a weights file, wherever it lies
    python -m spvit_mini predict runs/spvit_mini_flowers17 a.jpg --explain     and a picture for each image
    python -m spvit_mini predict runs/spvit_mini_flowers17 --help              all options

Prints a table: image, rank, class, probability. --explain also writes a picture for each image: what the model saw of it,
attention rollout, the relevance of each patch for the best class, and the spatial priors of a few heads. An image that
cannot be read costs one line on stderr and exit status 2; the others are predicted all the same.
"""

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
from torch import Tensor

from .. import plots
from ..data.images import ENDINGS, BadImage, read_image
from ..errors import UserError
from ..explain.attribution import attention_rollout, class_relevance, gates, lay_over, need_attention, priors
from ..recipes.recipe import Recipe
from ..training.loop import choose_device
from ..training.trained_model import Which, open_trained
from ..vit import ViT
from ..weights import read_metadata
from ..zoo import transforms_for
from .arguments import parse
from .program import run_program

PROGRAM = "python -m spvit_mini predict"


@dataclass(frozen=True)
class Arguments:
    """Which images, and what to say of them."""

    images: tyro.conf.Positional[tuple[Path, ...]] = ()
    """The images: JPEG, PNG, WebP, BMP, GIF, PPM or TIFF files."""
    explain: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Draw for each image what the model looks at, into --out."""
    out: Path = Path("runs/explained")
    """The folder for the pictures; made if missing."""
    top: int = 5
    """How many classes to name for each image."""
    weights: Which = "best"
    """Of a run folder: the best weights, the last ones, or the last EMA weights."""
    image_size: int | None = None
    """Side in pixels of what the model sees of an image; if not given, what its weights were made for."""
    device: str = "auto"
    """Where to compute: auto (CUDA if there, else MPS, else CPU), cpu, cuda, cuda:1, mps."""
    seed: int = 0
    """Seeds torch, as in all programs. A trained model draws nothing when it predicts, so this changes no answer."""


def main(argv: list[str] | None = None) -> int:
    """Run the program on command-line arguments; returns its exit status, 2 if any image could not be read."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("--help", "-h"):
        print(__doc__.strip())
        return 0
    if argv[0].startswith("-") or argv[0].lower().endswith(ENDINGS):
        raise UserError(f"the run folder or weights file comes first, then the images: {PROGRAM} RUN_OR_WEIGHTS IMAGE…")
    described = f"Say what is on images, with the weights of {argv[0]}."
    arguments = parse(argv[1:], default=Arguments(), prog=f"{PROGRAM} {argv[0]}", description=described)
    if not arguments.images:
        raise UserError(f"no image is named: {PROGRAM} {argv[0]} IMAGE…")
    if arguments.top < 1:
        raise UserError(f"--top is {arguments.top}; at least 1 class is named for an image")

    torch.manual_seed(arguments.seed)
    path = Path(argv[0])
    model, metadata = open_trained(path, weights=arguments.weights, image_size=arguments.image_size)
    classes = class_names(metadata, model.config.num_classes, source=path)
    device, _ = choose_device(Recipe(device=arguments.device, precision="float32"))
    model.to(device)
    if arguments.explain:
        need_attention(model)
        make_folder(arguments.out)

    width = max(5, *(len(str(image)) for image in arguments.images))
    wide = max(5, *map(len, classes))
    print(f"{'image':<{width}}  rank  {'class':<{wide}}  probability", flush=True)
    prepare, bad, pictures = transforms_for(model), 0, []
    for image in arguments.images:
        try:
            pixels = prepare(read_image(image)).to(device)
        except (BadImage, UserError) as reason:
            bad += 1
            line = UserError(f"{image} {reason}" if isinstance(reason, BadImage) else str(reason))
            print(f"error: {line}", file=sys.stderr, flush=True)
            continue
        with torch.no_grad():
            probabilities, order = model(pixels[None])[0].softmax(-1).sort(descending=True)
        best = list(zip(probabilities.tolist(), order.tolist(), strict=True))[: arguments.top]
        for rank, (probability, label) in enumerate(best, start=1):
            print(f"{str(image):<{width}}  {rank:>4}  {classes[label]:<{wide}}  {100 * probability:>9.2f} %", flush=True)
        if arguments.explain:
            title = f"{image.name}: {classes[best[0][1]]}, {100 * best[0][0]:.1f} %"
            out = free_name(arguments.out, image, taken=[*arguments.images, *pictures])
            save(picture(model, pixels, label=best[0][1], named=classes[best[0][1]], title=title), out)
            pictures.append(out)
    for out in pictures:
        print(f"explained: {out}")
    return 2 if bad else 0


def class_names(metadata: dict[str, str], count: int, *, source: Path) -> list[str]:
    """Take the names of the classes out of a weights file's metadata; numbers where it has none."""
    names = read_metadata(metadata, "classes", source=source)
    if names is None:
        return [f"class {label}" for label in range(count)]
    if len(names) != count:
        raise UserError(f"{source} names {len(names)} classes, but its model tells {count} apart; write it again")
    return names


def make_folder(folder: Path) -> None:
    """Make the folder for the pictures, and see that files can be written there, before any work is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"cannot write pictures into {folder} ({error.strerror}); name another folder with --out") from None


def free_name(folder: Path, image: Path, *, taken: list[Path]) -> Path:
    """Name an image's picture, so that it replaces no image and no other picture of this call."""
    resolved, number = {path.resolve() for path in taken}, 1
    while True:
        name = folder / f"{image.stem}_explained{f'_{number}' if number > 1 else ''}.png"
        if name.resolve() not in resolved:
            return name
        number += 1


def save(figure: plt.Figure, out: Path) -> None:
    """Write a figure and close it."""
    try:
        figure.savefig(out)
    except OSError as error:
        raise UserError(f"cannot write the picture {out} ({error.strerror}); name another folder with --out") from None
    finally:
        plt.close(figure)


def picture(model: ViT, pixels: Tensor, *, label: int, named: str, title: str) -> plt.Figure:
    """Draw what a model looks at in an image: its input (3, height, width), rollout, relevance for a class, priors."""
    plots.style()
    mean, std = (torch.tensor(v)[:, None, None] for v in (model.preprocessing.mean, model.preprocessing.std))
    seen = (pixels.cpu() * std + mean).clamp(0, 1)
    shown = telling_priors(model)
    figure = plt.figure(figsize=(9.2, 5.8 if shown else 3.2))
    upper, *lower = figure.subfigures(2, 1, height_ratios=[1.3, 1]) if shown else [figure]
    upper.suptitle(title, x=0.01, ha="left", fontsize=12)

    axes = upper.subplots(1, 3)
    plots.image(axes[0], seen, title=f"what the model saw, {seen.shape[-2]}×{seen.shape[-1]} px")
    rollout = attention_rollout(model, pixels[None])[0]
    drawn = lay_over(axes[1], seen, rollout / rollout.mean().clamp(min=1e-12), title="attention rollout")
    upper.colorbar(drawn, ax=axes[1], shrink=0.8, label="1 = the mean patch")
    relevance = class_relevance(model, pixels[None], classes=label)[0]
    drawn = lay_over(axes[2], seen, relevance, title=f"relevance for {named}")
    # Relevance has no unit, and where patches are averaged each has a share of its own: only the order counts.
    bar = upper.colorbar(drawn, ax=axes[2], shrink=0.8)
    bar.set_ticks(drawn.get_clim(), labels=["least", "most"])
    if shown:
        draw_priors(lower[0], shown)
    return figure


@dataclass(frozen=True)
class Shown:
    """A head's prior as it is drawn: over the offsets, (2R−1, 2C−1)."""

    title: str
    multiplies: bool
    table: Tensor


def telling_priors(model: ViT, count: int = 4) -> list[Shown]:
    """Choose the heads whose priors vary most over the offsets, in the order of the layers.

    Of maps that multiply the scores the factor is taken; where there are none, what position alone would attend to:
    the softmax of the map.
    """
    found = priors(model)
    found = [prior for prior in found if prior.multiplies] or found
    gate, heads = gates(model), []
    for layer, multiplies, tables in found:
        for head, table in enumerate(tables.cpu()):
            if not multiplies:
                table = table.flatten().softmax(-1).view_as(table)
            gated = "" if gate[layer] is None else f", gate {gate[layer][head]:.2f}"
            who = "all heads" if len(tables) == 1 < model.config.heads else f"head {head}"
            heads.append(Shown(f"layer {layer}, {who}{gated}", multiplies, table))
    best = sorted(range(len(heads)), key=lambda i: -heads[i].table.std().item())[:count]
    return [heads[i] for i in sorted(best)]


def draw_priors(figure, shown: list[Shown]) -> None:
    """Draw priors side by side, colour limits shared; the query is outlined in the middle."""
    tables = torch.stack([prior.table for prior in shown]).float().numpy()
    rows, columns = tables.shape[-2:]
    factor = shown[0].multiplies
    look = plots.both_ways(tables, 1.0) if factor else {"cmap": plots.CONTENT, "vmin": 0, "vmax": tables.max()}
    axes = figure.subplots(1, len(shown), squeeze=False, sharex=True, sharey=True)[0]
    for prior, table, ax in zip(shown, tables, axes, strict=True):
        drawn = ax.imshow(table, extent=(-columns / 2, columns / 2, rows / 2, -rows / 2), **look)
        plots.frame(ax, 0, 0, colour="black" if factor else "white")
        ax.set_title(prior.title, fontsize=9)
        ax.grid(False)
    for axis in (axes[0].xaxis, axes[0].yaxis):
        axis.get_major_locator().set_params(integer=True)
    axes[0].set(xlabel="columns right", ylabel="rows down")
    label = "prior f(δ), multiplies scores" if factor else "attention by position"
    figure.colorbar(drawn, ax=list(axes), label=label, shrink=0.8)


if __name__ == "__main__":
    run_program(main)
