"""What a batch teaches: from images and their labels to the number that training makes small.

Two images of a batch may be mixed, and their labels with them: MixUp adds them up (Zhang et al. 2018), CutMix puts a
rectangle of one into the other (Yun et al. 2019). One draw serves a whole micro-batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

from ..data.streams import torch_seeded
from .recipe import Recipe


class Objective:
    """Computes the loss of a batch, as a recipe has it: mixing, label smoothing, precision."""

    def __init__(self, recipe: Recipe, num_classes: int, *, device: torch.device, precision: torch.dtype):
        augment = recipe.augment
        self.device, self.precision, self.smoothing = device, precision, recipe.label_smoothing
        self.mix_probability = augment.mix_probability
        self.mixes = [v2.MixUp(alpha=augment.mixup, num_classes=num_classes)] if augment.mixup else []
        self.mixes += [v2.CutMix(alpha=augment.cutmix, num_classes=num_classes)] if augment.cutmix else []

    def __call__(self, model: nn.Module, batch: list[Tensor], *, seeds: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the mean loss of a batch (images, labels): loss, logits (B, classes), labels (B,) on the device.

        All draws are functions of `seeds`. Where images are mixed, the labels that come back are those of the images
        that the others were mixed into.
        """
        images, labels = (part.to(self.device, non_blocking=True) for part in batch)
        images, targets = self.mixed(images, labels, seeds)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            logits = model(images)
        return F.cross_entropy(logits.float(), targets, label_smoothing=self.smoothing), logits, labels

    def mixed(self, images: Tensor, labels: Tensor, seeds: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Mix each image with its neighbour in the batch, if the recipe wants it: targets are then (B, classes)."""
        if not self.mixes:
            return images, labels
        with torch_seeded(*seeds):
            choice, wanted = torch.rand(2).tolist()
            if wanted >= self.mix_probability:
                return images, labels
            return self.mixes[int(choice * len(self.mixes))](images, labels)
