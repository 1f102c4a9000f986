"""Write a trained model to a file for use elsewhere, with the preprocessing of its images.

    python -m spvit_mini export runs/spvit_mini_flowers17 --out flowers.onnx               for any ONNX runtime
    python -m spvit_mini export runs/spvit_mini_flowers17 --out flowers.safetensors        for create_model(weights=…)
    python -m spvit_mini export best.safetensors --out large.onnx --image-size 384

The metadata of the file hold the model's name and configuration, the preprocessing (size, mean, std, crop, interpolation) and
the names of the classes, each as JSON, and the metadata of the weights. An ONNX file has one input, `images` (batch, 3, height,
width), normalised, of any batch size, and one output, `logits` (batch, classes). Before the file is written, its logits are
compared with the model's.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..fields import Pixels
from ..files import atomic_write
from ..training.checkpoint import WeightsChoice, load_trained
from ..vit import VisionModel
from ..weights import model_metadata, save_weights
from .arguments import Imports, Program, check_new_file

PROGRAM = Program("python -m spvit_mini export", __doc__, first="RUN_OR_WEIGHTS")
TOLERANCE = 1e-4  # of logits in float32, relative to the largest: sums are computed in another order


@dataclass(frozen=True)
class Arguments:
    """Which weights, and the file to write."""

    out: Path | None = None
    """File to write, .onnx or .safetensors. An existing file is never overwritten."""
    weights: WeightsChoice = "best"
    """Of a run folder: the best weights, the last weights, or the last EMA weights."""
    image_size: Pixels | None = None
    """Side of the images in pixels; positions are interpolated to it. None: the image size of the weights."""
    imports: Imports = ()


def main(argv: list[str]) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    word, options = PROGRAM.split(argv, Arguments())
    arguments, path = PROGRAM.parse(options, Arguments(), first=word), Path(word)
    out = arguments.out
    if out is None or out.suffix not in (".onnx", ".safetensors"):
        raise UserError(f"--out is {out}; expected a file that ends with .onnx or .safetensors: {PROGRAM} {path} --out FILE")
    check_new_file(out)

    model, metadata = load_trained(path, weights=arguments.weights, image_size=arguments.image_size)
    # The file's description of the model may be of another image size; the model's own is right.
    metadata = {name: text for name, text in metadata.items() if name not in model_metadata(model)}
    if out.suffix == ".onnx":
        content = onnx_bytes(model, metadata)
        with atomic_write(out) as temporary:
            temporary.write_bytes(content)
    else:
        save_weights(model, out, state=None, **metadata)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{out}: {model.name}, {count:,} parameters, {'×'.join(map(str, model.config.image_size))} px, "
        f"{model.config.num_classes} classes, {metadata.get('weights', 'last')} weights of step {metadata.get('step', '?')}"
    )
    return 0


def onnx_bytes(model: VisionModel, metadata: dict[str, str]) -> bytes:
    """Convert a model to the content of an ONNX file, and compare its logits with the model's."""
    try:
        import onnx
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise UserError(
            f"ONNX files need the package {error.name}: pip install 'spvit-mini[export]', or export to .safetensors"
        ) from None
    # With gradients on, the exporter loses the layout of a fused attention with a mask.
    model.requires_grad_(False)
    images = torch.randn(3, model.config.channels, *model.config.image_size, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about itself
        # In two steps: in one, torch writes a fixed batch size where a dynamic one fails, without an error.
        batch = torch.export.Dim("batch")
        program = torch.export.export(model, (images[:2],), dynamic_shapes={"images": {0: batch}})
        exported = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=["images"], output_names=["logits"],
            dynamic_shapes={"images": {0: batch}},
        )  # fmt: skip
        assert exported is not None  # it is a program, with dynamo
        proto = exported.model_proto
    onnx.helper.set_model_props(proto, model_metadata(model) | metadata)
    content = proto.SerializeToString()
    check_onnx(content, images, model(images))
    return content


def check_onnx(content: bytes, images: Tensor, expected: Tensor) -> None:
    """Raise UserError unless the content of an ONNX file is well formed and gives the expected logits for images."""
    import onnx
    import onnx.reference
    from onnx.reference.op_run import OpRun

    class GatherElements(OpRun):
        """GatherElements with a negative axis and more than 64 elements per axis, which the evaluator's own lacks."""

        def _run(self, data, indices, axis=0):
            return (np.take_along_axis(data, indices, axis=axis),)

    onnx.checker.check_model(content)
    evaluator = onnx.reference.ReferenceEvaluator(onnx.load_from_string(content), new_ops=[GatherElements])
    [output] = evaluator.run(None, {"images": images.numpy()})
    actual = torch.from_numpy(output)
    differ = ((actual - expected).abs().max() / expected.abs().max()).item()
    if not differ <= TOLERANCE:
        raise UserError(
            f"the logits of the ONNX file differ from the model's by {differ:.1e} of the largest logit; expected at most "
            f"{TOLERANCE:.0e}. Nothing is written; check that the weights are finite, or export to .safetensors"
        )
