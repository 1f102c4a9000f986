"""The questions of core_studies.py at a size that needs an accelerator: longer training, more images, larger minis.

Three seeds; each arm's learning rate is tuned. A study can be made in pieces, for example nine minutes at a time with four
runs in parallel:

    python -m spvit_experiments study large_cifar10-tuning --root FOLDER --max-minutes 9 --parallel 4
    python -m spvit_experiments study large_cifar10 --root FOLDER --max-minutes 9 --parallel 4

`docs/results.md` lists the studies that have records.
"""

from .core_studies import photo_arms, variants
from .study import Study

SEEDS = (0, 1, 2)


def large(data: str, question: str, *, level: float, **changes: object) -> Study:
    """Compare attentions on one dataset of natural images by its recipes, with `changes`."""
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


LARGE_STUDIES = (
    large(
        "cifar10",
        "All 50,000 photographs of CIFAR-10, a hundred epochs: does a learned prior beat the plain local start?",
        level=90.0,
        duration="100 epochs",
        **{"optim.warmup": "5 epochs", "evaluate_every": "5 epochs"},
    ),
    # An ImageFolder directory with 75 images per class.
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
