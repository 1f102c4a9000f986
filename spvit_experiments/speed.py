"""Time and memory of layers with a spatial map beside plain attention over the size of the grid, and of the minis.

    python -m spvit_experiments speed                       make runs/speed/speed.csv, in some minutes
    python -m spvit_experiments speed --out data/results    replace the records, which `read_speed` reads

On the CPU and in float32. Steps of all sides take turns,
and ratios are computed within each round, so that other work on the machine affects all sides alike. Ratios can be compared
with those of other machines, milliseconds can't.
"""

import csv
import platform
from pathlib import Path

import torch
from torch import Tensor, nn

from spvit_mini.attention import GPSA, MHSA, SPSA, RelativeBias
from spvit_mini.errors import UserError
from spvit_mini.flops import multiply_adds
from spvit_mini.geometry import Grid
from spvit_mini.training.devices import training_flops
from spvit_mini.zoo import create_model

from .benchmark.attention import count_multiply_adds, make_training_step
from .benchmark.baselines import AllPairs, build_eager
from .benchmark.timing import compute_quartiles, time_in_turns
from .records import RESULTS, parse_out, six_digits, write_rows

GRIDS = ((7, 7), (10, 10), (14, 14), (20, 20))
LAYER = {"dim": 384, "heads": 6}  # as in ViT-S and SP-ViT-S
HIDDEN = 64  # hidden width of the prior, as in the released models
MODELS = ("vit_mini", "rpb_mini", "psa_mini", "convit_mini", "spvit_mini", "anchored_mini")
BATCH = {"layer": 8, "model": 8}
ROUNDS, WARM_UP = 9, 1
COLUMNS = ("kind", "name", "rows", "columns", "batch", "ratio", "ratio_low", "ratio_high", "ms", "ms_low", "ms_high")
COLUMNS += ("kept_bytes", "multiply_adds", "rounds", "dtype", "device", "threads", "torch")
TEXT = ("kind", "name", "dtype", "device", "torch")


def build_layers(grid: Grid) -> dict[str, MHSA]:
    """Build the layers of the comparison on a grid, the reference first."""
    dim, heads = LAYER.values()
    return {
        "MHSA": MHSA(dim, heads),
        "MHSA, written out": build_eager(MHSA(dim, heads)),
        "added table": RelativeBias(dim, heads, grid),
        "GPSA": GPSA(dim, heads),
        "SPSA": SPSA(dim, heads, HIDDEN),
        "SPSA, all pairs": AllPairs(dim, heads, HIDDEN),
    }


def count_saved_bytes(layer: nn.Module, *inputs) -> int:
    """Count the bytes that a forward pass saves for the backward pass, without parameters.

    Exact, from autograd's saved tensors: each storage counts once, however many views of it are saved.
    """
    parameters = {parameter.untyped_storage().data_ptr() for parameter in layer.parameters()}
    saved: dict[int, Tensor] = {}  # holds the tensors, so that no address is used twice

    def save(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()  # otherwise a saved result and its graph would hold each other for good
        address = tensor.untyped_storage().data_ptr()
        if address not in parameters:
            saved[address] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        result = layer(*inputs)
    total = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    del result
    return total


def make_model_step(model: nn.Module, images: Tensor, labels: Tensor):
    """Make a step of a model: forward and backward pass, without the optimiser."""

    def step() -> None:
        model.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()

    return step


def make_rows(kind: str, grid: Grid, seconds: dict[str, list[float]], costs: dict[str, dict]) -> list[dict]:
    """Make the rows of sides that were timed together; ratios are to the first side, within each round."""
    first, rows = next(iter(seconds.values())), []
    machine = ("float32", platform.machine(), torch.get_num_threads(), torch.__version__)
    for name, times in seconds.items():
        ratios = compute_quartiles([own / reference for own, reference in zip(times, first, strict=True)])
        milliseconds = [1e3 * time for time in compute_quartiles(times)]
        cost = (costs[name].get("kept_bytes", ""), costs[name]["multiply_adds"])
        values = (kind, name, *grid, BATCH[kind], *map(six_digits, (*ratios, *milliseconds)), *cost, len(times), *machine)
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def time_layers(grid: Grid, *, rounds: int = ROUNDS) -> list[dict]:
    """Time a layer of each kind, forward and backward, on a grid."""
    torch.manual_seed(0)
    sides = build_layers(grid)
    x = torch.randn(BATCH["layer"], grid[0] * grid[1], LAYER["dim"], requires_grad=True)
    costs = {}
    for name, layer in sides.items():
        costs[name] = {"kept_bytes": count_saved_bytes(layer, x, grid), "multiply_adds": count_multiply_adds(layer, layer, grid)}
    steps = {name: make_training_step(layer, x, grid) for name, layer in sides.items()}
    return make_rows("layer", grid, time_in_turns(steps, rounds=rounds, warm_up=WARM_UP), costs)


def time_models(*, rounds: int = ROUNDS) -> list[dict]:
    """Time a step of each mini, and a product of matrices, which is near the machine's peak."""
    torch.manual_seed(0)
    images, labels = torch.randn(BATCH["model"], 3, 32, 32), torch.randint(10, (BATCH["model"],))
    models = {name: create_model(name, num_classes=10) for name in MODELS}
    steps = {name: make_model_step(model, images, labels) for name, model in models.items()}
    costs = {name: {"multiply_adds": multiply_adds(model)["total"]} for name, model in models.items()}
    a, b = torch.randn(2, 1024, 1024)
    steps["matmul"] = lambda: torch.mm(a, b)
    costs["matmul"] = {"multiply_adds": 1024**3}
    rows = make_rows("model", models[MODELS[0]].grid, time_in_turns(steps, rounds=rounds, warm_up=WARM_UP), costs)
    rows[-1] |= {"kind": "matmul", "rows": "", "columns": "", "batch": ""}
    return rows


def compute_utilisation(rows: list[dict]) -> dict[str, tuple[float, float]]:
    """Compute each model's images/s, and its MFU in percent with the product of matrices as the peak, from ratios."""
    (product,) = (row for row in rows if row["kind"] == "matmul")
    utilisation = {}
    for row in (row for row in rows if row["kind"] == "model"):
        operations = row["batch"] * training_flops(row["multiply_adds"]) / (2 * product["multiply_adds"])
        percent = 100 * operations * product["ratio"] / row["ratio"]
        utilisation[row["name"]] = row["batch"] / (row["ms"] / 1e3), percent
    return utilisation


def read_speed(folder: Path = RESULTS) -> list[dict]:
    """Read speed.csv, a dictionary per row; empty values are None. Raises UserError if the file is missing."""
    path = folder / "speed.csv"
    if not path.is_file():
        raise UserError(f"the file of records {path} is missing. Make it with python -m spvit_experiments speed --out {folder}.")
    with path.open(newline="", encoding="utf-8-sig") as file:
        return [{column: _parse(column, text) for column, text in row.items()} for row in csv.DictReader(file)]


def _parse(column: str, text: str):
    if column in TEXT:
        return text
    if text == "":
        return None
    return float(text) if column.startswith(("ms", "ratio")) else int(text)


def main(argv: list[str] | None = None) -> int:
    """Time all layers on all grids, then the models; returns the exit status."""
    folder = parse_out("speed", __doc__, argv)
    torch.set_num_threads(1)
    rows = []
    for grid in GRIDS:
        rows += time_layers(grid)
        print(grid, ", ".join(f"{row['name']} {row['ratio']}" for row in rows[-6:]), flush=True)
    rows += time_models()
    print(write_rows(folder / "speed.csv", rows))
    return 0
