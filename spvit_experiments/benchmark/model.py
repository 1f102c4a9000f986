"""Whole models: ours beside timm's of the same size, with the same weights, and SP-ViT beside plain attention.

DeiT-S and ConViT-S stand beside timm's, whose weights they take over; that both give the same logits is checked. SP-ViT-S
(at 32 pixels the mini) stands beside its own skeleton with plain attention in every block; since a prior starts as 1, both
give the same logits too before they are trained. A training step is forward, loss, backward, and AdamW's update.

    python -m spvit_experiments benchmark model --models convit_small --images 224
"""

import copy
import dataclasses
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from spvit_mini.attention_backends import take_path
from spvit_mini.convert import convert_state
from spvit_mini.errors import UserError
from spvit_mini.flops import multiply_adds
from spvit_mini.weights import load_state
from spvit_mini.zoo import create_model

from .timing import Comparison, Side, choose_device, has_timm, run, same
from .timing import Options as Common

OF_TIMM = {"deit_small": "deit_small_patch16_224", "convit_small": "convit_small"}
SKELETON = {"spvit_s": "MHSA, same skeleton", "spvit_mini": "MHSA, same skeleton"}


@dataclass(frozen=True)
class Options(Common):
    """Time models."""

    models: tuple[str, ...] = ("spvit_s", "convit_small", "deit_small", "spvit_mini")
    """Which ones: deit_small and convit_small need timm, beside whose they stand."""
    images: tuple[int, ...] = (224, 384)
    """Sides of the images in pixels; spvit_mini has 32."""
    passes: tuple[Literal["training", "inference"], ...] = ("training", "inference")
    """training: forward, loss, backward, update; inference: forward alone, without gradients."""
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = ()
    """Arithmetic; bfloat16 by autocast. Default: bfloat16 on an accelerator, float32 on a CPU."""
    compiled: tuple[Literal["no", "yes"], ...] = ()
    """Whether each side goes through torch.compile. Default: both on an accelerator, no on a CPU."""
    batch: int = 0
    """Images a step. Default: 4 on a CPU; on an accelerator 256, 64 at 384."""
    depth: int = 0
    """So many blocks in place of each model's own; 0: its own. For a try: all sides must have as many."""


def sides_of(name: str, image: int, *, depth: int = 0) -> dict[str, nn.Module]:
    """Build the models that are compared, the base first, with the same weights; that they compute the same is checked.

    Raises UserError for a model that has no counterpart, or whose counterpart is timm's where timm is not installed.
    """
    torch.manual_seed(0)
    fewer = {"depth": depth} if depth else {}
    if name in SKELETON:
        late = {"spatial_layers": depth - 2, "class_token_block": depth - 2} if depth and name == "spvit_s" else {}
        ours = create_model(name, image_size=image, drop_path=0.0, **fewer, **late)
        plain = create_model(name, image_size=image, drop_path=0.0, **fewer, **late | {"spatial_layers": 0})
        plain.load_state_dict({key: value for key, value in ours.state_dict().items() if ".spatial." not in key})
        models = {SKELETON[name]: plain, name: ours}
    elif name in OF_TIMM:
        if not has_timm():
            raise UserError(f"{name} is timed beside timm's: pip install timm")
        timm = importlib.import_module("timm")
        late = {"local_up_to_layer": depth - 2} if depth and name == "convit_small" else {}
        theirs = timm.create_model(OF_TIMM[name], img_size=image, **fewer, **late)
        late = {"spatial_layers": depth - 2, "class_token_block": depth - 2} if late else {}
        ours = create_model(name, image_size=image, **fewer, **late)
        load_state(ours, convert_state(theirs.state_dict()).state, source="timm")
        models = {f"timm {name}": theirs, name: ours}
    else:
        raise UserError(f"{name} has nothing to stand beside; there are {', '.join([*SKELETON, *OF_TIMM])}")
    images = torch.randn(2, 3, image, image)
    with torch.no_grad():
        same({key: model.eval()(images) for key, model in models.items()}, rtol=1e-3, atol=1e-4)
    return models


def training_step(model: nn.Module, images: Tensor, labels: Tensor, *, dtype: torch.dtype) -> Callable[[], None]:
    """Make a step: forward, loss, backward, and AdamW's update, of a learning rate that leaves the weights in place."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-9)

    def step() -> None:
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            loss = nn.functional.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def inference_step(model: nn.Module, images: Tensor, *, dtype: torch.dtype) -> Callable[[], Tensor]:
    """Make a step: the logits, without gradients."""

    def step() -> Tensor:
        with torch.no_grad(), torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            return model(images)

    return step


def comparisons(options: Options, device: torch.device) -> Iterator[Comparison]:
    """List what is compared, what matters most first."""
    fast = device.type == "cuda"
    for compiled in options.compiled or (("yes", "no") if fast else ("no",)):
        for dtype in options.dtypes or (("bfloat16",) if fast else ("float32",)):
            for pass_ in options.passes:
                for image in options.images:
                    for name in options.models:
                        size = 32 if name.endswith("_mini") else image
                        if size == 32 and image != options.images[0]:
                            continue
                        default = (64 if size == 384 else 256) if fast else 4
                        case = {"model": name, "image": size, "batch": options.batch or default, "depth": options.depth or ""}
                        case |= {"pass": pass_, "dtype": dtype, "compiled": compiled}
                        yield Comparison(case, lambda case=case: timed(case, device))


def timed(case: dict, device: torch.device) -> dict[str, Side]:
    """Build a comparison's sides on the device, as steps."""
    models = sides_of(case["model"], case["image"], depth=case["depth"] or 0)
    ours, training = models[case["model"]], case["pass"] == "training"
    if device.type == "cuda" and case["model"] in SKELETON:
        for path in ("recomputed", "flex") if training and case["compiled"] == "no" else ("flex",):
            models[f"{case['model']}, path {path}"] = beside = copy.deepcopy(ours)
            take_path(beside, path)
        with torch.no_grad():
            images = torch.randn(2, 3, case["image"], case["image"], device=device)
            paths = {name: model.to(device).eval()(images) for name, model in models.items()}
        same(paths, rtol=1e-2, atol=1e-2)  # FlexAttention multiplies matrices of float32 in TF32
    counted = multiply_adds(ours, case["image"])["total"]
    images = torch.randn(case["batch"], 3, case["image"], case["image"], device=device)
    labels = torch.randint(10, (case["batch"],), device=device)
    dtype, found = getattr(torch, case["dtype"]), {}
    for name, model in models.items():
        model = model.to(device).train(training)
        if case["compiled"] == "yes":
            model.compile(dynamic=False)
        step = training_step(model, images, labels, dtype=dtype) if training else inference_step(model, images, dtype=dtype)
        found[name] = Side(step, images=case["batch"], multiply_adds=counted, passes=3 if training else 1)
    return found


def main(options: Options) -> int:
    """Run this part of the benchmark; returns the exit status."""
    if options.quick:
        options = dataclasses.replace(options, images=(64,), batch=2, depth=3, rounds=min(options.rounds, 3))
    device = choose_device(options)
    run("benchmark_model", comparisons(options, device), options, title="Models")
    return 0
