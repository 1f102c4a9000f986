"""What a layer with a spatial map costs beside plain attention, over the size of the grid; and models, beside one another.

    python -m spvit_experiments speed

makes data/results/speed.csv anew, in some minutes, on the CPU and in float32. `read_speed` reads it. Steps of all sides are
interleaved, and a ratio is taken within each round, so that a busy machine slows both alike: ratios can be compared with
those of another machine, milliseconds can't.
"""

import csv
import platform
from pathlib import Path

import torch
from torch import Tensor, nn

from spvit_mini.attention import GPSA, MHSA, SPSA, RelativeBias
from spvit_mini.cli.program import run_program, take_no_arguments
from spvit_mini.errors import UserError
from spvit_mini.flops import attention_cost, multiply_adds
from spvit_mini.geometry import Grid
from spvit_mini.training.devices import training_flops
from spvit_mini.zoo import create_model

from .benchmark.attention import training_step
from .benchmark.baselines import AllPairs
from .benchmark.timing import interleaved, spread_of
from .records import RESULTS, six_digits, write_rows

GRIDS = ((7, 7), (10, 10), (14, 14), (20, 20))
LAYER = {"dim": 384, "heads": 6}  # as in ViT-S and SP-ViT-S
HIDDEN = 64  # of the prior, as released
MODELS = ("vit_mini", "rpb_mini", "psa_mini", "convit_mini", "spvit_mini", "anchored_mini")
BATCH = {"layer": 8, "model": 8}
ROUNDS, WARM_UP = 9, 1
COLUMNS = ("kind", "name", "rows", "columns", "batch", "ratio", "ratio_low", "ratio_high", "ms", "ms_low", "ms_high")
COLUMNS += ("kept_bytes", "multiply_adds", "rounds", "dtype", "device", "threads", "torch")
TEXT = ("kind", "name", "dtype", "device", "torch")


class WrittenOut(MHSA):
    """Plain attention without the fused kernel: scores, softmax and weights stand in memory."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        return self.mix(self.weights(q, k, grid), v)


def layers(grid: Grid) -> dict[str, MHSA]:
    """Build the layers that are compared on a grid; the first is what the others are set against."""
    dim, heads = LAYER.values()
    return {
        "MHSA": MHSA(dim, heads),
        "MHSA, written out": WrittenOut(dim, heads),
        "added table": RelativeBias(dim, heads, grid),
        "GPSA": GPSA(dim, heads),
        "SPSA": SPSA(dim, heads, HIDDEN),
        "SPSA, all pairs": AllPairs(dim, heads, HIDDEN),
    }


def bytes_kept(layer: nn.Module, *inputs) -> int:
    """Count what a forward pass keeps for the backward pass, in bytes; parameters, which are there anyway, left out.

    Counted exactly, by asking autograd: each stretch of memory once, whatever views of it are kept.
    """
    there = {parameter.untyped_storage().data_ptr() for parameter in layer.parameters()}
    kept: dict[int, Tensor] = {}  # holds them, so that no address is used twice

    def note(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()  # else a result that is kept would hold its graph, and the graph it: for good
        place = tensor.untyped_storage().data_ptr()
        if place not in there:
            kept[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = layer(*inputs)
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del result
    return total


def model_step(model: nn.Module, images: Tensor, labels: Tensor):
    """Make a step of a model: forward and backward, without the optimiser's."""

    def step() -> None:
        model.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()

    return step


def rows_of(kind: str, grid: Grid, seconds: dict[str, list[float]], more: dict[str, dict]) -> list[dict]:
    """Make the rows of sides that were timed together; ratios are to the first of them, round by round."""
    base, rows = next(iter(seconds.values())), []
    for name, times in seconds.items():
        ratios = spread_of([mine / first for mine, first in zip(times, base, strict=True)])
        both = [six_digits(value) for value in (*ratios, *(1e3 * time for time in spread_of(times)))]
        facts = (kind, name, *grid, BATCH[kind], *both)
        there = ("float32", platform.machine(), torch.get_num_threads(), torch.__version__)
        cost = more[name]
        values = (*facts, cost.get("kept_bytes", ""), cost["multiply_adds"], len(times), *there)
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def time_layers(grid: Grid, *, rounds: int = ROUNDS) -> list[dict]:
    """Time one layer of each kind, forward and backward, on a grid."""
    torch.manual_seed(0)
    tokens, sides = grid[0] * grid[1], layers(grid)
    x = torch.randn(BATCH["layer"], tokens, LAYER["dim"], requires_grad=True)
    more = {}
    for name, layer in sides.items():
        cost = attention_cost(layer, asking=tokens, seen=tokens, grid=grid)
        if isinstance(layer, AllPairs):  # the same equation, its map made on all pairs
            cost["map"] = (layer.spatial.w1.numel() + layer.spatial.w2.numel() + layer.heads) * tokens**2
        more[name] = {"kept_bytes": bytes_kept(layer, x, grid), "multiply_adds": sum(cost.values())}
    steps = {name: training_step(layer, x, grid) for name, layer in sides.items()}
    return rows_of("layer", grid, interleaved(steps, rounds=rounds, warm_up=WARM_UP), more)


def time_models(*, rounds: int = ROUNDS) -> list[dict]:
    """Time a step of each mini, and beside them a product of matrices: what the machine does at best, or nearly."""
    torch.manual_seed(0)
    images, labels = torch.randn(BATCH["model"], 3, 32, 32), torch.randint(10, (BATCH["model"],))
    models = {name: create_model(name, num_classes=10) for name in MODELS}
    steps = {name: model_step(model, images, labels) for name, model in models.items()}
    more = {name: {"multiply_adds": multiply_adds(model)["total"]} for name, model in models.items()}
    a, b = torch.randn(2, 1024, 1024)
    steps["matmul"] = lambda: torch.mm(a, b)
    more["matmul"] = {"multiply_adds": 1024**3}
    rows = rows_of("model", models[MODELS[0]].grid, interleaved(steps, rounds=rounds, warm_up=WARM_UP), more)
    rows[-1] |= {"kind": "matmul", "rows": "", "columns": "", "batch": ""}
    return rows


def utilisation(rows: list[dict]) -> dict[str, tuple[float, float]]:
    """Give each model's images a second, and the percent that its arithmetic makes of what the product of matrices did.

    That is MFU with a measured peak in place of the maker's. The percent comes from ratios within rounds.
    """
    (product,) = (row for row in rows if row["kind"] == "matmul")
    found = {}
    for row in (row for row in rows if row["kind"] == "model"):
        operations = row["batch"] * training_flops(row["multiply_adds"]) / (2 * product["multiply_adds"])
        percent = 100 * operations * product["ratio"] / row["ratio"]
        found[row["name"]] = row["batch"] / (row["ms"] / 1e3), percent
    return found


def read_speed(folder: Path = RESULTS) -> list[dict]:
    """Read speed.csv: a dictionary a row, numbers as numbers, "" as None. Raises UserError if it is not there."""
    path = folder / "speed.csv"
    if not path.is_file():
        raise UserError(f"there are no records {path}; python -m spvit_experiments speed makes them")
    with path.open(newline="", encoding="utf-8") as file:
        return [{column: number(column, text) for column, text in row.items()} for row in csv.DictReader(file)]


def number(column: str, text: str):
    """Read one value of speed.csv."""
    if column in TEXT:
        return text
    if text == "":
        return None
    return float(text) if column.startswith(("ms", "ratio")) else int(text)


def write(rows: list[dict], folder: Path = RESULTS) -> Path:
    """Write the rows to speed.csv in a folder, by one rename."""
    return write_rows(folder / "speed.csv", rows)


def main(argv: list[str] | None = None) -> int:
    """Time all layers on all grids, then the models; returns the exit status."""
    take_no_arguments(__doc__, argv)
    torch.set_num_threads(1)
    rows = []
    for grid in GRIDS:
        rows += time_layers(grid)
        print(grid, ", ".join(f"{row['name']} {row['ratio']}" for row in rows[-6:]), flush=True)
    rows += time_models()
    print(write(rows))
    return 0


if __name__ == "__main__":
    run_program(main)
