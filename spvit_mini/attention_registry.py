"""The matrix of spatial maps and modes: attentions by name, and the registration of others.

An attention is a name from the literature ("spsa", "rpb"), a registered name, or MAP/MODE, such as "mlp/multiplicative" or
"table/additive". Cells that make no sense are refused when they are built, with the reason. `register_attention` and
`register_map` add your own; the command line imports the file that calls them by `--import`.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from torch import nn

from . import attention as modes
from . import spatial as maps
from .config import Grid
from .errors import UserError, near
from .fields import naming
from .renamed import current_attention

MODES: dict[str, type[modes.SpatialAttention]] = {
    mode.mode: mode
    for mode in (
        modes.BiasedAttention, modes.ContextualAttention, modes.MaskedAttention, modes.PositionOnlyAttention,
        modes.GatedAttention, modes.ModulatedAttention, modes.AffineAttention,
    )
}  # fmt: skip


class MapEntry(NamedTuple):
    """A map: what it gives for each offset or pair, and `build(heads, grid, head_dim, neutral, **options)`."""

    kind: str  # a key of MAP_KINDS
    build: Callable[..., nn.Module]


# Kinds of maps, and why a map of this kind has no other mode.
MAP_KINDS = {
    "number": "the mode needs {needs} for each pair, the map gives one number",
    "two numbers": "the map gives two numbers, a factor and an addend",
    "embedding": "an embedding needs a dot product with the query first",
    "in or out": "a window is in or out, and exp(0) = 1: only a mask removes the outside",
}
MAPS: dict[str, MapEntry] = {
    "table": MapEntry("number", lambda H, grid, C, neutral, **o: maps.Table(H, grid, neutral=neutral, **o)),
    "log_cpb": MapEntry("number", lambda H, grid, C, neutral, **o: maps.LogCPB(H, grid, **o)),
    "mlp": MapEntry("number", lambda H, grid, C, neutral, **o: maps.PriorMLP(H, neutral=neutral, **o)),
    "linear": MapEntry("number", lambda H, grid, C, neutral, **o: maps.Linear(H, neutral=neutral, **o)),
    # Local initialisation is for scores: as a factor, −‖δ − Δ‖² would turn far matches into strong mismatches.
    "quadratic": MapEntry(
        "number", lambda H, grid, C, neutral, **o: maps.Quadratic(H, neutral=neutral, **{"strength": 1 - neutral, **o})
    ),
    "constant": MapEntry("number", lambda H, grid, C, neutral, **o: maps.Constant(H, neutral=neutral, **o)),
    "twin_mlp": MapEntry("two numbers", lambda H, grid, C, neutral, **o: maps.TwinPrior(H, **o)),
    "anchored_mlp": MapEntry("two numbers", lambda H, grid, C, neutral, **o: maps.Anchored(H, **o)),
    "shaw1d": MapEntry("embedding", lambda H, grid, C, neutral, **o: maps.Shaw1D(C, **o)),
    "shaw2d": MapEntry("embedding", lambda H, grid, C, neutral, **o: maps.Shaw2D(C, **o)),
    "irpe": MapEntry("embedding", lambda H, grid, C, neutral, **o: maps.IRPE(C, **o)),
    "square_window": MapEntry("in or out", lambda H, grid, C, neutral, **o: maps.SquareWindow(**o)),
    "cross_window": MapEntry("in or out", lambda H, grid, C, neutral, **o: maps.CrossWindow(H, **o)),
}
CELLS: dict[str, tuple[type[modes.SpatialAttention], str]] = {  # named cells of the matrix
    "rpb": (modes.RelativeBias, "table"),
    "window": (modes.WindowAttention, "square_window"),
    "psa": (modes.PSA, "quadratic"),
    "gpsa": (modes.GPSA, "quadratic"),
    "spsa": (modes.SPSA, "mlp"),
    "anchored": (modes.AnchoredSPSA, "anchored_mlp"),
}
# Attentions outside of the matrix: `build(dim, heads, *, grid, qkv_bias, **options)`.
ATTENTIONS: dict[str, Callable[..., nn.Module]] = {
    "mhsa": lambda dim, heads, *, grid, qkv_bias, **o: modes.MHSA(dim, heads, qkv_bias=qkv_bias, **o),
}


def register_attention(name: str, factory: Callable[..., nn.Module]) -> None:
    """Register an attention, with or without a spatial map, under a name of its own.

    Args:
        name: lowercase identifier, used as `attention` in configurations, recipes and on the command line.
        factory: `factory(dim, heads, *, grid, qkv_bias, **options)` returns a module that is called as `attention(x, grid)`
            with tokens x (B, P + R·C, D) and a grid (R, C), and returns the same shape.

    Raises UserError for a name that is taken or invalid, and for a factory that is not callable.
    """
    check_registration("attention", name, factory, ATTENTIONS.get(name), taken=(*CELLS, *ATTENTIONS))
    ATTENTIONS[name] = factory


def register_map(name: str, factory: Callable[..., nn.Module], *, kind: str = "number") -> None:
    """Register a spatial map; then NAME/MODE is an attention for each mode that accepts this kind.

    Args:
        name: lowercase identifier.
        factory: `factory(heads, grid, head_dim, neutral, **options)` returns a module that is called as `map(grid)` and
            returns (heads or 1, N, N); `neutral` is the value that leaves attention as it is, 0 or 1.
        kind: what the map gives: "number", "two numbers", "embedding" or "in or out".

    Raises UserError for a name that is taken or invalid, a factory that is not callable, and an unknown kind.
    """
    check_registration("map", name, factory, MAPS[name].build if name in MAPS else None, taken=MAPS)
    if kind not in MAP_KINDS:
        raise UserError(f"the kind of map {name} is {kind!r}; expected one of {', '.join(MAP_KINDS)}")
    MAPS[name] = MapEntry(kind, factory)


def check_registration(what: str, name: str, factory: Callable, old: Callable | None, *, taken: Iterable[str]) -> None:
    """Raise UserError for an invalid name, a name that is taken by a different factory, or a factory that is not callable."""
    if not isinstance(name, str) or not name.isidentifier() or name != name.lower():
        raise UserError(f"the name of the {what} is {name!r}; expected a lowercase identifier, such as my_{what}")
    if not callable(factory):
        raise UserError(f"the factory of {what} {name} is {factory!r}; expected a function or class that builds the module")
    # The cell of a notebook that runs again defines the same function or class again.
    new, old_name = (f"{getattr(f, '__module__', '')}.{getattr(f, '__qualname__', '<lambda>')}" for f in (factory, old))
    if name in taken and old is not factory and (new != old_name or "<lambda>" in new):
        raise UserError(f"the name {name!r} is taken by another {what}; expected a new name")


def refusal(map_name: str, mode: str) -> str | None:
    """Give the reason why a map and a mode can't be combined; None if they can."""
    kind, needs = MAPS[map_name].kind, MODES[mode].map_kind
    if kind != needs:
        return MAP_KINDS[kind].format(needs=needs)
    if map_name == "constant" and mode in ("additive", "position_only", "gated"):
        return "softmax does not change if a number is added to every score"
    if map_name == "log_cpb" and mode == "multiplicative":
        return "its values begin near 8, half of its largest, and a factor must begin at 1"
    return None


def attention_names() -> list[str]:
    """List every attention that can be built: the named and registered ones, then the sensible cells of the matrix."""
    cells = (f"{map_name}/{mode}" for map_name in MAPS for mode in MODES if refusal(map_name, mode) is None)
    return [*("mhsa", *CELLS), *(name for name in ATTENTIONS if name != "mhsa"), *cells]


def build_attention(
    name: str, dim: int, heads: int, *, grid: Grid, qkv_bias: bool = False, map_heads: int | None = None, **options
) -> nn.Module:
    """Build an attention by its name or as MAP/MODE.

    Args:
        grid: rows and columns of patches; a table has this size, Swin v2's map is normalised by it.
        map_heads: 1 to let all heads share a map; by default each has its own.
        options: more arguments of the map.

    Raises UserError for an unknown name, a refused cell, an unknown option, and a shared map where there is none.
    """
    name = current_attention(name)
    map_name, _, mode = name.partition("/")
    if name in CELLS:
        kind, map_name = CELLS[name]
    elif map_name in MAPS and mode in MODES:
        kind = MODES[mode]
        if reason := refusal(map_name, mode):
            raise UserError(f"attention is {name}, but the map {map_name!r} cannot be {mode.replace('_', '-')}: {reason}")
    elif name not in ATTENTIONS:
        raise UserError(
            f"attention is {name!r}; expected {', '.join([*ATTENTIONS, *CELLS])}, or MAP/MODE, MAP one of {', '.join(MAPS)}, "
            f"MODE one of {', '.join(MODES)}.{near(name, attention_names())} Use --import FILE for a name of your own."
        )
    if map_heads not in (None, heads) and (map_heads != 1 or name in ATTENTIONS):
        expected = "None, since it has no map to share (sharing 'head')" if name in ATTENTIONS else f"1, or {heads}, one for each"
        raise UserError(f"map_heads is {map_heads} for attention {name} of {heads} heads; expected {expected}")
    try:
        if name in ATTENTIONS:
            attention = ATTENTIONS[name](dim, heads, grid=grid, qkv_bias=qkv_bias, **options)
        else:
            with naming(f"attention {name}"):
                spatial = MAPS[map_name].build(map_heads or heads, grid, dim // heads, kind.neutral, **options)
            attention = kind(dim, heads, spatial=spatial, qkv_bias=qkv_bias)
    except TypeError as error:
        raise UserError(f"options of attention {name} are {options}; expected those of its class: {error}") from error
    if not isinstance(attention, nn.Module):
        raise UserError(f"the factory of attention {name} returned {type(attention).__name__}; expected a torch.nn.Module")
    return attention


def matrix() -> str:
    """Format the matrix of maps and modes as text: the name of a cell, · if it can be built, blank if it is refused."""
    names = {(map_name, kind.mode): name for name, (kind, map_name) in CELLS.items()}
    lines = [f"{'':<14}" + "".join(f"{mode:<16}" for mode in MODES).rstrip()]
    for map_name in MAPS:
        cells = ("" if refusal(map_name, mode) else names.get((map_name, mode), "·") for mode in MODES)
        lines.append(f"{map_name:<14}" + "".join(f"{cell:<16}" for cell in cells).rstrip())
    return "\n".join(lines)
