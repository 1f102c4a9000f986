"""Write a trained model for use elsewhere, with all that its images must go through.

    python -m spvit_mini export runs/spvit_mini_flowers17 --to flowers.onnx                for any ONNX runtime
    python -m spvit_mini export runs/spvit_mini_flowers17 --to flowers.safetensors         for create_model(weights=…)
    python -m spvit_mini export best.safetensors --to large.onnx --image-size 384

Of a run folder, the weights that scored best are taken, or with --weights the newest, raw or averaged. The file's metadata
hold the model's name and configuration, the preprocessing (size, mean, std, crop, interpolation) and the names of the
classes, each as JSON, and what the weights' own metadata say. An ONNX file has one input, `images` (batch, 3, height,
width), normalised, any number of them at once, and one output, `logits` (batch, classes). Before it is written, its
answers are compared with the model's.
"""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..training.checkpoint import replacing
from ..training.trained_model import Which, open_trained
from ..vit import ViT
from ..weights import model_metadata, save_weights
from .arguments import parse
from .program import run_program

PROGRAM = "python -m spvit_mini export"
FORMATS = (".onnx", ".safetensors")
# Answers in float32 may differ by this, relative to the largest: sums are added up in another order.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Arguments:
    """Which weights, and where they go."""

    to: Path | None = None
    """The file to write, .onnx or .safetensors. A file that is there already is never overwritten."""
    weights: Which = "best"
    """Of a run folder: the best weights, the last ones, or the last EMA weights."""
    image_size: int | None = None
    """Side of the images in pixels; if not given, what the weights were made for. Positions are interpolated to it."""


def main(argv: list[str] | None = None) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("--help", "-h"):
        print(__doc__.strip())
        return 0
    if argv[0].startswith("-"):
        raise UserError(f"the run folder or weights file comes first: {PROGRAM} RUN_OR_WEIGHTS --to FILE")
    path = Path(argv[0])
    arguments = parse(argv[1:], default=Arguments(), prog=f"{PROGRAM} {path}", description=f"Export {path}.")
    to = arguments.to
    if to is None or to.suffix not in FORMATS:
        raise UserError(f"say which file to write, .onnx or .safetensors: {PROGRAM} {path} --to FILE")
    if to.exists():
        raise UserError(f"{to} exists already and is not overwritten; name another file with --to")
    if not to.parent.is_dir():
        raise UserError(f"there is no folder {to.parent} to write {to.name} to")

    model, metadata = open_trained(path, weights=arguments.weights, image_size=arguments.image_size)
    # What the file said of the model may be of another image size: the model speaks for itself.
    metadata = {name: text for name, text in metadata.items() if name not in model_metadata(model)}
    if to.suffix == ".onnx":
        content = onnx_bytes(model, metadata)
        with replacing(to) as temporary:
            temporary.write_bytes(content)
    else:
        with replacing(to) as temporary:
            save_weights(model, temporary, **metadata)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{to}: {model.name}, {count:,} parameters, {'×'.join(map(str, model.config.image_size))} px, "
        f"{model.config.num_classes} classes, {metadata.get('weights', 'last')} weights of step {metadata.get('step', '?')}"
    )
    return 0


def onnx_bytes(model: ViT, metadata: dict[str, str]) -> bytes:
    """Turn a model into the content of an ONNX file, checked against the model's own answers."""
    try:
        import onnx
        import onnxscript  # noqa: F401  torch writes ONNX by it
    except ImportError as error:
        raise UserError(
            f"ONNX files need the package {error.name}: pip install 'spvit-mini[export]', or export to .safetensors"
        ) from None
    # With gradients on, the exporter loses the layout of a fused attention that takes a mask.
    model.requires_grad_(False)
    images = torch.randn(3, model.config.channels, *model.config.image_size, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about itself
        # In two steps: in one, torch would rather write a fixed number of images than say that it can't do otherwise.
        batch = torch.export.Dim("batch")
        program = torch.export.export(model, (images[:2],), dynamic_shapes={"images": {0: batch}})
        names = {"input_names": ["images"], "output_names": ["logits"], "dynamic_shapes": {"images": {0: batch}}}
        proto = torch.onnx.export(program, dynamo=True, verbose=False, **names).model_proto
    onnx.helper.set_model_props(proto, model_metadata(model) | metadata)
    content = proto.SerializeToString()
    check_onnx(content, images, model(images))
    return content


def check_onnx(content: bytes, images: Tensor, expected: Tensor) -> None:
    """Raise UserError unless an ONNX file's content is well formed, and answers to images as expected."""
    import onnx
    import onnx.reference
    from onnx.reference.op_run import OpRun

    class GatherElements(OpRun):
        """What the evaluator's own cannot do: a negative axis, more than 64 places to gather from."""

        def _run(self, data, indices, axis=0):
            return (np.take_along_axis(data, indices, axis=axis),)

    onnx.checker.check_model(content)
    evaluator = onnx.reference.ReferenceEvaluator(onnx.load_from_string(content), new_ops=[GatherElements])
    found = torch.from_numpy(evaluator.run(None, {"images": images.numpy()})[0])
    differ = ((found - expected).abs().max() / expected.abs().max()).item()
    if not differ <= TOLERANCE:
        raise UserError(
            f"the ONNX file would answer otherwise than the model (by {differ:.1e} of the largest logit), so nothing is "
            "written; export to .safetensors, and see whether the weights are finite"
        )


if __name__ == "__main__":
    run_program(main)
