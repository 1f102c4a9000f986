"""The questions of evidence.py at a size that asks for an accelerator: longer training, more photographs, larger minis.

Three seeds; each arm's learning rate is tuned as there. None of them has to be made in one piece, for instance nine
minutes at a time, four runs beside one another:

    python -m spvit_experiments study large_cifar10-tuning --root FOLDER --max-minutes 9 --parallel 4
    python -m spvit_experiments study large_cifar10 --root FOLDER --max-minutes 9 --parallel 4

`docs/results.md` says which of them are recorded.
"""

from .core_studies import photo_arms, variants
from .design import Study

SEEDS = (0, 1, 2)


def large(data: str, question: str, *, level: float, **changes: object) -> Study:
    """Compare attentions on one set of photographs by the recipes as they stand, but for `changes`."""
    return variants(
        data,
        question,
        photo_arms(data),
        name=f"large_{data}",
        seeds=SEEDS,
        changes=changes,
        tuning={"optim.lr": (5e-4, 1e-3, 2e-3)},
        level=level,
    )


LARGE = (
    large(
        "cifar10",
        "All 50,000 photographs of CIFAR-10, a hundred epochs: does a learned prior beat the plain local start?",
        level=90.0,
        duration="100 epochs",
        **{"optim.warmup": "5 epochs", "evaluate_every": "5 epochs"},
    ),
    # A tree of 75 images a class.
    large(
        "tiny_imagenet",
        "Two hundred classes of 64-pixel photographs: each family of attentions.",
        level=20.0,
        **{"data.name": "tiny-imagenet-200-subset", "evaluate_every": "10 epochs"},
    ),
    large(
        "imagenette",
        "Ten classes of ImageNet at 224 pixels, on a grid of 14 × 14: each family of attentions.",
        level=60.0,
        **{"data.name": "imagenette-224"},
    ),
)
