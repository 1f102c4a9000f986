"""Weights of others, in our names and our layout.

    python -m spvit_mini convert FILE --to deit_small                  writes deit_small.safetensors
    python -m spvit_mini convert FILE --to spvit_m --spatial-layers 10 --out m.safetensors

FILE is a safetensors or a torch file of: DeiT, ConViT or CaiT (timm's or the authors'), LV-ViT (TokenLabeling), SP-ViT.
Which of them it is, the names of its tensors tell. Nothing is guessed beyond that: every tensor must find its place in
the model, and every place its tensor, or the program says all that differs and writes nothing.

Most tensors change only their name. What changes in meaning:

- Positions are a list of tokens there and an image here, (1, D, R, C), so their grid must be square. The class token's
  own position is a second vector added to the same token: here the token holds the sum.
- GPSA and SP-SA have q, k and v in two matrices there, in one here.
- GPSA's positional scores read (δ_column, δ_row, ‖δ‖²) there, (‖δ‖², δ_row, δ_column) here. Their bias is left out: it
  adds one number to a whole row of scores, which a softmax does not see.
- SP-SA's prior MLPs are one matrix for all heads, column offset first, there; a matrix for each head, row first, here.
"""

import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..convert import Converted, convert_state, read_state
from ..errors import UserError, near
from ..weights import fit_grid, list_differences, load_state, save_weights
from ..zoo import create_model, list_models
from .arguments import parse
from .program import run_program

PROGRAM = "python -m spvit_mini convert"


@dataclass(frozen=True)
class Arguments:
    """Which model the weights are for, and where they go."""

    to: str = ""
    """Name of the model that they become, e.g. deit_small."""
    out: Path | None = None
    """File to write; NAME.safetensors if not given. A file that is there already is never overwritten."""
    image_size: int | None = None
    """Side of the images in pixels; that of the file's own positions if not given. Positions are interpolated to another."""
    num_classes: int | None = None
    """Classes of the file's head, where they differ from the name's own."""
    spatial_layers: int | None = None
    """Blocks with a spatial prior in the file, where they differ from the name's own; 0 for an SP-ViT without any."""
    mean: tuple[float, float, float] | None = None
    """What images are centred by, red, green and blue; ImageNet's mean if not given. Some of timm's ViTs want 0.5 0.5 0.5."""
    std: tuple[float, float, float] | None = None
    """What they are divided by then; ImageNet's standard deviation if not given."""
    crop: float | None = None
    """Central part of an image, by side, that evaluation looks at; the published model's if not given."""


def build(converted: Converted, arguments: Arguments, *, source: str) -> torch.nn.Module:
    """Build the model that the converted weights are for, and load them.

    Raises UserError if they differ in any tensor, after all differences are printed.
    """
    name, said = arguments.to, converted.source.says
    overrides = {}
    if said == "an SP-ViT":
        overrides = prior_overrides(converted, arguments, source=source)
    elif arguments.spatial_layers is not None:
        raise UserError(f"--spatial-layers is for SP-ViT, {source} holds the weights of {said}")
    size = arguments.image_size
    if size is None and "positions" in converted.state:
        patch = create_on_meta(name).config.patch
        size = tuple(side * patch for side in converted.state["positions"].shape[-2:])
    overrides |= {"num_classes": arguments.num_classes, "image_size": size}

    shapes = create_on_meta(name, **overrides)
    differ = list_differences(shapes, fit_grid(shapes, converted.state))
    differ += [f"has {left}, which has no place in {said} here" for left in converted.left_over]
    if differ:
        print("\n".join(f"{source} {line}" for line in differ))
        raise UserError(f"{source} does not fit {name} in {len(differ)} tensors, the first: it {differ[0]}; nothing is written")
    model = create_model(name, **overrides)
    load_state(model, converted.state, source=source)
    prepared = {field: getattr(arguments, field) for field in ("mean", "std", "crop")}
    model.preprocessing = replace(model.preprocessing, **{k: v for k, v in prepared.items() if v is not None})
    return model


def check_family(converted: Converted, name: str, *, source: str) -> None:
    """Raise UserError unless a model of this name is of the family that the weights are of."""
    if name not in list_models():
        raise UserError(f"no model is called {name!r}.{near(name, list_models())} list_models() names them all")
    fitting = [known for known in list_models() if re.fullmatch(converted.source.fits, known)]
    if name not in fitting:
        said = converted.source.says
        raise UserError(f"{source} holds the weights of {said}; convert with --to {' or '.join(fitting)}, not {name}")


def create_on_meta(name: str, **overrides) -> torch.nn.Module:
    """Build a model that has shapes, but no numbers."""
    with torch.device("meta"):
        return create_model(name, **overrides)


def prior_overrides(converted: Converted, arguments: Arguments, *, source: str) -> dict:
    """Choose an SP-ViT's blocks with priors; raises UserError where the file has other ones and nobody asked for that.

    The class token joins after the last of them; in a file without any, where the name says (SP-ViT-L as released).
    """
    found, named = converted.spatial_layers, create_on_meta(arguments.to).config.spatial_layers
    if found == (named if arguments.spatial_layers is None else arguments.spatial_layers):
        if found == named:
            return {}
        return {"spatial_layers": found, "class_token_block": found} if found else {"attention": "mhsa", "attention_options": {}}
    if not found:
        raise UserError(
            f"{source} holds no prior: these are the weights of an LV-ViT with PEG and a late class token, no SP-SA; "
            "convert with --spatial-layers 0 if that is what you want"
        )
    raise UserError(
        f"{source} has {found} blocks with priors, {arguments.to} has {named}; convert with --spatial-layers {found}"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0].startswith("-"):
        if argv and argv[0] not in ("--help", "-h"):
            raise UserError(f"the file comes first: {PROGRAM} FILE --to NAME")
        print(__doc__.strip())
        return 0
    path = Path(argv[0])
    arguments = parse(argv[1:], default=Arguments(), prog=f"{PROGRAM} {path}", description=f"Convert {path}.")
    if not arguments.to:
        raise UserError(f"say which model the weights are for: {PROGRAM} {path} --to NAME")
    out = arguments.out or Path(f"{arguments.to}.safetensors")
    if out.exists():
        raise UserError(f"{out} exists already and is not overwritten; name another file with --out")
    if not out.parent.is_dir():
        raise UserError(f"there is no folder {out.parent} to write {out.name} to")
    state, place = read_state(path)
    converted = convert_state(state)
    check_family(converted, arguments.to, source=str(path))
    print(f"{path}{f' [{place}]' if place else ''}: weights of {converted.source.says}, {len(state)} tensors")
    print(converted.key_map())
    model = build(converted, arguments, source=str(path))
    save_weights(model, out, converted_from=path.name, weights="ema" if "ema" in place else "last")
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{out}: {arguments.to}, {count:,} parameters, {'×'.join(map(str, model.config.image_size))} px")
    return 0


if __name__ == "__main__":
    run_program(main)
