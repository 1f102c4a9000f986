"""The whole course on one figure: where each variant looks, asked from the same patch of the same scene.

    python -m spvit_experiments overview [FIGURE.png]

trains every mini on Compass-6 and makes data/results/story.csv anew; with a file's name it only draws what is recorded.
Of each model that head is shown which finds ships best on other scenes where they lie in the same direction, since heads
share the directions among them, and none should be judged by an unlucky choice.
"""

import csv
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from spvit_mini import plots
from spvit_mini.cli.program import run_program
from spvit_mini.data.synthetic import Compass
from spvit_mini.training.checkpoint import replacing
from spvit_mini.training.loop import train

from .core_studies import SETTLED, main_arms
from .design import Study
from .records import RESULTS, read_records, six_digits

NAMES = {
    "vit": "MHSA",
    "rpb": "RPB, added",
    "window": "window, masked",
    "psa": "PSA, added",
    "convit": "GPSA, gated",
    "spsa": "SP-SA, multiplied",
    "anchored": "both",
}
ARMS = main_arms("compass6")
STUDY = Study(
    name="story",
    question="Asked from the lighthouse, which attention finds the ship?",
    arms={name: ARMS.get(name) or type(ARMS["vit"])("window_mini_compass6", colour="window") for name in NAMES},
    seeds=(0,),
    changes=SETTLED,
)
GRID = (6, 6)
COLUMNS = ("arm", "seed", "val_top1", "layer", "head", "found", "row", "column", "weight")


def scenes(part: str, images: int) -> Compass:
    """Make scenes that no run was trained or validated on."""
    return Compass(images, seed=0, part=part, rows=GRID[0], cols=GRID[1], reach=3)


@torch.no_grad()
def look(model: torch.nn.Module) -> tuple[int, int, float, torch.Tensor]:
    """Choose the head that gives the ship most, asked from the lighthouse; its layer, number, mean share, weights (R, C).

    The choice is made on 100 scenes of the same class; the weights are of a scene that is not among them.
    """
    others, shown = scenes("story-choice", 800), scenes("story", 1)
    others = others.take((others.labels == shown.labels[0]).nonzero()[:, 0])
    asked, sought = (place[:, 0] * GRID[1] + place[:, 1] for place in (others.lighthouse, others.ship))
    each = torch.arange(len(others))
    found = torch.stack([maps[each, :, asked, sought].mean(0) for maps in model.attention_maps(others.images)])  # (L, H)
    layer, head = divmod(int(found.argmax()), found.shape[1])
    row, column = shown.lighthouse[0].tolist()
    weights = model.attention_maps(shown.images)[layer][0, head, row * GRID[1] + column]
    return layer, head, found[layer, head].item(), weights.reshape(GRID)


def make() -> Path:
    """Train every variant and write the record."""
    torch.set_num_threads(1)  # digits depend on it
    path, places = RESULTS / "story.csv", torch.cartesian_prod(*map(torch.arange, GRID)).tolist()
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        for arm, seed in STUDY.runs():
            result = train(STUDY.recipe(arm, seed), progress=False)
            layer, head, found, weights = look(result.model.eval())
            print(f"{arm}: {result.rows[-1]['val_top1']:.1f} %, layer {layer}, head {head}: {found:.2f}", flush=True)
            told = (arm, seed, result.rows[-1]["val_top1"], layer, head, six_digits(found))
            for (row, column), weight in zip(places, weights.flatten().tolist(), strict=True):
                table.writerow(dict(zip(COLUMNS, (*told, row, column, six_digits(weight)), strict=True)))
    return path


def story() -> Figure:
    """Draw the record: the scene, and beside it each variant's weights from the lighthouse, the ship outlined."""
    records, scene = read_records("story"), scenes("story", 1)
    (row, column), ship = scene.lighthouse[0].tolist(), scene.ship[0].tolist()
    figure, axes = plt.subplots(2, 4, figsize=(7, 4.2))
    marks = [(row, column, "white"), (*ship, "#D55E00")]
    plots.image(axes[0, 0], scene.images[0], title="lighthouse and ship", boxes=marks)
    for axis, (arm, name) in zip(axes.flat[1:], NAMES.items(), strict=True):
        own = [entry for entry in records if entry["arm"] == arm]
        weights = torch.tensor([entry["weight"] for entry in own]).reshape(GRID)
        shown = axis.imshow(weights.numpy(), vmin=0, vmax=1, cmap=plots.CONTENT)
        plots.frame(axis, row, column, colour="white")
        plots.frame(axis, *ship)
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.set_title(f"{name}\n{own[0]['val_top1']:.0f} % right, ship {own[0]['found']:.2f}", fontsize=8)
    figure.colorbar(shown, ax=axes, label="weight", shrink=0.8)
    able = [NAMES[arm] for arm in NAMES if next(e for e in records if e["arm"] == arm)["found"] > 0.5]
    finding = f"heads that give ships most: {'; '.join(able)}" if able else "no head gives ships most of its weight"
    figure.suptitle(f"Asked from the lighthouse, {finding}", x=0.01, ha="left", fontsize=9.5)
    return figure


def main(argv: list[str] | None = None) -> int:
    """Make the record, or draw it; returns the exit status."""
    names = sys.argv[1:] if argv is None else argv
    if not names:
        print(make())
        return 0
    plots.style()
    story().savefig(names[0])
    return 0


if __name__ == "__main__":
    run_program(main)
