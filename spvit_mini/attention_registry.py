"""Which map goes with which way in: the matrix of attentions, its cells by name.

A variant is written MAP/WAY, as "mlp/multiplicative" or "table/additive"; the ones that have a name in the literature have it
here too ("spsa", "rpb"). Cells that make no sense are refused when they are built, with the reason.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from . import spatial as maps
from .attention import (
    GPSA,
    MHSA,
    PSA,
    SPSA,
    AffineAttention,
    AnchoredSPSA,
    BiasedAttention,
    ContextualAttention,
    GatedAttention,
    MaskedAttention,
    ModulatedAttention,
    PositionOnlyAttention,
    RelativeBias,
    SpatialAttention,
    WindowAttention,
)
from .errors import UserError, near
from .geometry import Grid
from .renamed import current_attention

MODES: dict[str, type[SpatialAttention]] = {
    "additive": BiasedAttention,
    "contextual": ContextualAttention,
    "masked": MaskedAttention,
    "position_only": PositionOnlyAttention,
    "gated": GatedAttention,
    "multiplicative": ModulatedAttention,
    "affine": AffineAttention,
}


@dataclass(frozen=True)
class MapKind:
    """How a map is made, `make(heads, grid, head_dim, neutral, **options)`, and what it says of an offset or a pair."""

    says: str  # "number", "two numbers", "embedding" or "in or out"
    make: Callable[..., nn.Module]


MAPS: dict[str, MapKind] = {
    "table": MapKind("number", lambda H, grid, C, neutral, **o: maps.Table(H, grid, neutral=neutral, **o)),
    "log_cpb": MapKind("number", lambda H, grid, C, neutral, **o: maps.LogCPB(H, grid, **o)),
    "mlp": MapKind("number", lambda H, grid, C, neutral, **o: maps.PriorMLP(H, neutral=neutral, **o)),
    "linear": MapKind("number", lambda H, grid, C, neutral, **o: maps.Linear(H, neutral=neutral, **o)),
    # A local start is one of scores: as a factor, −‖δ − Δ‖² would turn far matches into strong mismatches.
    "quadratic": MapKind(
        "number",
        lambda H, grid, C, neutral, **o: maps.Quadratic(H, neutral=neutral, **({"strength": 1.0 - neutral} | o)),
    ),
    "constant": MapKind("number", lambda H, grid, C, neutral, **o: maps.Constant(H, neutral=neutral, **o)),
    "twin_mlp": MapKind("two numbers", lambda H, grid, C, neutral, **o: maps.TwinPrior(H, **o)),
    "anchored_mlp": MapKind("two numbers", lambda H, grid, C, neutral, **o: maps.Anchored(H, **o)),
    "shaw1d": MapKind("embedding", lambda H, grid, C, neutral, **o: maps.Shaw1D(C, **o)),
    "shaw2d": MapKind("embedding", lambda H, grid, C, neutral, **o: maps.Shaw2D(C, **o)),
    "irpe": MapKind("embedding", lambda H, grid, C, neutral, **o: maps.IRPE(C, **o)),
    "square_window": MapKind("in or out", lambda H, grid, C, neutral, size=4, **o: maps.SquareWindow(size, **o)),
    "cross_window": MapKind("in or out", lambda H, grid, C, neutral, width=2, **o: maps.CrossWindow(H, width, **o)),
}
TAKES = {
    "additive": "number",
    "contextual": "embedding",
    "masked": "in or out",
    "position_only": "number",
    "gated": "number",
    "multiplicative": "number",
    "affine": "two numbers",
}
NAMED: dict[str, tuple[type[MHSA], str]] = {
    "mhsa": (MHSA, ""),
    "rpb": (RelativeBias, "table"),
    "window": (WindowAttention, "square_window"),
    "psa": (PSA, "quadratic"),
    "gpsa": (GPSA, "quadratic"),
    "spsa": (SPSA, "mlp"),
    "anchored": (AnchoredSPSA, "anchored_mlp"),
}


def refusal(map_name: str, way: str) -> str | None:
    """Say why a map does not go with a way in; None if it does."""
    says, takes = MAPS[map_name].says, TAKES[way]
    if says != takes:
        why = {
            "in or out": "a window says in or out, and exp(0) = 1: only a mask keeps the outside out",
            "embedding": "an embedding has to meet the query first",
            "two numbers": "the map says two numbers, a factor and an addend",
            "number": f"the way in asks for {takes} of each pair, the map says one number",
        }
        return why[says]
    if map_name == "constant" and way in ("additive", "position_only", "gated"):
        return "softmax does not see a number that is added to every score"
    return None


def variant_names() -> list[str]:
    """List every attention that can be built: the named ones, then the sensible cells of the matrix."""
    return [*NAMED, *(f"{m}/{w}" for m in MAPS for w in MODES if refusal(m, w) is None)]


def build_attention(
    variant: str,
    dim: int,
    heads: int,
    *,
    grid: Grid,
    qkv_bias: bool = False,
    map_heads: int | None = None,
    **options,
) -> MHSA:
    """Build an attention by its name or as MAP/WAY.

    Args:
        grid: rows and columns of patches it is made for; a table has this size, Swin v2's map is normalised by it.
        map_heads: 1 to let all heads share a map; by default each has its own.
        options: more arguments of the map. Raises UserError for an unknown name, a refused cell or an unknown option.
    """
    variant = current_attention(variant)
    if variant in NAMED:
        kind, map_name = NAMED[variant]
    else:
        map_name, _, way = variant.partition("/")
        if map_name not in MAPS or way not in MODES:
            raise UserError(f"no attention is called {variant!r}.{near(variant, variant_names())}")
        if reason := refusal(map_name, way):
            raise UserError(f"the map {map_name!r} cannot be {way.replace('_', ' and ')}: {reason}")
        kind = MODES[way]
    try:
        if kind is MHSA:
            return MHSA(dim, heads, qkv_bias=qkv_bias, **options)
        spatial = MAPS[map_name].make(map_heads or heads, grid, dim // heads, kind.neutral, **options)
    except TypeError as error:
        raise UserError(f"attention {variant!r} does not take {options}: {error}") from None
    return kind(dim, heads, spatial=spatial, qkv_bias=qkv_bias)


def matrix() -> str:
    """Lay out the matrix of maps and ways as text: the name of a cell, · where it can be built, blank where refused."""
    named = {(map_name, kind.__mro__[1]): name for name, (kind, map_name) in NAMED.items() if map_name}
    lines = [f"{'':<14}" + "".join(f"{way:<18}" for way in MODES)]
    for map_name in MAPS:
        cells = (
            "" if refusal(map_name, way) else named.get((map_name, kind), "·") for way, kind in MODES.items()
        )
        lines.append(f"{map_name:<14}" + "".join(f"{cell:<18}" for cell in cells).rstrip())
    return "\n".join(lines)
