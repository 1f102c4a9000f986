"""The loss with token labels: soft labels of a crop's patches, and of the whole crop (Jiang et al. 2021, LV-ViT).

    loss = CE(class token, teacher's label of the whole crop) + weight · mean over patches CE(patch, teacher's label of it)

The teacher's map is of the whole image. RoI-align resamples the crop's part of the map, in logits, to the crop's patches,
and a softmax follows; the whole crop is treated as a single patch. The released code does the same, except for one
mistake: it passes the box as (top, left, bottom, right) to a function that expects (left, top, right, bottom), and so
uses a part of the map that is mirrored about the diagonal. This code uses the part that the crop shows.

MixToken is CutMix on patches: a box of each image's tokens comes from its partner in the reversed batch. The model
returns the patches' logits to their own images, so only the class token's target is mixed, by the area of the box.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from ..data.token_labels import TokenLabelView
from ..geometry import Grid


def targets(view: TokenLabelView, grid: Grid, num_classes: int) -> tuple[Tensor, Tensor]:
    """Compute soft labels of a batch's crops: of the patches (B, R·C, classes), and of each whole crop (B, classes).

    They sum to 1 over the classes; a class that the map does not list has the score 0. Float32, on the view's device.

    Args:
        view: batched, see `TokenLabelView`.
        grid: (R, C), rows and columns of patches in a crop.
        num_classes: number of classes.
    """
    scores, classes = view.scores.float().permute(0, 3, 1, 2), view.classes.long().permute(0, 3, 1, 2)  # (B, top, rows, cols)
    rows, cols = scores.shape[-2:]
    dense = scores.new_zeros(len(scores), num_classes, rows, cols).scatter_add_(1, classes, scores)
    top, left, bottom, right = view.box.unbind(1)
    number = torch.arange(len(scores), device=scores.device)
    boxes = torch.stack([number, left * cols, top * rows, right * cols, bottom * rows], dim=1)  # in cells
    patches = roi_align(dense, boxes, tuple(grid), aligned=True)  # (B, classes, R, C)
    patches = torch.where(view.is_flipped[:, None, None, None], patches.flip(-1), patches)
    crop = roi_align(dense, boxes, (1, 1), aligned=True)
    return patches.flatten(2).transpose(1, 2).softmax(-1), crop.flatten(1).softmax(-1)


def dense_loss(
    class_logits: Tensor,
    patch_logits: Tensor,
    class_target: Tensor,
    patch_targets: Tensor,
    *,
    dense_weight: float,
    smoothing: float = 0.0,
) -> Tensor:
    """Add the class token's loss and `dense_weight` times the mean loss of the patches.

    Args:
        class_logits, class_target: (B, classes); the target is a distribution.
        patch_logits, patch_targets: (B, R·C, classes).
        dense_weight: 1 in the released code.
        smoothing: share of all targets that is spread evenly over the classes, as in the released code.
    """
    class_loss = F.cross_entropy(class_logits.float(), class_target, label_smoothing=smoothing)
    patches = patch_logits.float().flatten(0, 1), patch_targets.flatten(0, 1)
    return class_loss + dense_weight * F.cross_entropy(*patches, label_smoothing=smoothing)


def draw_box(grid: Grid, alpha: float, *, random: np.random.RandomState) -> tuple[int, int, int, int]:
    """Draw MixToken's box, in patches, as CutMix does (Yun et al. 2019): the share λ of an image that stays is Beta(α, α).

    Its sides are √(1 − λ) of the grid's, rounded down to an even number of patches; its centre is any patch; it is clipped
    to the grid. Therefore the share that really stays differs from λ: `mix_classes` counts patches.
    """
    share = np.sqrt(1 - random.beta(alpha, alpha))
    ends = []
    for side in grid:
        half, centre = int(side * share) // 2, random.randint(side)
        ends.append((max(0, centre - half), min(side, centre + half)))
    (top, bottom), (left, right) = ends
    return top, left, bottom, right


def mix_classes(target: Tensor, box: tuple[int, int, int, int], grid: Grid) -> Tensor:
    """Mix each target, (B, classes), with its partner's in the reversed batch, by the share of patches of each."""
    area = (box[2] - box[0]) * (box[3] - box[1]) / (grid[0] * grid[1])
    return (1 - area) * target + area * target.flip(0)
