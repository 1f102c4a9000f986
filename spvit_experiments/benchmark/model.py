"""Whole models: ours and timm's with the same weights, and SP-ViT and plain attention in one architecture.

DeiT-S and ConViT-S have timm's weights; their logits are checked to agree. SP-ViT-S (at 32 pixels the mini) is compared with
its own architecture with plain attention in every block. Because a prior is initialised to 1, both have the same logits too
before training. A training step is forward pass, loss, backward pass and AdamW's update.

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

from spvit_mini.attention_backends import set_backend
from spvit_mini.convert import convert_state
from spvit_mini.errors import UserError
from spvit_mini.fields import Natural, Pixels
from spvit_mini.flops import multiply_adds
from spvit_mini.weights import load_state
from spvit_mini.zoo import create_model

from .timing import CommonOptions, Comparison, Side, check_equal, choose_device, has_timm, run_comparisons

TIMM_NAMES = {"deit_small": "deit_small_patch16_224", "convit_small": "convit_small"}
PLAIN = {"spvit_s": "MHSA, same skeleton", "spvit_mini": "MHSA, same skeleton"}  # sides, as in records


@dataclass(frozen=True)
class Options(CommonOptions):
    """Time models."""

    models: tuple[str, ...] = ("spvit_s", "convit_small", "deit_small", "spvit_mini")
    """Models; deit_small and convit_small need timm."""
    images: tuple[Pixels, ...] = (224, 384)
    """Sides of the images in pixels; always 32 for spvit_mini."""
    passes: tuple[Literal["training", "inference"], ...] = ("training", "inference")
    """training: forward, loss, backward, update; inference: forward without gradients."""
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = ()
    """Precision; bfloat16 by autocast. Default: bfloat16 on an accelerator, float32 on a CPU."""
    compile: tuple[Literal["no", "yes"], ...] = ()
    """Use torch.compile for each side. Default: both on an accelerator, no on a CPU."""
    batch_size: Natural = 0
    """Images per step. 0: 4 on a CPU; on an accelerator 256, 64 at 384 pixels."""
    depth: Natural = 0
    """Number of blocks of all sides, for a test. 0: as in each model."""


def build_models(name: str, image: int, *, depth: int = 0) -> dict[str, nn.Module]:
    """Build the models of a comparison with the same weights, the reference first, and check that their logits agree.

    Raises UserError for a model without a counterpart, or if the counterpart needs timm and timm is not installed.
    """
    torch.manual_seed(0)
    fewer = {"depth": depth} if depth else {}
    if name in PLAIN:
        late = {"spatial_layers": depth - 2, "class_token_block": depth - 2} if depth and name == "spvit_s" else {}
        ours = create_model(name, image_size=image, drop_path=0.0, **fewer, **late)
        plain = create_model(name, image_size=image, drop_path=0.0, **fewer, **late | {"spatial_layers": 0})
        plain.load_state_dict({key: value for key, value in ours.state_dict().items() if ".spatial." not in key})
        models = {PLAIN[name]: plain, name: ours}
    elif name in TIMM_NAMES:
        if not has_timm():
            raise UserError(f"the counterpart of {name} needs timm. Install it: pip install timm")
        timm = importlib.import_module("timm")
        late = {"local_up_to_layer": depth - 2} if depth and name == "convit_small" else {}
        theirs = timm.create_model(TIMM_NAMES[name], img_size=image, **fewer, **late)
        late = {"spatial_layers": depth - 2, "class_token_block": depth - 2} if late else {}
        ours = create_model(name, image_size=image, **fewer, **late)
        load_state(ours, convert_state(theirs.state_dict()).state, source="timm")
        models = {f"timm {name}": theirs, name: ours}
    else:
        raise UserError(f"model {name} has no counterpart; expected some of {', '.join([*PLAIN, *TIMM_NAMES])}")
    images = torch.randn(2, 3, image, image)
    with torch.no_grad():
        check_equal({key: model.eval()(images) for key, model in models.items()}, rtol=1e-3, atol=1e-4)
    return models


def make_training_step(model: nn.Module, images: Tensor, labels: Tensor, *, dtype: torch.dtype) -> Callable[[], None]:
    """Make a step: forward, loss, backward, and AdamW's update with a learning rate that hardly changes the weights."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-9)

    def step() -> None:
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            loss = nn.functional.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def make_inference_step(model: nn.Module, images: Tensor, *, dtype: torch.dtype) -> Callable[[], Tensor]:
    """Make a step: the forward pass, without gradients."""

    def step() -> Tensor:
        with torch.no_grad(), torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            return model(images)

    return step


def list_comparisons(options: Options, device: torch.device) -> Iterator[Comparison]:
    """List the comparisons in order of importance."""
    cuda = device.type == "cuda"
    for compile_ in options.compile or (("yes", "no") if cuda else ("no",)):
        for dtype in options.dtypes or (("bfloat16",) if cuda else ("float32",)):
            for pass_ in options.passes:
                for image in options.images:
                    for name in options.models:
                        size = 32 if name.endswith("_mini") else image
                        if size == 32 and image != options.images[0]:
                            continue
                        default = (64 if size == 384 else 256) if cuda else 4
                        case = {"model": name, "image": size, "batch": options.batch_size or default}
                        case |= {"depth": options.depth or "", "pass": pass_, "dtype": dtype, "compile": compile_}
                        yield Comparison(case, lambda case=case: build_sides(case, device))


def build_sides(case: dict, device: torch.device) -> dict[str, Side]:
    """Build the steps of a comparison on the device."""
    models = build_models(case["model"], case["image"], depth=case["depth"] or 0)
    ours, training = models[case["model"]], case["pass"] == "training"
    if device.type == "cuda" and case["model"] in PLAIN:
        backends = ("recompute", "flex_attention") if training and case["compile"] == "no" else ("flex_attention",)
        for backend in backends:
            models[f"{case['model']}, backend {backend}"] = other = copy.deepcopy(ours)
            set_backend(other, backend)
        with torch.no_grad():
            images = torch.randn(2, 3, case["image"], case["image"], device=device)
            logits = {name: model.to(device).eval()(images) for name, model in models.items()}
        check_equal(logits, rtol=1e-2, atol=1e-2)  # FlexAttention multiplies matrices of float32 in TF32
    count = multiply_adds(ours, case["image"])["total"]
    images = torch.randn(case["batch"], 3, case["image"], case["image"], device=device)
    labels = torch.randint(10, (case["batch"],), device=device)
    dtype, sides = getattr(torch, case["dtype"]), {}
    for name, model in models.items():
        model = model.to(device).train(training)
        if case["compile"] == "yes":
            model.compile(dynamic=False)
        if training:
            step = make_training_step(model, images, labels, dtype=dtype)
        else:
            step = make_inference_step(model, images, dtype=dtype)
        sides[name] = Side(step, images=case["batch"], multiply_adds=count, passes=3 if training else 1)
    return sides


def main(options: Options) -> int:
    """Run this part of the benchmark; returns the exit status."""
    if options.quick:
        options = dataclasses.replace(options, images=(64,), batch_size=2, depth=3, rounds=min(options.rounds, 3))
    device = choose_device(options)
    run_comparisons("benchmark_model", list_comparisons(options, device), options, title="Models")
    return 0
