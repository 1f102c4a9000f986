"""Recipes on small natural images for the mini models: from random initialisation, on one GPU, or slowly on a CPU.

Numbers without a source are ours, and were not tuned.
"""

from dataclasses import replace
from pathlib import Path

from ..data.options import AugmentOptions, DataOptions
from .options import ModelOptions, OptimOptions
from .recipe import Recipe


def cifar10(model: str) -> Recipe:
    """CIFAR-10: ten classes of 32-pixel images; flips, shifts and RandAugment.

    Command: python -m spvit_mini train spvit_mini_cifar10 --data.root FOLDER
    Cost: about 17 minutes of one CPU core an epoch (48 images a second, 2.7 M parameters); with --model.dim 128
        --model.depth 6 about 5½ (0.8 M)
    Expected: not measured yet; chance is 10 %
    """
    return Recipe(
        model=ModelOptions(model, drop_path=0.1),
        data=DataOptions(name="cifar10"),
        augment=AugmentOptions(flip=True, crop="shift", randaugment=(2, 9)),
        optim=OptimOptions(lr=1e-3, final_lr=1e-5, warmup="2 epochs", weight_decay=0.05),
        duration="30 epochs", batch_size=128, label_smoothing=0.1,
    )  # fmt: skip


def cifar100(model: str) -> Recipe:
    """CIFAR-100: a hundred classes of 32-pixel images, with the recipe of CIFAR-10.

    Command: python -m spvit_mini train spvit_mini_cifar100 --data.root FOLDER
    Cost: 2.7 M parameters, 0.18 to 0.19 G multiply-adds, 1.5 M images; on a CPU as CIFAR-10
    Expected: not measured yet; chance is 1 %. For orientation, by others: a ViT of about 2.7 M parameters (width 192,
        depth 9) 73.81 % after 100 epochs of a stronger recipe, and 93.58 % on CIFAR-10 (SPT_LSA's README, Lee et al. 2021)
    """
    return replace(cifar10(model), data=DataOptions(name="cifar100"))


def tiny_imagenet(model: str) -> Recipe:
    """Tiny ImageNet: 200 classes of 64-pixel images, in patches of 8.

    Command: python -m spvit_mini train spvit_mini_tiny_imagenet --data.root FOLDER
    Source: learning rate, weight decay, batch size, warm-up, duration, drop path, random erasing and the probability of
        mixing as in SPT_LSA (Lee et al. 2021), which uses AutoAugment and repeated augmentation instead of RandAugment
    Cost: 2.8 M parameters, 0.19 G multiply-adds, 10 M images
    Expected: not measured yet; chance is 0.5 %. For orientation, by others: a ViT 57.07 % (README of SPT_LSA)
    """
    return Recipe(
        model=ModelOptions(model, patch=8, drop_path=0.1),
        data=DataOptions(name="tiny_imagenet", image_size=64),
        augment=AugmentOptions(
            flip=True, crop="resized", crop_scale=(0.25, 1.0), randaugment=(2, 9), random_erasing_prob=0.25,
            mixup=0.8, cutmix=1.0, mix_prob=0.5,
        ),
        optim=OptimOptions(lr=1e-3, final_lr=1e-5, warmup="10 epochs", weight_decay=0.05),
        duration="100 epochs", batch_size=128, label_smoothing=0.1,
    )  # fmt: skip


def flowers17(model: str) -> Recipe:
    """Flowers17: seventeen species of flowers, at 64 pixels in patches of 8.

    Command: python -m spvit_mini train spvit_mini_flowers17 --data.root FOLDER --data.name flowers17-256
    Cost: about 15 seconds of one CPU core an epoch
    Measured: spvit_mini 67.2 % after 25 of its epochs (137 of 204 images; seed 0, --model.dim 128 --model.depth 6
        --duration "25 epochs" --optim.warmup "3 epochs", two minutes of one CPU core); chance is 5.9 %
    """
    return Recipe(
        model=ModelOptions(model, patch=8, drop_path=0.1),
        data=DataOptions(name="flowers17", image_size=64),
        augment=AugmentOptions(flip=True, crop="resized", crop_scale=(0.25, 1.0), colour=0.3),
        optim=OptimOptions(lr=1e-3, final_lr=1e-5, warmup="10 epochs", weight_decay=0.05),
        duration="100 epochs", batch_size=64, label_smoothing=0.1, evaluate_every="5 epochs", save_every="5 epochs",
    )  # fmt: skip


def imagenette(model: str) -> Recipe:
    """Imagenette: ten classes of ImageNet, at 224 pixels in patches of 16, for the minis.

    Command: python -m spvit_mini train spvit_mini_imagenette --data.root FOLDER
    Cost: 2.9 M parameters, 0.69 G multiply-adds; cnn_mini, which has no patches, 19 G
    Expected: not measured yet; chance is 10 %
    """
    return Recipe(
        model=ModelOptions(model, patch=16, drop_path=0.1),
        data=DataOptions(name="imagenette", image_size=224),
        augment=AugmentOptions(flip=True, crop="resized", crop_scale=(0.25, 1.0), randaugment=(2, 9), random_erasing_prob=0.25),
        optim=OptimOptions(lr=1e-3, final_lr=1e-5, warmup="5 epochs", weight_decay=0.05),
        duration="100 epochs", batch_size=128, label_smoothing=0.1, evaluate_every="5 epochs",
    )  # fmt: skip


def images(model: str) -> Recipe:
    """Images of your own, in any ImageFolder directory, at 64 pixels in patches of 8: from random initialisation.

    Command: python -m spvit_mini train spvit_mini_images --data.root FOLDER --data.name NAME, into runs/spvit_mini_NAME
    Source: the numbers of flowers17
    Cost: as flowers17, about 15 seconds of one CPU core per 1,000 images
    Expected: not measured yet
    """
    return replace(flowers17(model), data=DataOptions(name="images", image_size=64))


def finetune_images(model: str) -> Recipe:
    """Images of your own, in any ImageFolder directory, at 224 pixels: fine-tunes a published model, --model.name.

    Command: python -m spvit_mini train finetune_images --model.name deit_tiny --init-from deit_tiny.safetensors
        --data.root FOLDER --data.name NAME, into runs/finetune_deit_tiny_NAME
    The weights: python -m spvit_mini convert FILE --model deit_tiny
    Source: layer-wise decay of the learning rate as in BEiT (Bao et al. 2022); the other numbers are ours
    Cost: deit_tiny 1.3 G multiply-adds an image, deit_small 4.6 G
    Expected: not measured yet
    """
    return Recipe(
        model=ModelOptions(model, drop_path=0.1),
        data=DataOptions(name="images", image_size=224),
        augment=AugmentOptions(flip=True, crop="resized", crop_scale=(0.25, 1.0), randaugment=(2, 9)),
        optim=OptimOptions(lr=5e-4, final_lr=1e-6, warmup="2 epochs", layer_decay=0.75, weight_decay=0.05),
        init_from=Path(f"{model}.safetensors"), duration="30 epochs", batch_size=64, label_smoothing=0.1,
    )  # fmt: skip
