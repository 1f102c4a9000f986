"""One figure for the whole course: the attention of every variant, from the same query in the same scene.

    python -m spvit_experiments overview                       train every mini on Compass-6, and make runs/overview/story.csv
    python -m spvit_experiments overview --out data/results    replace the records
    python -m spvit_experiments overview FIGURE.png            draw the records

The heads of a model divide the directions among them. So the figure shows, for each model, the head with the highest weight
for the ship in other scenes of the same direction.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from spvit_mini import plots
from spvit_mini.errors import UserError
from spvit_mini.training.loop import train

from .core_studies import FIXED_RATE, main_arms
from .explanations import scenes
from .records import parse_out, read_records, write_rows
from .study import Arm, Study

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
    arms={name: ARMS.get(name) or Arm("window_mini_compass6", colour="window") for name in NAMES},
    seeds=(0,),
    changes=FIXED_RATE,
)
GRID = (6, 6)
COLUMNS = ("arm", "seed", "val_top1", "layer", "head", "found", "row", "column", "weight")


@torch.no_grad()
def select_head(model: torch.nn.Module) -> tuple[int, int, float, torch.Tensor]:
    """Select the head with the highest weight for the ship, with the lighthouse as query.

    The selection uses 100 scenes of one direction. Returns the layer, the head, its mean weight for the ship, and its weights
    (R, C) in another scene of this direction.
    """
    others, scene = scenes(800, 0, part="story-choice"), scenes(1, 0, part="story")
    others = others.select((others.labels == scene.labels[0]).nonzero()[:, 0])
    queries, keys = (position[:, 0] * GRID[1] + position[:, 1] for position in (others.lighthouse, others.ship))
    images = torch.arange(len(others))
    ship_weights = torch.stack([maps[images, :, queries, keys].mean(0) for maps in model.attention_maps(others.images)])  # (L, H)
    layer, head = divmod(int(ship_weights.argmax()), ship_weights.shape[1])
    row, column = scene.lighthouse[0].tolist()
    weights = model.attention_maps(scene.images)[layer][0, head, row * GRID[1] + column]
    return layer, head, ship_weights[layer, head].item(), weights.reshape(GRID)


def write_weights(folder: Path) -> Path:
    """Train every variant and write the weights of its head to story.csv in a folder; returns the path."""
    torch.set_num_threads(1)  # the last digits depend on it
    positions, rows = torch.cartesian_prod(*map(torch.arange, GRID)).tolist(), []
    for arm, seed in STUDY.runs():
        result = train(STUDY.recipe(arm, seed), progress=False)
        accuracy = result.rows[-1]["val_top1"]
        layer, head, ship_weight, weights = select_head(result.model.eval())
        print(f"{arm}: {accuracy:.1f} %, layer {layer}, head {head}: {ship_weight:.2f}", flush=True)
        for position, weight in zip(positions, weights.flatten().tolist(), strict=True):
            rows.append(dict(zip(COLUMNS, (arm, seed, accuracy, layer, head, ship_weight, *position, weight), strict=True)))
    return write_rows(folder / "story.csv", rows)


def draw_overview() -> Figure:
    """Draw the records: the scene, and the weights of each variant, with the lighthouse as query and the ship outlined."""
    records, scene = read_records("story"), scenes(1, 0, part="story")
    (row, column), ship = scene.lighthouse[0].tolist(), scene.ship[0].tolist()
    figure, axes = plt.subplots(2, 4, figsize=(7, 4.2))
    marks = [(row, column, "white"), (*ship, "#D55E00")]
    plots.image(axes[0, 0], scene.images[0], title="lighthouse and ship", boxes=marks)
    for axis, (arm, name) in zip(axes.flat[1:], NAMES.items(), strict=True):
        own = [entry for entry in records if entry["arm"] == arm]
        weights = torch.tensor([entry["weight"] for entry in own]).reshape(GRID)
        image = axis.imshow(weights.numpy(), vmin=0, vmax=1, cmap=plots.CONTENT)
        plots.frame(axis, row, column, colour="white")
        plots.frame(axis, *ship)
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.set_title(f"{name}\n{own[0]['val_top1']:.0f} % right, ship {own[0]['found']:.2f}", fontsize=8)
    figure.colorbar(image, ax=axes, label="weight", shrink=0.8)
    able = [NAMES[arm] for arm in NAMES if next(e for e in records if e["arm"] == arm)["found"] > 0.5]
    finding = f"heads that give ships most: {'; '.join(able)}" if able else "no head gives ships most of its weight"
    figure.suptitle(f"Asked from the lighthouse, {finding}", x=0.01, ha="left", fontsize=9.5)
    return figure


def main(argv: list[str] | None = None) -> int:
    """Make the records, or draw them into the file on the command line; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and not argv[0].startswith("-"):
        plots.style()
        try:
            draw_overview().savefig(argv[0])
        except (OSError, ValueError) as error:  # a missing folder, an unknown format
            raise UserError(f"the figure {argv[0]} cannot be written ({error}). Name another file.") from None
    else:
        print(write_weights(parse_out("overview", __doc__, argv)))
    return 0
