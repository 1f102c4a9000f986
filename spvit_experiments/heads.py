"""Nonlocality and gate of every head during training.

    python -m spvit_experiments heads                       make runs/heads/lesson_07_heads.csv
    python -m spvit_experiments heads --out data/results    replace the records, which `read_records` reads

The file has a row per run, evaluation, layer and head.
"""

import torch

from spvit_mini.data.synthetic import Textures
from spvit_mini.explain.attribution import gates, nonlocality
from spvit_mini.training.loop import train

from .records import parse_out, six_digits, write_rows
from .study import Arm, Study

# Longer than the runs of lesson_07 and one block deeper, so that there are first, middle and last layers.
HEADS = Study(
    name="lesson_07_heads",
    question="Which heads of a ConViT become local, and which escape?",
    arms={"vit": Arm("vit_mini_textures6"), "convit": Arm("convit_mini_textures6")},
    seeds=(0, 1, 2, 3, 4),
    changes={
        "model.depth": 3,
        "duration": "400 steps",
        "optim.lr": 4e-3,
        "data.val_images": 400,
        "evaluate_every": "40 steps",
        "device": "cpu",
    },
)
COLUMNS = ("arm", "seed", "step", "val_top1", "layer", "head", "gate", "nonlocality")
IMAGES = 64  # over which the nonlocality of a head is averaged


def measure_run(study: Study, arm: str, seed: int) -> list[dict]:
    """Train a run and measure every head at every evaluation; `gate` is σ(λ), or "" for a head without one."""
    recipe, rows = study.recipe(arm, seed), []
    images = Textures(IMAGES, seed=0, split="heads", rows=6, cols=6).images

    @torch.no_grad()
    def measure(step: int, model, row: dict) -> None:
        maps, shares = model.attention_maps(images), gates(model)
        for layer, (weights, share) in enumerate(zip(maps, shares, strict=True)):
            for head, distance in enumerate(nonlocality(weights, model.grid).mean(0).tolist()):
                gate = "" if share is None else six_digits(share[head].item())
                values = (arm, seed, step, row["val_top1"], layer, head, gate, six_digits(distance))
                rows.append(dict(zip(COLUMNS, values, strict=True)))

    train(recipe, progress=False, on_evaluation=measure)
    return rows


def main(argv: list[str] | None = None) -> int:
    """Make all runs in turn; returns the exit status."""
    folder = parse_out("heads", __doc__, argv)
    torch.set_num_threads(1)  # the last digits depend on it
    rows = []
    for arm, seed in HEADS.runs():
        rows += measure_run(HEADS, arm, seed)
        print(f"{arm}, seed {seed}: {rows[-1]['val_top1']:.1f} %", flush=True)
    print(write_rows(folder / f"{HEADS.name}.csv", rows))
    return 0
