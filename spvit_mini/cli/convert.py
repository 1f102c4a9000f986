"""Convert third-party weights to the names and the layout of this package.

    python -m spvit_mini convert FILE --model deit_small                writes deit_small.safetensors
    python -m spvit_mini convert FILE --model spvit_m --spatial-layers 10 --out m.safetensors

FILE is a safetensors or torch file of DeiT, ConViT or CaiT (timm's or the authors'), LV-ViT (TokenLabeling) or SP-ViT. The model
family is detected from the tensor names. Every tensor of the file must match a tensor of the model and every tensor of the model
must be in the file; otherwise the program names the first differences and writes nothing. --verbose prints all tensors.

Most tensors change only their name. These change their layout:

- Position embeddings are a list of tokens there and an image here, (1, D, R, C), so that their grid must be square. The class
  token's own position embedding is added to the class token here.
- GPSA and SP-SA have q, k and v in two matrices there, in one here.
- GPSA's positional scores are computed from (δ_column, δ_row, ‖δ‖²) there and from (‖δ‖², δ_row, δ_column) here. Their bias is
  dropped, because softmax is invariant to a constant per row of scores.
- SP-SA's prior MLPs are one matrix for all heads with the column offset first there, a matrix per head with the row first here.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from ..convert import Conversion, convert_state, read_state
from ..errors import UserError, near
from ..fields import Count, CropRatio, Fraction, Natural, Pixels, Share
from ..vit import VisionModel
from ..weights import fit_grid, list_differences, load_state, save_weights
from ..zoo import create_model, list_models
from .arguments import Program, check_new_file

PROGRAM = Program("python -m spvit_mini convert", __doc__, first="FILE")


@dataclass(frozen=True)
class Arguments:
    """The model, and the file to write."""

    model: str = ""
    """Name of the model that the weights are for, such as deit_small."""
    out: Path | None = None
    """File to write; an existing file is never overwritten. None: NAME.safetensors."""
    image_size: Pixels | None = None
    """Side of the images in pixels; positions are interpolated to it. None: the image size of the file's positions."""
    num_classes: Count | None = None
    """Number of classes of the file's head. None: the model's default."""
    patch: Pixels | None = None
    """Side of the file's patches in pixels, such as 8 for a ViT of patch 8. None: the model's default."""
    spatial_layers: Natural | None = None
    """Number of blocks with a spatial prior in the file, 0 for an SP-ViT without priors. None: the model's default."""
    mean: tuple[Share, Share, Share] | None = None
    """Mean by which images are normalised, red green blue. None: ImageNet's. Some of timm's ViTs need 0.5 0.5 0.5."""
    std: tuple[Fraction, Fraction, Fraction] | None = None
    """Standard deviation by which images are normalised, red green blue. None: ImageNet's."""
    crop: CropRatio | None = None
    """Side of the central crop for evaluation, as a fraction of the image's side. None: the published model's."""
    verbose: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print every tensor: its name in the file, its name and shape here; or, if it does not fit, every difference."""


def main(argv: list[str]) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    word, options = PROGRAM.split(argv, Arguments())
    arguments, path = PROGRAM.parse(options, Arguments(), first=word), Path(word)
    if not arguments.model:
        raise UserError(f"--model is missing; expected the model that the weights are for: {PROGRAM} {path} --model NAME")
    out = arguments.out or Path(f"{arguments.model}.safetensors")
    check_new_file(out)
    state, key = read_state(path)
    converted = convert_state(state)
    check_family(converted, arguments.model, source=str(path))
    if arguments.verbose:
        print(converted.key_map())
    model = build(converted, arguments, source=str(path))
    save_weights(model, out, converted_from=path.name, weights="ema" if "ema" in key else "last")
    count = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{out}: {arguments.model}, {count:,} parameters, {'×'.join(map(str, model.config.image_size))} px, from {len(state)} "
        f"tensors of {converted.source.name} in {path}{f' [{key}]' if key else ''}"
    )
    return 0


def build(converted: Conversion, arguments: Arguments, *, source: str) -> VisionModel:
    """Build the model and load the converted weights.

    Raises UserError if any tensor differs, with the first differences; `--verbose` prints all of them.
    """
    name, family = arguments.model, converted.source.name
    overrides: dict[str, Any] = {}
    if family == "an SP-ViT":
        overrides = prior_overrides(converted, arguments, source=source)
    elif arguments.spatial_layers is not None:
        raise UserError(f"--spatial-layers is {arguments.spatial_layers}, but only SP-ViT has it; {source} holds {family}")
    overrides |= {"num_classes": arguments.num_classes, "image_size": arguments.image_size}
    patch = overrides["patch"] = arguments.patch or create_on_meta(name).config.patch
    if arguments.image_size is None and "positions" in converted.state:
        overrides["image_size"] = tuple(side * patch for side in converted.state["positions"].shape[-2:])

    shapes = create_on_meta(name, **overrides)
    differ = list_differences(shapes, fit_grid(shapes, converted.state))
    differ += [f"has {name}, which {family} here lacks" for name in converted.unmatched]
    if differ:
        if arguments.verbose:
            print("\n".join(f"{source} {line}" for line in differ))
        fix = suggest_options(converted.state, shapes) or "Use --verbose to list all, or another --model."
        raise UserError(f"{source} does not fit {name} in {len(differ)} tensors: it {'; it '.join(differ[:3])}, … {fix}")
    model = create_model(name, **overrides)
    load_state(model, converted.state, source=source)
    changes = {field: getattr(arguments, field) for field in ("mean", "std", "crop")}
    model.preprocessing = replace(model.preprocessing, **{k: v for k, v in changes.items() if v is not None})
    return model


def suggest_options(state: dict[str, torch.Tensor], model: VisionModel) -> str:
    """Suggest the options with which a file of other classes or other patches fits; "" if it has the model's."""
    own, options = model.state_dict(), ""
    for name, option, unit in (("head.bias", "num-classes", 1), ("embed.weight", "patch", 1), ("embed.9.weight", "patch", 2)):
        if name in state and name in own and state[name].shape[-1] != own[name].shape[-1]:
            options += f" --{option} {unit * state[name].shape[-1]}"
    return options and f"Use{options}."


def check_family(converted: Conversion, name: str, *, source: str) -> None:
    """Raise UserError unless a model of this name is of the family of the weights."""
    if name not in list_models():
        raise UserError(f"no model is called {name!r}.{near(name, list_models())} python -m spvit_mini models lists the models")
    fitting = [known for known in list_models() if re.fullmatch(converted.source.models, known)]
    if name not in fitting:
        family = converted.source.name
        raise UserError(f"--model is {name}, but {source} holds weights of {family}; use --model {' or '.join(fitting)}")


def create_on_meta(name: str, **overrides) -> VisionModel:
    """Build a model on the meta device: it has shapes, but no values."""
    with torch.device("meta"):
        return create_model(name, **overrides)


def prior_overrides(converted: Conversion, arguments: Arguments, *, source: str) -> dict:
    """Choose an SP-ViT's blocks with priors. Raises UserError if their number is neither the model's nor `--spatial-layers`.

    The class token joins after the last of them; in a file without priors, where the model has it (SP-ViT-L as released).
    """
    count, default = converted.spatial_layers, create_on_meta(arguments.model).config.spatial_layers
    if count == (default if arguments.spatial_layers is None else arguments.spatial_layers):
        if count == default:
            return {}
        return {"spatial_layers": count, "class_token_block": count} if count else {"attention": "mhsa", "attention_options": {}}
    if not count:
        raise UserError(
            f"{source} holds no prior: it is an LV-ViT with PEG and a late class token, without SP-SA; "
            "use --spatial-layers 0 to convert it"
        )
    raise UserError(f"{source} has {count} blocks with priors; {arguments.model} has {default}. Use --spatial-layers {count}")
