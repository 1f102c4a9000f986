"""What trained models look at on Compass, where the places that count are known; and what they do on other grids.

    python -m spvit_experiments explanations          or, with two processes side by side, … looking 2

makes four files of data/results/ anew, which `read_records` reads:

    looking.csv         a row for each run: accuracy, and for each kind of map (`KINDS`) the part of lighthouse and ship
                        that is among its two highest patches, the mean rank of each of them, the part of the two that
                        is decoys, and, for the kinds of `FOLLOWED`, the areas under deletion and insertion
    looking_heads.csv   a row for each run, layer and head: nonlocality; and of the layer, how its heads' foci lie
    resolution.csv      a row for each run, grid and reach: the accuracy of the same weights there
    fine_tuned.csv      a row for each run and number of steps of training on a grid of twice the sides: the accuracy there
"""

import multiprocessing
import sys
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from spvit_mini.cli.program import run_program
from spvit_mini.data.synthetic import BLUE, Compass
from spvit_mini.errors import UserError
from spvit_mini.explain.attribution import attention_rollout, class_relevance, complement, nonlocality
from spvit_mini.explain.faithfulness import area, contrast, deletion, hits, insertion, random_maps, ranks
from spvit_mini.geometry import Grid, patch_grid
from spvit_mini.recipes.recipe import Recipe
from spvit_mini.spatial import PriorMLP
from spvit_mini.training.loop import train
from spvit_mini.vit import ViT
from spvit_mini.zoo import create_model

from .design import Arm, Study
from .records import RESULTS, six_digits, write_rows

LATE = {"model.depth": 3, "model.pool": "class", "model.spatial_layers": 2, "model.class_token_block": 2}
LOOKING = Study(
    name="looking",
    question="Do explanations find the places that count, and do models work on other grids?",
    arms={
        "spsa": Arm("spvit_mini_compass6", colour="spsa"),
        "spsa-late": Arm("spvit_mini_compass6", LATE),
        "spsa-no-positions": Arm("spvit_mini_compass6", {"model.positions": False}),
        "psa": Arm("psa_mini_compass6", colour="psa"),
    },
    seeds=(0, 1, 2, 3, 4),
    changes={"optim.lr": 4e-3, "data.val_images": 500, "evaluate_every": "240 steps", "device": "cpu"},
)
# Images whose maps are held against places; the first of them, against the model as well; of each size of `elsewhere`.
SCENES, FOLLOW, ELSEWHERE = 400, 64, 200
KINDS = ("rollout", "relevance", "contrast", "random", "untrained_rollout", "untrained_relevance")
FOLLOWED = KINDS[:4]
# Rows, columns, and how far away the ship may be: as in training, more patches, a rectangle, twice and three times the sides;
# and a ship farther away than any in training.
SIZES = ((6, 6, 3), (8, 8, 3), (6, 10, 3), (12, 12, 3), (18, 18, 3), (12, 12, 8))
# Fine-tuning: where, on how many images, and after how many steps it is scored; all arms by the same rate.
LARGER, TUNING_IMAGES, TUNING_STEPS, TUNING_BATCH, TUNING_RATE = (12, 12, 3), 1000, (0, 20, 40, 80), 50, 1e-3
AS_TABLE = "-as-table"  # behind an arm's name: its prior baked into a table, which is resized on other grids


def scenes(count: int, seed: int, rows: int = 6, cols: int = 6, reach: int = 3, *, part: str = "looking") -> Compass:
    """Draw images that no run has trained or been scored on."""
    return Compass(count, seed=seed, part=part, rows=rows, cols=cols, reach=reach)


def decoys(images: Tensor, grid: Grid, count: int = 3) -> Tensor:
    """Find the decoys, (B, count, 2): the bluest patches, since a set does not keep their places."""
    blue = images[:, BLUE].unflatten(2, (grid[1], -1)).unflatten(1, (grid[0], -1)).mean((2, 4))
    best = blue.flatten(1).topk(count).indices
    return torch.stack([best // grid[1], best % grid[1]], dim=-1)


def untrained(recipe: Recipe) -> ViT:
    """Make the model as the recipe starts it."""
    torch.manual_seed(recipe.seed)
    return create_model(recipe.model.name, num_classes=8, image_size=24, **recipe.model.overrides())


def as_table(model: ViT) -> ViT:
    """Bake the priors of a model with SP-SA into tables: the same answers on its own grid, other ones elsewhere."""
    torch.manual_seed(0)  # of numbers that are all replaced
    config = model.config
    options = {name: getattr(config, name) for name in ("dim", "depth", "heads", "patch", "positions")}
    options |= {"num_classes": config.num_classes, "image_size": config.image_size, "attention": "table/multiplicative"}
    baked = create_model("vit_mini", **options)
    state = {name: value for name, value in model.state_dict().items() if ".spatial." not in name}
    for block, attention in enumerate(model.attentions()):
        assert isinstance(attention.spatial, PriorMLP)
        state[f"blocks.{block}.attention.spatial.values"] = attention.spatial.table(model.grid).detach()
    baked.load_state_dict(state)
    return baked.eval()


def explained(model: ViT, fresh: ViT, images: Tensor, *, seed: int) -> dict[str, Tensor]:
    """Make the maps of all kinds, (B, R, C) each."""
    grid = patch_grid(images.shape[-2:], model.config.patch)
    return {
        "rollout": attention_rollout(model, images),
        "relevance": class_relevance(model, images),
        "contrast": contrast(images, grid),
        "random": random_maps(len(images), grid, seed=seed),
        "untrained_rollout": attention_rollout(fresh, images),
        "untrained_relevance": class_relevance(fresh, images),
    }


def score(model: ViT, fresh: ViT, *, seed: int, count: int = SCENES, follow: int = FOLLOW) -> dict[str, float]:
    """Hold maps of all kinds against lighthouse and ship, and some against the model: a row of looking.csv."""
    made = scenes(count, seed)
    places, others = torch.stack([made.lighthouse, made.ship], dim=1), decoys(made.images, model.grid)
    row = {}
    for kind, maps in explained(model, fresh, made.images, seed=seed).items():
        lighthouse, ship = ranks(maps, places).double().mean(0).tolist()
        row |= {f"hit_{kind}": hits(maps, places, top=2).mean().item(), f"lighthouse_{kind}": lighthouse, f"ship_{kind}": ship}
        row[f"decoys_{kind}"] = hits(maps, others, top=2).mean().item() * others.shape[1] / 2
        if kind in FOLLOWED:
            some = made.images[:follow], maps[:follow]
            row[f"deletion_{kind}"] = area(deletion(model, *some)).mean().item()
            row[f"insertion_{kind}"] = area(insertion(model, *some)).mean().item()
    return row


@torch.no_grad()
def heads(model: ViT, *, seed: int, count: int = FOLLOW) -> list[dict[str, float]]:
    """Measure how far each head looks and how the heads of a layer share the patches: rows of looking_heads.csv."""
    rows = []
    for layer, weights in enumerate(model.attention_maps(scenes(count, seed).images)):
        shared = {name: value.mean().item() for name, value in complement(weights, model.grid)._asdict().items()}
        for head, distance in enumerate(nonlocality(weights, model.grid).mean(0).tolist()):
            rows.append({"layer": layer, "head": head, "nonlocality": distance} | shared)
    return rows


@torch.no_grad()
def top1(model: ViT, made: Compass) -> float:
    """Tell how many of the images are classified as labelled, in percent."""
    right = sum(
        (model(images).argmax(-1) == labels).sum().item()
        for images, labels in zip(made.images.split(100), made.labels.split(100), strict=True)
    )
    return 100 * right / len(made)


def elsewhere(model: ViT, *, seed: int, count: int = ELSEWHERE) -> list[dict[str, float]]:
    """Score a model as it stands on other grids, and with a ship farther away: rows of resolution.csv."""
    return [
        dict(zip(("rows", "cols", "reach"), size, strict=True)) | {"val_top1": top1(model, scenes(count, seed, *size))}
        for size in SIZES
    ]


def fine_tune(model: ViT, *, seed: int, images: int = TUNING_IMAGES, count: int = ELSEWHERE) -> list[dict[str, float]]:
    """Go on training a copy of a model on a larger grid, at a rate that falls to 0: rows of fine_tuned.csv."""
    model, steps = deepcopy(model).train(), TUNING_STEPS[-1]
    made, held = scenes(images, seed, *LARGER, part="fine-tuning"), scenes(count, seed, *LARGER)
    optimiser = torch.optim.AdamW(model.parameters(), lr=TUNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, steps)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for step in range(steps + 1):
        if step in TUNING_STEPS:
            rows.append({"step": step, "val_top1": top1(model.eval(), held)})
            model.train()
        if step == steps:
            break
        batch = torch.randint(images, (TUNING_BATCH,), generator=generator)
        optimiser.zero_grad()
        cross_entropy(model(made.images[batch]), made.labels[batch]).backward()
        optimiser.step()
        schedule.step()
    return rows


def look(study: Study, arm: str, seed: int) -> dict[str, list[dict]]:
    """Make a run and all that is asked of it: rows by the name of their file."""
    recipe = study.recipe(arm, seed)
    result = train(recipe, progress=False)
    model, last = result.model.eval(), {"val_top1": result.rows[-1]["val_top1"]}
    found = {
        "looking": [last | score(model, untrained(recipe).eval(), seed=seed)],
        "looking_heads": heads(model, seed=seed),
        "resolution": elsewhere(model, seed=seed),
        "fine_tuned": fine_tune(model, seed=seed),
    }
    rows = {name: [{"arm": arm, "seed": seed} | row for row in part] for name, part in found.items()}
    if arm == "spsa":
        baked = as_table(model)
        for name, ask in (("resolution", elsewhere), ("fine_tuned", fine_tune)):
            rows[name] += [{"arm": arm + AS_TABLE, "seed": seed} | row for row in ask(baked, seed=seed)]
    return rows


def write(name: str, rows: list[dict], folder: Path = RESULTS) -> Path:
    """Write rows to NAME.csv in a folder, by one rename."""
    short = [{k: six_digits(v) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    return write_rows(folder / f"{name}.csv", short)


def run(key: tuple[str, int]) -> dict[str, list[dict]]:
    """Make the run of an arm and a seed, on one thread: digits depend on their number."""
    torch.set_num_threads(1)
    rows = look(LOOKING, *key)
    (row,) = rows["looking"]
    print(f"{key[0]}, seed {key[1]}: {row['val_top1']:.1f} %, rollout finds {row['hit_rollout']:.2f}", flush=True)
    return rows


def main(argv: list[str] | None = None) -> int:
    """Make all runs, in as many processes as the command line says; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if len(argv) > 1 or not "".join(argv or "1").isdigit():
        raise UserError("python -m spvit_experiments explanations [PROCESSES]: at most one integer, the processes side by side")
    processes = int(argv[0]) if argv else 1
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        parts = pool.map(run, LOOKING.runs(), chunksize=1)
    arms = list(LOOKING.arms)
    for name in parts[0]:
        rows = [row for part in parts for row in part[name]]
        rows.sort(key=lambda row: (arms.index(row["arm"].removesuffix(AS_TABLE)), row["arm"], row["seed"]))
        print(write(name, rows))
    return 0


if __name__ == "__main__":
    run_program(main)
