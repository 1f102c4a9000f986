"""Accuracy of SP-ViT with binarised priors: each head attends to a few offsets, for example those of the largest prior.

    python -m spvit_experiments sparsity                       make runs/sparsity/sparse.csv
    python -m spvit_experiments sparsity --out data/results    replace the records, which `read_records` reads

Each seed's model is trained as usual; then the prior of every head is
replaced by a mask, without further training. A row gives the mask, its density and the accuracy. SP-ViT's authors name
binarised priors as future work.

An arm is a ranking of a head's offsets; the mask consists of the first ones, and always includes the offset (0, 0):

    largest     the largest f(δ): what the head amplifies
    farthest    the largest |f(δ) − 1|: what the head changes most
    random      several random rankings: the control

With the suffix +product, f still multiplies inside the mask: softmax(f ⊙ S + {0, −∞}). Without it, only the mask is left
of the prior: softmax(S + {0, −∞}).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from spvit_mini.attention import ModulatedAttention
from spvit_mini.block_sparse import attend_sparse, sparsify, visible
from spvit_mini.data import load_data
from spvit_mini.geometry import spread
from spvit_mini.training.loop import train

from .records import parse_out, six_digits, write_rows
from .study import Arm, Study

SPARSITY = Study(
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
    """List the layers with a multiplicative map, each with the table of its map, (heads, 2R−1, 2C−1)."""
    layers = [block.attention for block in model.blocks if isinstance(block.attention, ModulatedAttention)]
    return [(layer, layer.spatial.table(model.grid).detach()) for layer in layers]


def random_ranks(tables: list[Tensor], seed: int, draw: int) -> list[Tensor]:
    """Draw a random ranking of the offsets of each layer, with the shapes of the tables."""
    generator = torch.Generator().manual_seed(1000 * seed + draw)
    return [torch.rand(table.shape, generator=generator) for table in tables]


@contextmanager
def mask_priors(model: nn.Module, masks: list[Tensor], *, product: bool) -> Iterator[None]:
    """Restrict each layer with a prior to the offsets of its mask, booleans (heads, 2R−1, 2C−1), within a `with` block."""
    layers = priors(model)
    try:
        for (layer, table), mask in zip(layers, masks, strict=True):

            def attend(q, k, v, grid, *, table, mask):
                factor = spread(table, grid) if product else None
                return attend_sparse(q, k, v, visible(mask, grid), factor)

            layer.attend = partial(attend, table=table, mask=mask)
        yield
    finally:
        for layer, _ in layers:
            vars(layer).pop("attend", None)  # restores the method of the class


@torch.no_grad()
def top1(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Compute the accuracy on images (B, 3, height, width), in percent."""
    model.eval()
    return 100 * float((model(images).argmax(-1) == labels).double().mean())


def binarise(model: nn.Module, images: Tensor, labels: Tensor, seed: int, densities=DENSITIES) -> list[dict]:
    """Measure the accuracy of a trained model with every mask: rows with the columns of the record."""
    tables = [table for _, table in priors(model)]
    ranks = [(arm, 0, [rank(table) for table in tables]) for arm, rank in RANKS.items()]
    ranks += [("random", draw, random_ranks(tables, seed, draw)) for draw in range(DRAWS)]
    rows = []
    for density in densities:
        for arm, draw, ranking in ranks:
            masks = [sparsify(values, density) for values in ranking]
            pairs = torch.stack([visible(mask, model.grid).float().mean() for mask in masks]).mean().item()
            for name, product in ((arm, False), (f"{arm}+product", True)):
                with mask_priors(model, masks, product=product):
                    accuracy = top1(model, images, labels)
                values = (name, seed, draw, density, int(masks[0][0].sum()), six_digits(pairs), six_digits(accuracy))
                rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def measure_run(study: Study, arm: str, seed: int) -> list[dict]:
    """Train a run and measure its accuracy with every mask."""
    recipe = study.recipe(arm, seed)
    model = train(recipe, progress=False).model
    val = load_data(recipe.data, recipe.augment, seed=seed).val
    images, labels = zip(*(val[i] for i in range(len(val))), strict=True)
    return binarise(model, torch.stack(images), torch.tensor([int(label) for label in labels]), seed)


def main(argv: list[str] | None = None) -> int:
    """Make all runs in turn; returns the exit status."""
    folder = parse_out("sparsity", __doc__, argv)
    torch.set_num_threads(1)  # the last digits depend on it
    rows = []
    for arm, seed in SPARSITY.runs():
        rows += measure_run(SPARSITY, arm, seed)
        whole = next(row for row in rows if row["seed"] == seed and row["arm"] == "largest+product")
        print(f"{arm}, seed {seed}: {whole['val_top1']:.1f} % with the whole prior", flush=True)
    print(write_rows(folder / f"{SPARSITY.name}.csv", rows))
    return 0
