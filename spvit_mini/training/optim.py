"""What moves the weights: AdamW, what it decays and what it leaves alone, and the learning rate of each step."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..recipes.options import OptimOptions


def lr_at(
    step: int, *, peak: float, final: float, warmup: int, total: int, start: float = 0.0, cooldown: int = 0
) -> float:
    """Give the learning rate of a step, counted from 0: up in a straight line, then down along half a cosine.

    The line would have `start` one step before the first, so no step is wasted on a rate of 0; step `warmup` has the
    peak; the cosine reaches `final` at step `total` − `cooldown`, and stays there.
    """
    if step < warmup:
        return start + (peak - start) * (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / max(1, total - cooldown - warmup))
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * done))


def parameter_groups(model: nn.Module, weight_decay: float, *, layer_decay: float | None = None) -> list[dict]:
    """Sort a model's trainable parameters into those that decay and those that do not; by layer too, with `layer_decay`.

    Decay pulls a number towards 0. For weight matrices and convolutions that is a mild wish for a smooth function, and
    the norm after them undoes the change of scale. A bias, a norm's gain, a position or a class token has no such
    reason to be small. A spatial prior least of all: 0 in its second layer means "the same for every offset", so decay
    would unlearn the layout. What not to decay is the model's to say (`model.no_decay()`).

    `lr_scale` is what a group's learning rate is multiplied by: `layer_decay` to the power of how far its layer stands
    below the head, so that a trained model keeps its first layers (Clark et al. 2020; Bao et al. 2022, BEiT).
    """
    spared, decay = model.no_decay(), 1.0 if layer_decay is None else layer_decay
    top = layer_of("head.weight", model)
    groups: dict[tuple, dict] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale, kept = decay ** (top - layer_of(name, model)), 0.0 if name in spared else weight_decay
            group = groups.setdefault((scale, kept), {"params": [], "weight_decay": kept, "lr_scale": scale})
            group["params"].append(parameter)
    return sorted(groups.values(), key=lambda group: -group["weight_decay"])


def layer_of(name: str, model: nn.Module) -> int:
    """Count the layer of a parameter: 0 for what makes tokens, then 1 for each block, and the heads on top."""
    trunk, last = len(model.blocks), len(getattr(model, "class_blocks", ()))
    kind, _, rest = name.partition(".")
    if kind in ("blocks", "class_blocks"):
        return 1 + int(rest.partition(".")[0]) + (trunk if kind == "class_blocks" else 0)
    return 0 if kind in ("embed", "positions", "class_token") else 1 + trunk + last


def freeze(model: nn.Module, parts: tuple[str, ...]) -> None:
    """Let the parameters whose names have one of these parts keep their start. Raises UserError for a part in no name."""
    for part in parts:
        found = [parameter for name, parameter in model.named_parameters() if part in name]
        if not found:
            kinds = sorted({name.split(".", 2)[-1] for name, _ in model.named_parameters()})
            raise UserError(f"optim.freeze has {part!r}, which is part of no parameter's name; there are {', '.join(kinds)}")
        for parameter in found:
            parameter.requires_grad_(False)


def make_optimiser(model: nn.Module, options: OptimOptions) -> torch.optim.AdamW:
    """Build AdamW over a model's parameter groups. `fused` updates all of them in one pass."""
    groups = parameter_groups(model, options.weight_decay, layer_decay=options.layer_decay)
    return torch.optim.AdamW(groups, lr=options.lr, betas=options.betas, eps=options.eps, fused=True)


def average(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    """Make the update of an `AveragedModel`, in place: averages ← averages + (1 − d) · (weights − averages).

    d is min(`decay`, (1 + n) / (10 + n)) at the n-th update: an average over 10,000 steps that began at 0 would still
    consist of the first weights when a short run is over. Whole numbers, such as a count of batches, are copied.
    """

    @torch.no_grad()
    def update(averages: list[Tensor], weights: list[Tensor], updates: Tensor) -> None:
        if not averages[0].is_floating_point():
            torch._foreach_copy_(averages, weights)
        else:
            share = torch.clamp(9 / (10 + updates), min=1 - decay)  # 1 − d, on the device: nothing waits for it
            change = torch._foreach_sub(weights, averages)
            torch._foreach_mul_(change, share)
            torch._foreach_add_(averages, change)

    return update
