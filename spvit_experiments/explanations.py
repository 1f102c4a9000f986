"""What trained models attend to on Compass, where the relevant patches are known, and their accuracy on other grids.

    python -m spvit_experiments explanations [PROCESSES]                       make four files in runs/explanations
    python -m spvit_experiments explanations [PROCESSES] --out data/results    replace the records, which `read_records` reads

    looking.csv         a row per run: accuracy; for each kind of map (`KINDS`) the fraction of lighthouse and ship among its two
                        highest patches, the mean rank of both, and the fraction of decoys; for `FAITHFULNESS_KINDS` the
                        areas under the curves of deletion and insertion
    looking_heads.csv   a row per run, layer and head: nonlocality, and how the foci of the layer's heads overlap
    resolution.csv      a row per run, grid and reach: the accuracy of the same weights there
    fine_tuned.csv      a row per run and number of fine-tuning steps on a grid of twice the sides: the accuracy there
"""

import multiprocessing
import sys
from copy import deepcopy

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

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

from .records import parse_out, write_rows
from .study import Arm, Study

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
# Numbers of images: for hits, for deletion and insertion, and for each of `SIZES`.
HIT_IMAGES, FAITHFULNESS_IMAGES, GRID_IMAGES = 400, 64, 200
KINDS = ("rollout", "relevance", "contrast", "random", "untrained_rollout", "untrained_relevance")
FAITHFULNESS_KINDS = KINDS[:4]
# Rows, columns, and the greatest distance of the ship: as in training, more patches, a rectangle, twice and three times the
# sides, and a greater distance than in training.
SIZES = ((6, 6, 3), (8, 8, 3), (6, 10, 3), (12, 12, 3), (18, 18, 3), (12, 12, 8))
# Fine-tuning: grid and reach, images, evaluated steps, batch size and learning rate, the same for all arms.
LARGER, TUNING_IMAGES, TUNING_STEPS, TUNING_BATCH, TUNING_RATE = (12, 12, 3), 1000, (0, 20, 40, 80), 50, 1e-3
AS_TABLE = "-as-table"  # suffix of an arm whose prior is baked into a table, which is resized on other grids


def scenes(count: int, seed: int, rows: int = 6, cols: int = 6, reach: int = 3, *, part: str = "looking") -> Compass:
    """Make images that no run has seen in training or validation."""
    return Compass(count, seed=seed, split=part, rows=rows, cols=cols, reach=reach)


def find_decoys(images: Tensor, grid: Grid, count: int = 3) -> Tensor:
    """Find the positions of the decoys, (B, count, 2): the bluest patches, because the dataset does not store them."""
    blue = images[:, BLUE].unflatten(2, (grid[1], -1)).unflatten(1, (grid[0], -1)).mean((2, 4))
    best = blue.flatten(1).topk(count).indices
    return torch.stack([best // grid[1], best % grid[1]], dim=-1)


def build_initial_model(recipe: Recipe) -> ViT:
    """Build the model of a recipe with its initial weights."""
    torch.manual_seed(recipe.seed)
    return create_model(recipe.model.name, num_classes=8, image_size=24, **recipe.model.overrides())


def bake_priors(model: ViT) -> ViT:
    """Replace the priors of a model with SP-SA by tables: the same outputs on its own grid, different ones on other grids."""
    torch.manual_seed(0)  # all random numbers are replaced below
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


def make_maps(model: ViT, initial: ViT, images: Tensor, *, seed: int) -> dict[str, Tensor]:
    """Make the maps of all kinds, (B, R, C) each."""
    grid = patch_grid(images.shape[-2:], model.config.patch)
    return {
        "rollout": attention_rollout(model, images),
        "relevance": class_relevance(model, images),
        "contrast": contrast(images, grid),
        "random": random_maps(len(images), grid, seed=seed),
        "untrained_rollout": attention_rollout(initial, images),
        "untrained_relevance": class_relevance(initial, images),
    }


def score_maps(
    model: ViT, initial: ViT, *, seed: int, images: int = HIT_IMAGES, faithfulness_images: int = FAITHFULNESS_IMAGES
) -> dict[str, float]:
    """Score maps of all kinds by lighthouse and ship, and some by their faithfulness to the model: a row of looking.csv."""
    data = scenes(images, seed)
    targets, decoys = torch.stack([data.lighthouse, data.ship], dim=1), find_decoys(data.images, model.grid)
    row = {}
    for kind, maps in make_maps(model, initial, data.images, seed=seed).items():
        lighthouse, ship = ranks(maps, targets).double().mean(0).tolist()
        row |= {f"hit_{kind}": hits(maps, targets, top=2).mean().item(), f"lighthouse_{kind}": lighthouse, f"ship_{kind}": ship}
        row[f"decoys_{kind}"] = hits(maps, decoys, top=2).mean().item() * decoys.shape[1] / 2
        if kind in FAITHFULNESS_KINDS:
            subset = data.images[:faithfulness_images], maps[:faithfulness_images]
            row[f"deletion_{kind}"] = area(deletion(model, *subset)).mean().item()
            row[f"insertion_{kind}"] = area(insertion(model, *subset)).mean().item()
    return row


@torch.no_grad()
def measure_heads(model: ViT, *, seed: int, images: int = FAITHFULNESS_IMAGES) -> list[dict[str, float]]:
    """Measure the nonlocality of each head and the overlap of the foci in each layer: rows of looking_heads.csv."""
    rows = []
    for layer, weights in enumerate(model.attention_maps(scenes(images, seed).images)):
        overlap = {name: value.mean().item() for name, value in complement(weights, model.grid)._asdict().items()}
        for head, distance in enumerate(nonlocality(weights, model.grid).mean(0).tolist()):
            rows.append({"layer": layer, "head": head, "nonlocality": distance} | overlap)
    return rows


@torch.no_grad()
def top1(model: ViT, data: Compass) -> float:
    """Compute the accuracy of a model in percent."""
    correct = sum(
        (model(images).argmax(-1) == labels).sum().item()
        for images, labels in zip(data.images.split(100), data.labels.split(100), strict=True)
    )
    return 100 * correct / len(data)


def score_grids(model: ViT, *, seed: int, images: int = GRID_IMAGES) -> list[dict[str, float]]:
    """Compute the accuracy on other grids, without training, and with a more distant ship: rows of resolution.csv."""
    return [
        dict(zip(("rows", "cols", "reach"), size, strict=True)) | {"val_top1": top1(model, scenes(images, seed, *size))}
        for size in SIZES
    ]


def fine_tune(
    model: ViT, *, seed: int, train_images: int = TUNING_IMAGES, images: int = GRID_IMAGES
) -> list[dict[str, float]]:
    """Fine-tune a copy of a model on a larger grid, with a learning rate that falls to 0: rows of fine_tuned.csv."""
    model, steps = deepcopy(model).train(), TUNING_STEPS[-1]
    data, val = scenes(train_images, seed, *LARGER, part="fine-tuning"), scenes(images, seed, *LARGER)
    optimiser = torch.optim.AdamW(model.parameters(), lr=TUNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, steps)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for step in range(steps + 1):
        if step in TUNING_STEPS:
            rows.append({"step": step, "val_top1": top1(model.eval(), val)})
            model.train()
        if step == steps:
            break
        batch = torch.randint(train_images, (TUNING_BATCH,), generator=generator)
        optimiser.zero_grad()
        cross_entropy(model(data.images[batch]), data.labels[batch]).backward()
        optimiser.step()
        schedule.step()
    return rows


def measure_run(study: Study, arm: str, seed: int) -> dict[str, list[dict]]:
    """Train a run and make its rows, by the name of their file."""
    recipe = study.recipe(arm, seed)
    result = train(recipe, progress=False)
    model, accuracy = result.model.eval(), {"val_top1": result.rows[-1]["val_top1"]}
    measurements = {
        "looking": [accuracy | score_maps(model, build_initial_model(recipe).eval(), seed=seed)],
        "looking_heads": measure_heads(model, seed=seed),
        "resolution": score_grids(model, seed=seed),
        "fine_tuned": fine_tune(model, seed=seed),
    }
    rows = {name: [{"arm": arm, "seed": seed} | row for row in part] for name, part in measurements.items()}
    if arm == "spsa":
        baked = bake_priors(model)
        for name, measure in (("resolution", score_grids), ("fine_tuned", fine_tune)):
            rows[name] += [{"arm": arm + AS_TABLE, "seed": seed} | row for row in measure(baked, seed=seed)]
    return rows


def run_process(key: tuple[str, int]) -> dict[str, list[dict]]:
    """Make the rows of an arm and a seed, in a process with one thread, because the last digits depend on the number."""
    torch.set_num_threads(1)
    rows = measure_run(LOOKING, *key)
    (row,) = rows["looking"]
    print(f"{key[0]}, seed {key[1]}: {row['val_top1']:.1f} %, rollout finds {row['hit_rollout']:.2f}", flush=True)
    return rows


def main(argv: list[str] | None = None) -> int:
    """Make all runs, in the number of parallel processes on the command line (default 1); returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    processes, argv = (argv[0], argv[1:]) if argv and argv[0][:1] != "-" else ("1", argv)
    folder = parse_out("explanations", __doc__, argv)
    if not processes.isdecimal() or not 1 <= int(processes) <= 256:
        raise UserError(f"the number of processes is {processes}; expected an integer from 1 to 256, or nothing for 1")
    with multiprocessing.get_context("spawn").Pool(int(processes)) as pool:
        parts = pool.map(run_process, LOOKING.runs(), chunksize=1)
    arms = list(LOOKING.arms)
    for name in parts[0]:
        rows = [row for part in parts for row in part[name]]
        rows.sort(key=lambda row: (arms.index(row["arm"].removesuffix(AS_TABLE)), row["arm"], row["seed"]))
        print(write_rows(folder / f"{name}.csv", rows))
    return 0
