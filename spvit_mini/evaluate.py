"""Score trained weights on the whole validation part.

    python -m spvit_mini.evaluate runs/spvit_mini_compass                      the best weights of a run
    python -m spvit_mini.evaluate best.safetensors --data.root /where/it/is    a weights file, wherever it lies

Model, preprocessing and data come from the file's own metadata; options change the data.
"""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from torch.utils.data import DataLoader

from .data import DataOptions, load_data
from .errors import UserError, run_program
from .training.commandline import parse
from .training.loop import choose_device
from .training.metrics import Counts, evaluate
from .training.recipe import Recipe
from .zoo import load_weights, model_from_weights

PROGRAM = "python -m spvit_mini.evaluate"


@dataclass(frozen=True)
class Arguments:
    """Which data, and how to go through them."""

    data: DataOptions
    batch: int = 100
    """Images that are scored at once."""
    device: str = "auto"
    """Where to compute: auto (CUDA if there, else MPS, else CPU), cpu, cuda, cuda:1, mps."""


def main(argv: list[str] | None = None) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("--help", "-h"):
        print(__doc__.strip())
        return 0
    if argv[0].startswith("-"):
        raise UserError(f"the run folder or weights file comes first: {PROGRAM} RUN_OR_WEIGHTS {' '.join(argv)[:60]}")
    path = weights_file(Path(argv[0]))
    metadata = load_weights(path)[1]
    trained = Recipe.from_json(metadata["recipe"], source=str(path)) if "recipe" in metadata else Recipe()
    default = Arguments(data=trained.data, batch=trained.batch, device=trained.device)
    arguments = parse(argv[1:], default=default, prog=f"{PROGRAM} {argv[0]}", description=f"Score {path}.")
    if "recipe" not in metadata and "--data.name" not in " ".join(argv):
        raise UserError(f"{path} does not say which data it was trained on; name them: --data.name NAME")

    model = model_from_weights(path)
    options = arguments.data
    data = load_data(options, seed=trained.seed, train=False, preprocessing=model.preprocessing)
    classes = json.loads(metadata["classes"]) if "classes" in metadata else list(data.classes)
    if classes != list(data.classes) or len(classes) != model.config.num_classes:
        raise UserError(
            f"{path} tells {model.config.num_classes} classes apart ({', '.join(classes[:3])}, …), but {data.name} has "
            f"{len(data.classes)} ({', '.join(data.classes[:3])}, …); name the data it was trained for with --data.name"
        )
    device, precision = choose_device(replace(trained, device=arguments.device))
    print(
        f"{path}: {model.name}, {metadata.get('weights', 'raw')} weights of step {metadata.get('step', '?')}\n"
        f"{data.name}: {len(data.val):,} validation images of {'×'.join(map(str, data.preprocessing.image_size))} px, "
        f"{len(classes)} classes",
        flush=True,
    )
    loader = DataLoader(data.val, batch_size=arguments.batch, num_workers=options.workers)
    print(report(evaluate(model.to(device), loader, device=device, precision=precision), len(classes)))
    return 0


def weights_file(path: Path) -> Path:
    """Find the weights that a user means by a run folder or a file."""
    if not path.exists():
        raise UserError(f"there is no run folder or weights file {path}")
    if not path.is_dir():
        return path
    if not (path / "best.safetensors").is_file():
        raise UserError(f"{path} holds no best.safetensors; a run writes it at its first evaluation")
    return path / "best.safetensors"


def report(scores: Counts, classes: int) -> str:
    """Say the scores, with the counts behind them."""
    lines = [f"top-1  {scores.top1:.2f} %  ({int(scores.right):,} of {scores.images:,})"]
    if classes > 5:
        lines.append(f"top-5  {scores.top5:.2f} %  ({int(scores.right5):,} of {scores.images:,})")
    return "\n".join([*lines, f"loss   {scores.loss:.4f}"])


if __name__ == "__main__":
    run_program(main)
