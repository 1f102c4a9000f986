"""The training loss of a micro-batch, from images on the device and their labels.

MixUp blends pairs of images and of labels (Zhang et al. 2018); CutMix replaces a rectangle of one image by another image
(Yun et al. 2019). One draw serves a whole micro-batch. Token labels have a mixing and a loss of their own: token_loss.py.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.seeding import fork_torch_rng, make_random_state
from ..data.token_labels import TokenLabelView
from ..errors import UserError
from ..geometry import patch_grid
from ..recipes.recipe import Recipe


class Objective:
    """Compute the loss of a recipe: MixUp or CutMix, label smoothing, token labels, and autocast to a precision."""

    def __init__(self, recipe: Recipe, num_classes: int, *, precision: torch.dtype):
        augment = recipe.augment
        if recipe.token_labels.folder is not None and (augment.mixup or augment.cutmix):
            raise UserError("token_labels.folder is set with augment.mixup or augment.cutmix. Use token_labels.mixtoken instead.")
        self.token_labels, self.num_classes = recipe.token_labels, num_classes
        self.precision, self.smoothing, self.mix_prob = precision, recipe.label_smoothing, augment.mix_prob
        self.mixes = []
        if augment.mixup or augment.cutmix:
            from torchvision.transforms import v2

            kinds = ((v2.MixUp, augment.mixup), (v2.CutMix, augment.cutmix))
            self.mixes = [mix(alpha=alpha, num_classes=num_classes) for mix, alpha in kinds if alpha]

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, view: TokenLabelView | None = None, *, seeds: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Compute the mean loss of a micro-batch and the logits (B, classes).

        Args:
            images, labels: (B, 3, height, width) and (B,), on the model's device.
            view: the token labels of the crops, if the recipe uses token labels.
            seeds: decide all random draws.
        """
        if view is not None:
            return self.token_label_loss(model, images, labels, view, seeds)
        images, targets = self.mix(images, labels, seeds)
        with torch.autocast(images.device.type, self.precision, enabled=self.precision != torch.float32):
            logits = model(images)
        return F.cross_entropy(logits.float(), targets, label_smoothing=self.smoothing), logits

    def mix(self, images: Tensor, labels: Tensor, seeds: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Mix each image with its neighbour in the batch, with probability `mix_prob`; targets are then (B, classes)."""
        if not self.mixes:
            return images, labels
        with fork_torch_rng(*seeds):
            choice, chance = torch.rand(2).tolist()
            if chance >= self.mix_prob:
                return images, labels
            return self.mixes[int(choice * len(self.mixes))](images, labels)

    def token_label_loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, view: TokenLabelView, seeds: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Compute the loss with a teacher's labels of the patches, and the logits of the class token (B, classes)."""
        from .token_loss import dense_loss, draw_box, mix_classes, targets

        config: Any = getattr(model, "module", model).config  # DDP wraps the model as `module`
        grid, options = patch_grid(images.shape[-2:], config.patch), self.token_labels
        patch_targets, class_target = targets(view, grid, self.num_classes)
        if options.class_target == "label":
            class_target = F.one_hot(labels, self.num_classes).float()
        box = None
        if options.mixtoken:
            corners = draw_box(grid, options.mixtoken, random=make_random_state("mixtoken", *seeds))
            class_target, box = mix_classes(class_target, corners, grid), torch.tensor(corners).to(images.device)
        with torch.autocast(images.device.type, self.precision, enabled=self.precision != torch.float32):
            logits, patch_logits = model(images, dense=True, mix=box)
        weight, smoothing = options.dense_weight, self.smoothing
        loss = dense_loss(logits, patch_logits, class_target, patch_targets, dense_weight=weight, smoothing=smoothing)
        return loss, logits
