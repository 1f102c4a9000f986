"""Recipes on synthetic images: Compass, Textures, Rings. They need no files, and a minute of one CPU core each."""

from dataclasses import replace

from ..data.options import DataOptions
from .options import ModelOptions, OptimOptions
from .recipe import Recipe


def compass(model: str) -> Recipe:
    """Compass: which way is the ship? Eight directions on 8×8 patches, 2,000 training images.

    Command: python -m spvit_mini train spvit_mini_compass
    Cost: about a minute of one CPU core (143,000 parameters, 240 steps)
    Measured: spvit_mini 100 and 90 % (seeds 0 and 1; with --optim.lr 4e-3 99.2, 99.8, 99.8 % on seeds 0 to 2);
        vit_mini 13.8 % (seed 0; with --optim.lr 4e-3 13.1 %); chance is 12.5 %
    """
    return Recipe(
        model=ModelOptions(model, depth=4, dim=64, heads=4),
        data=DataOptions(name="compass"),
        optim=OptimOptions(lr=2e-3, final_lr=1e-5, warmup="24 steps", weight_decay=0.05),
        duration="240 steps", batch_size=100, evaluate_every="40 steps", save_every="40 steps",
    )  # fmt: skip


def compass6(model: str) -> Recipe:
    """Compass on 6×6 patches of 24-pixel images, for a model of two blocks: the smallest run that learns a prior.

    Command: python -m spvit_mini train spvit_mini_compass6
    Cost: about 15 seconds of one CPU core
    Measured, seeds 0 to 4 (data/results/lesson_00.csv): spvit_mini 99.8, 91.3, 99.2, 96.0, 98.0 % (with --optim.lr 4e-3
        99.5, 98.5, 100, 99.8, 99.6 %); vit_mini 11.7 to 13.6 %; chance is 12.5 %
    """
    return replace(compass(model), model=ModelOptions(model, depth=2, dim=48, heads=4), data=DataOptions(name="compass6"))


def textures(model: str) -> Recipe:
    """Textures: rows, columns, checkerboard or diagonal? Four textures of two-valued patches, 2,000 training images.

    Neither model learns the layout in these steps.

    Command: python -m spvit_mini train spvit_mini_textures
    Cost: about three quarters of a minute of one CPU core
    Measured: spvit_mini 25.7 % (seed 0; with --optim.lr 4e-3 spvit_mini 27.7, vit_mini 23.3 %); chance is 25 %
    """
    return replace(compass(model), data=DataOptions(name="textures"), duration="160 steps")


def textures6(model: str) -> Recipe:
    """Textures on 6×6 patches, for a model of two blocks.

    Command: python -m spvit_mini train spvit_mini_textures6
    Cost: about 10 seconds of one CPU core
    Measured: spvit_mini 25.7 % (seed 0; with --optim.lr 4e-3 spvit_mini 27.9, vit_mini 26.4 %); chance is 25 %
    """
    return replace(compass6(model), data=DataOptions(name="textures6"), duration="160 steps")


def rings(model: str) -> Recipe:
    """Rings: how far is the ship? The images are as in Compass; the class is the distance, 1 to 4 patches.

    Neither model learns the distance in these steps, as with Textures.

    Command: python -m spvit_mini train spvit_mini_rings
    Cost: about a minute of one CPU core
    Measured: spvit_mini 25.3 % (seed 0; with --optim.lr 4e-3 spvit_mini 23.9, vit_mini 26.7 %); chance is 25 %
    """
    return replace(compass(model), data=DataOptions(name="rings"))


def rings6(model: str) -> Recipe:
    """Rings on 6×6 patches, for a model of two blocks; three distances.

    Command: python -m spvit_mini train spvit_mini_rings6
    Cost: about 15 seconds of one CPU core
    Measured: spvit_mini 32.6 % (seed 0; with --optim.lr 4e-3 spvit_mini 32.4, vit_mini 33.2 %); chance is 33.3 %
    """
    return replace(compass6(model), data=DataOptions(name="rings6"))
