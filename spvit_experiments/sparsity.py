"""Binarised priors: how accurate is an SP-ViT whose heads may look at a few offsets only, those of the largest prior?

    python -m spvit_experiments sparsity

makes data/results/sparse.csv anew. Each seed's model is trained as ever; then every head's prior is replaced by a mask,
without any training after. A row says which offsets were kept and how many, and how many images were right. SP-ViT's
authors name binarised priors as future work. `read_records` reads the rows.

An arm is a way to rank a head's offsets, by which the first are kept, the offset (0, 0) always among them:

    largest     the largest f(δ): what the head multiplies up
    farthest    the largest |f(δ) − 1|: what it changes most, up or down
    random      drawn by lot, several times: the control

and with +product behind it, f goes on multiplying inside the mask: softmax(f ⊙ S + {0, −∞}); without, the mask is all
that is left of the prior: softmax(S + {0, −∞}).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from spvit_mini.attention import ModulatedAttention
from spvit_mini.block_sparse import attend_sparse, sparsify, visible
from spvit_mini.cli.program import run_program, take_no_arguments
from spvit_mini.data import load_data
from spvit_mini.geometry import spread
from spvit_mini.training.loop import train

from .design import Arm, Study
from .records import RESULTS, six_digits, write_rows

MASKED = Study(
    name="sparse",
    question="How much of a learned prior is left when each head keeps a few offsets, as a mask?",
    arms={"spsa": Arm("spvit_mini_compass6")},
    seeds=(0, 1, 2, 3, 4),
    changes={"optim.lr": 4e-3, "data.val_images": 500, "device": "cpu"},
)
COLUMNS = ("arm", "seed", "draw", "density", "offsets", "pairs", "val_top1")
DENSITIES = (1.0, 0.75, 0.5, 0.25, 0.1, 0.05)
DRAWS = 5  # of random masks, for each seed and density
RANKS = {"largest": lambda f: f, "farthest": lambda f: (f - 1).abs()}


def priors(model: nn.Module) -> list[tuple[ModulatedAttention, Tensor]]:
    """List the layers whose scores are multiplied, each with its table (heads, 2R−1, 2C−1)."""
    layers = [block.attention for block in model.blocks if isinstance(block.attention, ModulatedAttention)]
    return [(layer, layer.spatial.table(model.grid).detach()) for layer in layers]


def random_ranks(tables: list[Tensor], seed: int, draw: int) -> list[Tensor]:
    """Draw numbers by which to rank the offsets of each layer, of the shapes of its table."""
    generator = torch.Generator().manual_seed(1000 * seed + draw)
    return [torch.rand(table.shape, generator=generator) for table in tables]


@contextmanager
def masked(model: nn.Module, kept: list[Tensor], *, product: bool) -> Iterator[None]:
    """Let each layer with a prior see its kept offsets alone, (heads, 2R−1, 2C−1) booleans for each; then undo it."""
    layers = priors(model)
    try:
        for (layer, table), own in zip(layers, kept, strict=True):

            def attend(q, k, v, grid, *, table, own):
                factor = spread(table, grid) if product else None
                return attend_sparse(q, k, v, visible(own, grid), factor)

            layer.attend = partial(attend, table=table, own=own)
        yield
    finally:
        for layer, _ in layers:
            vars(layer).pop("attend", None)  # that of the class comes back


@torch.no_grad()
def top1(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Tell how many of the images (B, 3, height, width) are classified as labelled, in percent."""
    model.eval()
    return 100 * float((model(images).argmax(-1) == labels).double().mean())


def binarise(model: nn.Module, images: Tensor, labels: Tensor, seed: int, densities=DENSITIES) -> list[dict]:
    """Score a trained model under every mask: rows with the columns of the record."""
    tables = [table for _, table in priors(model)]
    ranks = [(arm, 0, [rank(table) for table in tables]) for arm, rank in RANKS.items()]
    ranks += [("random", draw, random_ranks(tables, seed, draw)) for draw in range(DRAWS)]
    rows = []
    for density in densities:
        for arm, draw, ranked in ranks:
            kept = [sparsify(values, density) for values in ranked]
            seen = torch.stack([visible(own, model.grid).float().mean() for own in kept]).mean().item()
            for name, product in ((arm, False), (f"{arm}+product", True)):
                with masked(model, kept, product=product):
                    right = top1(model, images, labels)
                values = (name, seed, draw, density, int(kept[0][0].sum()), six_digits(seen), six_digits(right))
                rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def make(study: Study, arm: str, seed: int) -> list[dict]:
    """Train a model and score it under every mask."""
    recipe = study.recipe(arm, seed)
    model = train(recipe, progress=False).model
    val = load_data(recipe.data, recipe.augment, seed=seed).val
    images, labels = zip(*(val[i] for i in range(len(val))), strict=True)
    return binarise(model, torch.stack(images), torch.tensor([int(label) for label in labels]), seed)


def write(study: Study, rows: list[dict], folder: Path = RESULTS) -> Path:
    """Write the rows of a study to NAME.csv in a folder, by one rename."""
    return write_rows(folder / f"{study.name}.csv", rows)


def main(argv: list[str] | None = None) -> int:
    """Make all runs, one after the other; returns the exit status."""
    take_no_arguments(__doc__, argv)
    torch.set_num_threads(1)  # digits depend on it
    rows = []
    for arm, seed in MASKED.runs():
        rows += make(MASKED, arm, seed)
        whole = next(row for row in rows if row["seed"] == seed and row["arm"] == "largest+product")
        print(f"{arm}, seed {seed}: {whole['val_top1']:.1f} % with the whole prior", flush=True)
    print(write(MASKED, rows))
    return 0


if __name__ == "__main__":
    run_program(main)
