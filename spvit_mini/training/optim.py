"""The optimiser: AdamW with its parameter groups, the learning-rate schedule, and EMA weights."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import UserError
from ..recipes.options import OptimOptions
from ..vit import VisionModel


def lr_at(
    step: int, *, peak: float, final: float, warmup: int, total: int, start: float = 0.0, cooldown: int = 0
) -> float:
    """Compute the learning rate of a step, counted from 0: linear warm-up, then half a cosine, then constant.

    The warm-up begins at `start` one step before the first, so that no step has a rate of 0. Step `warmup` has the peak. The
    cosine reaches `final` at step `total` − `cooldown`.
    """
    if step < warmup:
        return start + (peak - start) * (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / max(1, total - cooldown - warmup))
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * done))


def parameter_groups(model: VisionModel, weight_decay: float, *, layer_decay: float | None = None) -> list[dict]:
    """Group a model's trainable parameters by weight decay (`weight_decay` or 0), and by layer with `layer_decay`.

    Weight decay pulls a number towards 0. For weight matrices and convolutions it is a mild preference for smooth functions,
    and the norm after them compensates the change of scale. Biases, gains of norms, positions and class tokens have no such
    reason to be small. A spatial prior has none at all: 0 in its second layer means "the same for every offset", so decay
    would unlearn the layout. `model.no_decay()` names the parameters without decay.

    A group's learning rate is multiplied by `lr_scale`: `layer_decay` to the power of the distance between its layer and the
    head, so that a pretrained model preserves its first layers (Clark et al. 2020; Bao et al. 2022, BEiT).
    """
    without_decay, factor = model.no_decay(), 1.0 if layer_decay is None else layer_decay
    top = layer_index("head.weight", model)
    groups: dict[tuple, dict] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale, decay = factor ** (top - layer_index(name, model)), 0.0 if name in without_decay else weight_decay
            group = groups.setdefault((scale, decay), {"params": [], "weight_decay": decay, "lr_scale": scale})
            group["params"].append(parameter)
    return sorted(groups.values(), key=lambda group: -group["weight_decay"])


def layer_index(name: str, model: VisionModel) -> int:
    """Compute the layer of a parameter: 0 for the patch embedding, then one for each block, then the heads."""
    trunk, last = len(model.blocks), len(getattr(model, "class_blocks", ()))
    kind, _, rest = name.partition(".")
    if kind in ("blocks", "class_blocks"):
        return 1 + int(rest.partition(".")[0]) + (trunk if kind == "class_blocks" else 0)
    return 0 if kind in ("embed", "positions", "class_token") else 1 + trunk + last


def freeze(model: VisionModel, texts: tuple[str, ...]) -> None:
    """Freeze the parameters whose names contain one of these texts. Raises UserError if one is in no name, or all in every."""
    for text in texts:
        parameters = [parameter for name, parameter in model.named_parameters() if text in name]
        if not parameters:
            known = ", ".join(sorted({name.split(".", 2)[-1] for name, _ in model.named_parameters()}))
            raise UserError(f"optim.freeze is {text!r}; expected a part of a parameter's name, such as {known}")
        for parameter in parameters:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"optim.freeze is {' '.join(texts)}, which freezes every parameter; expected some to train")


def make_optimiser(model: VisionModel, options: OptimOptions) -> torch.optim.AdamW:
    """Build AdamW for a model's parameter groups, with the fused implementation."""
    groups = parameter_groups(model, options.weight_decay, layer_decay=options.layer_decay)
    return torch.optim.AdamW(groups, lr=options.lr, betas=options.betas, eps=options.eps, fused=True)


def make_ema_update(decay: float) -> Callable[..., None]:
    """Build the in-place update of an `AveragedModel`: averages ← averages + (1 − d) · (weights − averages).

    d is min(`decay`, (1 + n) / (10 + n)) at the n-th update. Without this warm-up, an average over 10,000 steps would still
    consist of the initial weights at the end of a short run. Integers, such as a count of batches, are copied.
    """

    @torch.no_grad()
    def update(averages: list[Tensor], weights: list[Tensor], updates: Tensor) -> None:
        if not averages[0].is_floating_point():
            torch._foreach_copy_(averages, weights)
        else:
            rate = torch.clamp(9 / (10 + updates), min=1 - decay)  # 1 − d, on the device: nothing waits for it
            change = torch._foreach_sub(weights, averages)
            torch._foreach_mul_(change, rate)
            torch._foreach_add_(averages, change)

    return update
