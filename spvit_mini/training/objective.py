"""What a batch teaches: from images and their labels to the number that training makes small.

Two images of a batch may be mixed, and their labels with them: MixUp adds them up (Zhang et al. 2018), CutMix puts a
rectangle of one into the other (Yun et al. 2019). One draw serves a whole micro-batch. Token labels have a mixing and a
loss of their own: see token_loss.py.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

from ..data.seeding import stream, torch_seeded
from ..data.token_labels import View
from ..errors import UserError
from ..geometry import patch_grid
from ..recipes.recipe import Recipe
from .token_loss import dense_loss, draw_box, mix_classes, targets


class Objective:
    """Computes the loss of a batch, as a recipe has it: mixing, label smoothing, precision.

    `finish` brings the images of a batch to the device: `data.train.finish`, if not all has been done to them already.
    """

    def __init__(
        self,
        recipe: Recipe,
        num_classes: int,
        *,
        device: torch.device,
        precision: torch.dtype,
        finish: Callable[[Any, torch.device], Tensor] | None = None,
    ):
        augment = recipe.augment
        if recipe.token_labels.folder is not None and (augment.mixup or augment.cutmix):
            raise UserError("token labels cannot follow augment.mixup or augment.cutmix; mix with token_labels.mixtoken")
        self.token_labels, self.num_classes = recipe.token_labels, num_classes
        self.device, self.precision, self.smoothing = device, precision, recipe.label_smoothing
        self.finish = finish or (lambda images, device: images.to(device))
        self.mix_prob = augment.mix_prob
        self.mixes = [v2.MixUp(alpha=augment.mixup, num_classes=num_classes)] if augment.mixup else []
        self.mixes += [v2.CutMix(alpha=augment.cutmix, num_classes=num_classes)] if augment.cutmix else []

    def __call__(self, model: nn.Module, batch: list, *, seeds: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the mean loss of a batch: loss, logits (B, classes), labels (B,) on the device.

        A batch is (images, labels), or (images, labels, `View`) if the recipe has token labels; images as `finish` takes
        them.

        All draws are functions of `seeds`. Where images are mixed, the labels that come back are those of the images
        that the others were mixed into.
        """
        images, labels, *view = batch
        images, labels = self.finish(images, self.device), *self.here(labels)
        if view:
            return *self.with_token_labels(model, images, labels, View(*self.here(*view[0])), seeds), labels
        images, wanted = self.mixed(images, labels, seeds)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            logits = model(images)
        return F.cross_entropy(logits.float(), wanted, label_smoothing=self.smoothing), logits, labels

    def here(self, *tensors: Tensor) -> list[Tensor]:
        """Bring tensors to the device."""
        return [tensor.to(self.device, non_blocking=True) for tensor in tensors]

    def with_token_labels(
        self, model: nn.Module, images: Tensor, labels: Tensor, view: View, seeds: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Compute the loss with what a teacher sees in each patch, and the class token's logits (B, classes)."""
        config = getattr(model, "module", model).config  # the model itself, where several processes share it
        grid, options = patch_grid(images.shape[-2:], config.patch), self.token_labels
        patch_targets, class_target = targets(view, grid, self.num_classes)
        if options.class_target == "label":
            class_target = F.one_hot(labels, self.num_classes).float()
        box = None
        if options.mixtoken:
            drawn = draw_box(grid, options.mixtoken, random=stream("mixtoken", *seeds))
            class_target, box = mix_classes(class_target, drawn, grid), torch.tensor(drawn).to(self.device)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            logits, patch_logits = model(images, dense=True, mix=box)
        weight, smoothing = options.dense_weight, self.smoothing
        loss = dense_loss(logits, patch_logits, class_target, patch_targets, dense_weight=weight, smoothing=smoothing)
        return loss, logits

    def mixed(self, images: Tensor, labels: Tensor, seeds: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Mix each image with its neighbour in the batch, if the recipe wants it: targets are then (B, classes)."""
        if not self.mixes:
            return images, labels
        with torch_seeded(*seeds):
            choice, wanted = torch.rand(2).tolist()
            if wanted >= self.mix_prob:
                return images, labels
            return self.mixes[int(choice * len(self.mixes))](images, labels)
