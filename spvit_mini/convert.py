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

import argparse
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from .errors import UserError
from .weights import load_weights

State = dict[str, Tensor]


@dataclass(frozen=True)
class Rule:
    """Say what becomes of the tensors whose whole name matches a pattern.

    Args:
        theirs: regular expression of their name.
        ours: our name, with \\1 for what the pattern's first bracket held; None: left out, since it has no effect.
        change: makes our tensor of theirs and those of `beside`; by default it stays as it is.
        beside: names of further tensors that ours is made of.
    """

    theirs: str
    ours: str | None
    change: Callable[..., Tensor] = lambda tensor: tensor
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A family of weights: what it is called ("a CaiT"), a tensor that only it has, names of ours that it fits, and its rules."""

    says: str
    sign: str
    fits: str
    rules: tuple[Rule, ...]


def lay_out(positions: Tensor) -> Tensor:
    """Lay positions of the patches, (1, N, D), out on their grid: (1, D, R, C). Raises UserError unless it is a square."""
    side = round(positions.shape[1] ** 0.5)
    if side**2 != positions.shape[1]:
        raise UserError(
            f"the file has positions for {positions.shape[1]} patches, which fill no square; the shape of another grid is "
            "not in such a file, so only weights of square images can be converted"
        )
    return positions.transpose(1, 2).unflatten(-1, (side, side))


def join(*parts: Tensor) -> Tensor:
    """Stack matrices whose outputs stand one after the other here."""
    return torch.cat(parts)


def part_heads(values: Tensor, output_bias: Tensor) -> Tensor:
    """Give each head its part of values, (heads·K, …): (heads, K, …). The heads are as many as there are output biases."""
    return values.unflatten(0, (len(output_bias), -1))


# All of them are descendants of one ViT, and kept most of its names.
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
    Rule("pos_embed", "positions", lambda positions: lay_out(positions[:, 1:])),
)
CLASS_LATE = (Rule("cls_token", "class_token"), Rule("pos_embed", "positions", lay_out))
QK_AND_V = (
    Rule(
        r"blocks\.(\d+)\.attn\.qk\.(weight|bias)", r"blocks.\1.attention.qkv.\2", join, beside=(r"blocks.\1.attn.v.\2",)
    ),
)
OUTPUT_BIAS = (r"blocks.\1.attn.b2",)

SOURCES = (
    Source(
        "an SP-ViT",
        r"blocks\.\d+\.pos_block\..+",
        "spvit_[sml]",
        (
            *BLOCK, *STEM, *CLASS_LATE, *QK_AND_V,
            Rule(r"blocks\.(\d+)\.pos_block\.proj\.0\.(weight|bias)", r"blocks.\1.peg.conv.\2"),
            Rule(
                r"blocks\.(\d+)\.attn\.w1\.weight", r"blocks.\1.attention.spatial.w1",
                lambda w1, b2: part_heads(w1, b2).flip(-1), beside=OUTPUT_BIAS,
            ),
            Rule(r"blocks\.(\d+)\.attn\.w1\.bias", r"blocks.\1.attention.spatial.b1", part_heads, beside=OUTPUT_BIAS),
            Rule(
                r"blocks\.(\d+)\.attn\.w2", r"blocks.\1.attention.spatial.w2",
                lambda w2, b2: part_heads(w2.flatten(), b2), beside=OUTPUT_BIAS,
            ),
            Rule(r"blocks\.(\d+)\.attn\.b2", r"blocks.\1.attention.spatial.b2"),
        ),
    ),
    Source("an LV-ViT", r"patch_embed\.conv1\.weight", "lvvit_[sml]", (*BLOCK, *STEM, *CLASS_FIRST)),
    Source(
        "a ConViT",
        r"blocks\.\d+\.attn\.gating_param",
        "convit_(tiny|small|base)(_plus)?",
        (
            *BLOCK, *PATCHES, *CLASS_LATE, *QK_AND_V,
            Rule(r"blocks\.(\d+)\.attn\.gating_param", r"blocks.\1.attention.gate"),
            Rule(r"blocks\.(\d+)\.attn\.pos_proj\.weight", r"blocks.\1.attention.spatial.v", lambda v: v.flip(-1)),
            Rule(r"blocks\.(\d+)\.attn\.pos_proj\.bias", None),
        ),
    ),
    Source(
        "a CaiT",
        r"blocks_token_only\..+",
        "cait_.+",
        (
            *BLOCK, *PATCHES, *CLASS_LATE,
            *(
                Rule(rf"{there}\.(\d+)\.gamma_{n}", rf"{here}.\1.scale{n}")
                for there, here in (("blocks", "blocks"), ("blocks_token_only", "class_blocks"))
                for n in (1, 2)
            ),
            Rule(r"blocks\.(\d+)\.attn\.proj_l\.(weight|bias)", r"blocks.\1.attention.before.\2"),
            Rule(r"blocks\.(\d+)\.attn\.proj_w\.(weight|bias)", r"blocks.\1.attention.after.\2"),
            *(
                replace(rule, theirs=rule.theirs.replace("blocks", "blocks_token_only"), ours="class_" + rule.ours)
                for rule in BLOCK if rule.ours.startswith("blocks")
            ),
            Rule(
                r"blocks_token_only\.(\d+)\.attn\.q\.(weight|bias)", r"class_blocks.\1.attention.qkv.\2", join,
                beside=(r"blocks_token_only.\1.attn.k.\2", r"blocks_token_only.\1.attn.v.\2"),
            ),
        ),
    ),
    Source("a DeiT or ViT", r"blocks\.0\.attn\.qkv\.weight", "deit_.+", (*BLOCK, *PATCHES, *CLASS_FIRST)),
)  # fmt: skip


@dataclass(frozen=True)
class Converted:
    """What came of a file: our tensors, for each the names of theirs that it was made of, and what had no place."""

    source: Source
    state: State
    made_of: dict[str, tuple[str, ...]]
    left_out: tuple[str, ...]
    left_over: tuple[str, ...]

    @property
    def spatial_layers(self) -> int:
        """Count the blocks with a spatial map."""
        return len({name.split(".")[1] for name in self.state if ".spatial." in name})

    def key_map(self) -> str:
        """List every tensor: theirs → ours, and its shape here."""
        lines = [f"{' + '.join(theirs)} → {ours} {tuple(self.state[ours].shape)}" for ours, theirs in self.made_of.items()]
        return "\n".join(lines + [f"{name} → left out, it has no effect" for name in self.left_out])


def source_of(state: State) -> Source:
    """Tell whose weights these are by the names of the tensors. Raises UserError if they are nobody's known here."""
    for source in SOURCES:
        if any(re.fullmatch(source.sign, name) for name in state):
            return source
    some = ", ".join(list(state)[:3]) or "nothing"
    known = ", ".join(source.says for source in SOURCES)
    raise UserError(f"these weights are of no family that can be converted ({known}); the file begins with {some}")


def convert_state(state: State) -> Converted:
    """Convert weights of others: rename, and change what means something else here. Nothing is lost unseen."""
    source = source_of(state)
    converted, made_of, left_out, used = {}, {}, [], set()
    for name, tensor in state.items():
        for rule in source.rules:
            if (match := re.fullmatch(rule.theirs, name)) is None:
                continue
            beside = [match.expand(other) for other in rule.beside]
            if any(other not in state for other in beside):
                continue
            used.update([name, *beside])
            if rule.ours is None:
                left_out.append(name)
            else:
                ours = match.expand(rule.ours)
                converted[ours] = rule.change(tensor, *(state[other] for other in beside)).contiguous()
                made_of[ours] = (name, *beside)
            break
    return Converted(source, converted, made_of, tuple(left_out), tuple(n for n in state if n not in used))


def read_state(path: Path) -> tuple[State, str]:
    """Read the tensors of a safetensors or torch file without running any code of it, and say where in it they lay.

    Averaged weights are taken where a file holds both. Raises UserError for anything else.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    with path.open("rb") as file:
        begins = file.read(9)
    if begins[8:] == b"{":  # a safetensors file begins with the length of its header, eight bytes, and the header
        return unwrapped(load_weights(path)[0]), ""
    try:
        # timm's checkpoints keep the command line that made them: names and values, no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        blocked = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({blocked[1]})" if blocked else ""
        raise UserError(
            f"{path} cannot be read without running code that it holds{what}, or is no torch file; where you trust it, "
            "save its state_dict alone, with torch.save or safetensors, and convert that"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is no whole safetensors or torch file ({str(error) or 'it ends too early'})") from None
    place = ""
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content, place = content[key], key
            break
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path} holds no tensors by name; the state_dict of a model is what can be converted")
    return unwrapped(content), place


def unwrapped(state: State) -> State:
    """Take away what training on several devices puts before each name."""
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}
