"""What the heads of a training model do, evaluation by evaluation: how far each looks, and how its gate stands.

    python -m spvit_experiments heads

makes data/results/lesson_07_heads.csv anew: a row for each run, evaluation, layer and head. `read_records` reads it.
"""

from pathlib import Path

import torch

from spvit_mini.cli.program import run_program, take_no_arguments
from spvit_mini.data.synthetic import Textures
from spvit_mini.explain.attribution import gates, nonlocality
from spvit_mini.training.loop import train

from .design import Arm, Study
from .records import RESULTS, six_digits, write_rows

# Longer than the runs of lesson_07 and one block deeper, so that there are first, middle and last heads.
WATCHED = Study(
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
LOOKED_AT = 64  # images over which a head's nonlocality is averaged


def watch(study: Study, arm: str, seed: int) -> list[dict]:
    """Make a run and write down every head at every evaluation; `gate` is σ(λ), "" where there is none."""
    recipe, rows = study.recipe(arm, seed), []
    images = Textures(LOOKED_AT, seed=0, part="heads", rows=6, cols=6).images

    @torch.no_grad()
    def look(step: int, model, row: dict) -> None:
        maps, shares = model.attention_maps(images), gates(model)
        for layer, (weights, share) in enumerate(zip(maps, shares, strict=True)):
            for head, distance in enumerate(nonlocality(weights, model.grid).mean(0).tolist()):
                gate = "" if share is None else six_digits(share[head].item())
                values = (arm, seed, step, row["val_top1"], layer, head, gate, six_digits(distance))
                rows.append(dict(zip(COLUMNS, values, strict=True)))

    train(recipe, progress=False, on_evaluation=look)
    return rows


def write(study: Study, rows: list[dict], folder: Path = RESULTS) -> Path:
    """Write the rows of a study to NAME.csv in a folder, by one rename."""
    return write_rows(folder / f"{study.name}.csv", rows)


def main(argv: list[str] | None = None) -> int:
    """Make all runs, one after the other; returns the exit status."""
    take_no_arguments(__doc__, argv)
    torch.set_num_threads(1)  # digits depend on it
    rows = []
    for arm, seed in WATCHED.runs():
        rows += watch(WATCHED, arm, seed)
        print(f"{arm}, seed {seed}: {rows[-1]['val_top1']:.1f} %", flush=True)
    print(write(WATCHED, rows))
    return 0


if __name__ == "__main__":
    run_program(main)
