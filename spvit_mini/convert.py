"""Conversion of third-party weights to the names and the layout of this package: `python -m spvit_mini convert --help`.

The families are DeiT, ConViT and CaiT (timm's or the authors'), LV-ViT (TokenLabeling) and SP-ViT; the names of the tensors
identify them. Each family is a list of rules. Most tensors only change their name; a rule's `change` adapts the others.
"""

import argparse
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from .errors import UserError
from .weights import load_weights, remove_wrappers

State = dict[str, Tensor]


@dataclass(frozen=True)
class Rule:
    """How to convert the tensors whose whole name matches a pattern."""

    theirs: str  # regular expression of their name
    ours: str | None  # our name, with \1 for the pattern's first group; None: dropped, since it has no effect
    change: Callable[..., Tensor] = lambda tensor: tensor  # computes our tensor from theirs and those of `beside`
    beside: tuple[str, ...] = ()  # names of further tensors that ours is computed from


@dataclass(frozen=True)
class Source:
    """A family of weights."""

    name: str  # "a CaiT"
    signature: str  # pattern of a tensor that only this family has
    models: str  # pattern of our models that it fits
    rules: tuple[Rule, ...]


def to_grid(positions: Tensor) -> Tensor:
    """Reshape positions of the patches, (1, N, D), to their grid: (1, D, R, C). Raises UserError unless it is a square."""
    side = round(positions.shape[1] ** 0.5)
    if side**2 != positions.shape[1]:
        raise UserError(
            f"the file has positions for {positions.shape[1]} patches, which fill no square; such a file does not contain the "
            "shape of its grid, so only weights for square images can be converted"
        )
    return positions.transpose(1, 2).unflatten(-1, (side, side))


def join(*parts: Tensor) -> Tensor:
    """Concatenate matrices along their outputs."""
    return torch.cat(parts)


def split_heads(values: Tensor, output_bias: Tensor) -> Tensor:
    """Split values by heads, (heads·K, …) → (heads, K, …). There are as many heads as output biases."""
    return values.unflatten(0, (len(output_bias), -1))


# All of them descend from one ViT, and most names are the same.
BLOCK = (
    Rule(r"blocks\.(\d+)\.(norm[12]\.(?:weight|bias))", r"blocks.\1.\2"),
    Rule(r"blocks\.(\d+)\.attn\.((?:qkv|proj)\.(?:weight|bias))", r"blocks.\1.attention.\2"),
    Rule(r"blocks\.(\d+)\.mlp\.fc1\.(weight|bias)", r"blocks.\1.mlp.0.\2"),
    Rule(r"blocks\.(\d+)\.mlp\.fc2\.(weight|bias)", r"blocks.\1.mlp.2.\2"),
    Rule(r"((?:norm|head)\.(?:weight|bias))", r"\1"),
)
PATCHES = (Rule(r"patch_embed\.proj\.(weight|bias)", r"embed.\1"),)
STEM = (
    *(Rule(rf"patch_embed\.conv{n}\.weight", f"embed.{3 * n - 3}.weight") for n in (1, 2, 3)),
    *(Rule(rf"patch_embed\.bn{n}\.(.+)", rf"embed.{3 * n - 2}.\1") for n in (1, 2, 3)),
    Rule(r"patch_embed\.proj\.(weight|bias)", r"embed.9.\1"),
    Rule(r"aux_head\.(weight|bias)", r"dense_head.\1"),
)
CLASS_FIRST = (  # the class token has a position, the first one
    Rule("cls_token", "class_token", lambda token, positions: token + positions[:, :1], beside=("pos_embed",)),
    Rule("pos_embed", "positions", lambda positions: to_grid(positions[:, 1:])),
)
CLASS_LATE = (Rule("cls_token", "class_token"), Rule("pos_embed", "positions", to_grid))
QK_AND_V = (
    Rule(
        r"blocks\.(\d+)\.attn\.qk\.(weight|bias)", r"blocks.\1.attention.qkv.\2", join, beside=(r"blocks.\1.attn.v.\2",)
    ),
)
OUTPUT_BIAS = (r"blocks.\1.attn.b2",)

SOURCES = (
    Source(
        "an SP-ViT", r"blocks\.\d+\.pos_block\..+", "spvit_[sml]", (
            *BLOCK, *STEM, *CLASS_LATE, *QK_AND_V,
            Rule(r"blocks\.(\d+)\.pos_block\.proj\.0\.(weight|bias)", r"blocks.\1.peg.conv.\2"),
            Rule(
                r"blocks\.(\d+)\.attn\.w1\.weight", r"blocks.\1.attention.spatial.w1",
                lambda w1, b2: split_heads(w1, b2).flip(-1), beside=OUTPUT_BIAS,
            ),
            Rule(r"blocks\.(\d+)\.attn\.w1\.bias", r"blocks.\1.attention.spatial.b1", split_heads, beside=OUTPUT_BIAS),
            Rule(
                r"blocks\.(\d+)\.attn\.w2", r"blocks.\1.attention.spatial.w2",
                lambda w2, b2: split_heads(w2.flatten(), b2), beside=OUTPUT_BIAS,
            ),
            Rule(r"blocks\.(\d+)\.attn\.b2", r"blocks.\1.attention.spatial.b2"),
        ),
    ),
    Source("an LV-ViT", r"patch_embed\.conv1\.weight", "lvvit_[sml]", (*BLOCK, *STEM, *CLASS_FIRST)),
    Source(
        "a ConViT", r"blocks\.\d+\.attn\.gating_param", "convit_(tiny|small|base)(_plus)?", (
            *BLOCK, *PATCHES, *CLASS_LATE, *QK_AND_V,
            Rule(r"blocks\.(\d+)\.attn\.gating_param", r"blocks.\1.attention.gate"),
            Rule(r"blocks\.(\d+)\.attn\.pos_proj\.weight", r"blocks.\1.attention.spatial.v", lambda v: v.flip(-1)),
            Rule(r"blocks\.(\d+)\.attn\.pos_proj\.bias", None),
        ),
    ),
    Source(
        "a CaiT", r"blocks_token_only\..+", "cait_.+", (
            *BLOCK, *PATCHES, *CLASS_LATE,
            *(
                Rule(rf"{there}\.(\d+)\.gamma_{n}", rf"{here}.\1.scale{n}")
                for there, here in (("blocks", "blocks"), ("blocks_token_only", "class_blocks"))
                for n in (1, 2)
            ),
            Rule(r"blocks\.(\d+)\.attn\.proj_l\.(weight|bias)", r"blocks.\1.attention.before.\2"),
            Rule(r"blocks\.(\d+)\.attn\.proj_w\.(weight|bias)", r"blocks.\1.attention.after.\2"),
            *(
                replace(rule, theirs=rule.theirs.replace("blocks", "blocks_token_only"), ours=f"class_{rule.ours}")
                for rule in BLOCK if rule.theirs.startswith("blocks")
            ),
            Rule(
                r"blocks_token_only\.(\d+)\.attn\.q\.(weight|bias)", r"class_blocks.\1.attention.qkv.\2", join,
                beside=(r"blocks_token_only.\1.attn.k.\2", r"blocks_token_only.\1.attn.v.\2"),
            ),
        ),
    ),
    Source("a DeiT or ViT", r"blocks\.0\.attn\.qkv\.weight", "deit_.+", (*BLOCK, *PATCHES, *CLASS_FIRST)),
)  # fmt: skip
# Relatives of a ViT that compute something else: a pattern of their tensors, and how they differ.
RELATIVES = {
    r"dist_token|head_dist\..+": "a distilled DeiT, with a distillation token and a second head beside the class token",
    r".*(relative_position_bias_table|\.q_bias|rope).*": "a BEiT or EVA, whose attention has positions of its own",
    r".*\.(ls[12]\.gamma|gamma_[12])": "a DeiT III or DINOv2, with a factor for each channel of a branch (LayerScale)",
    r".*\.[qk]_norm\..+|(norm_pre|fc_norm|pre_logits)\..+|(reg|mask)_token|decoder_.+": "a ViT with more parts than a DeiT",
}


@dataclass(frozen=True)
class Conversion:
    """The result for a file."""

    source: Source
    state: State  # our tensors
    origins: dict[str, tuple[str, ...]]  # of each of our tensors: the names of theirs that it was computed from
    dropped: tuple[str, ...]  # tensors without effect
    unmatched: tuple[str, ...]  # tensors without a rule

    @property
    def spatial_layers(self) -> int:
        """Count the blocks with a spatial map."""
        return len({name.split(".")[1] for name in self.state if ".spatial." in name})

    def key_map(self) -> str:
        """List every tensor: theirs → ours, and its shape here."""
        lines = [f"{' + '.join(theirs)} → {ours} {tuple(self.state[ours].shape)}" for ours, theirs in self.origins.items()]
        return "\n".join(lines + [f"{name} → dropped, it has no effect" for name in self.dropped])


def detect_source(state: State) -> Source:
    """Detect the family of weights from the names of the tensors. Raises UserError for an unknown family, with the reason."""

    def find(pattern: str) -> str | None:
        return next((name for name in state if re.fullmatch(pattern, name)), None)

    if find(r"blocks\.\d+\.attention\.proj\.weight"):
        raise UserError("these weights have this package's names already. Use the file, or the run folder, as it is.")
    if source := next((source for source in SOURCES if find(source.signature)), None):
        if other := next(filter(find, RELATIVES if source == SOURCES[-1] else ()), None):
            raise UserError(
                f"these weights are of {RELATIVES[other]}: {find(other)} has no place in a DeiT. Use weights of a plain DeiT "
                "or ViT, such as timm's deit_small_patch16_224."
            )
        return source
    some = ", ".join(list(state)[:3]) or "nothing"
    known = ", ".join(source.name for source in SOURCES)
    raise UserError(f"these weights are of no family that can be converted ({known}); the file begins with {some}")


def convert_state(state: State) -> Conversion:
    """Convert third-party weights: rename tensors, and change those of another layout. No tensor is ignored in silence."""
    source = detect_source(state)
    converted, origins, dropped, used = {}, {}, [], set()
    for name, tensor in state.items():
        for rule in source.rules:
            if (match := re.fullmatch(rule.theirs, name)) is None:
                continue
            beside = [match.expand(other) for other in rule.beside]
            if any(other not in state for other in beside):
                continue
            used.update([name, *beside])
            if rule.ours is None:
                dropped.append(name)
            else:
                ours = match.expand(rule.ours)
                converted[ours] = rule.change(tensor, *(state[other] for other in beside)).contiguous()
                origins[ours] = (name, *beside)
            break
    return Conversion(source, converted, origins, tuple(dropped), tuple(n for n in state if n not in used))


# Of a checkpoint's dictionaries, those that hold weights; EMA weights first.
KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model", "model_state_dict", "module", "checkpoint")


def read_state(path: Path) -> tuple[State, str]:
    """Read the tensors of a safetensors or torch file without running any code of it; also return their key in the file.

    EMA weights are preferred if a file has both. Raises UserError for any other file.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    with path.open("rb") as file:
        beginning = file.read(9)
    if beginning[8:] == b"{":  # a safetensors file begins with the length of its header, eight bytes, and the header
        return unwrap(load_weights(path)[0], path, [])
    try:
        # timm's checkpoints contain the command line of their run: names and values, no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        blocked = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({blocked[1]})" if blocked else ""
        raise UserError(
            f"{path} cannot be read without running code that it contains{what}, or is no torch file. If you trust it, "
            "save its state_dict alone, with torch.save or safetensors, and convert that."
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is no complete safetensors or torch file ({str(error) or 'it ends too early'})") from None
    place: list[str] = []
    while isinstance(content, dict) and (key := next((k for k in KEYS if isinstance(content.get(k), dict)), None)):
        content = content[key]
        place.append(key)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path} contains no tensors by name; expected the state_dict of a model")
    return unwrap(content, path, place)


def unwrap(state: State, path: Path, place: list[str]) -> tuple[State, str]:
    """Remove what wrappers and trainers put before the names of a model's tensors, such as "module.", "model." or "ema.".

    Of several models in one state, the EMA weights are preferred; otherwise UserError names them.
    """
    state = remove_wrappers(state)
    found = {name[: match.start()]: None for name in state if (match := re.search(r"(?<![^.])(patch_embed\.|cls_token$)", name))}
    chosen = [prefix for prefix in found if "ema" in prefix] or list(found) or [""]
    if len(chosen) > 1:
        raise UserError(f"{path} has weights of several models ({', '.join(chosen)}). Save the state_dict of one alone.")
    prefix = chosen[0]
    state = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    return state, ".".join([*place, *filter(None, [prefix.strip(".")])])
