"""The matrix of attentions: which cells there are, which are refused and why, and maps that heads and blocks share."""

import pytest
import torch

from spvit_mini.attention import MHSA, PSA
from spvit_mini.attention_registry import MAPS, MODES, build_attention, matrix, refusal, variant_names
from spvit_mini.errors import UserError
from spvit_mini.spatial import Constant, Table
from spvit_mini.vit import ViT, ViTConfig

DIM, HEADS = 16, 2


def build(name, **options):
    """Build a variant for 4×4 patches in float64 with all its numbers away from their start."""
    layer = build_attention(name, DIM, HEADS, grid=(4, 4), **options).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def draw(tokens):
    """Draw q, k and v, (2, HEADS, tokens, C) each."""
    return torch.randn(3, 2, HEADS, tokens, DIM // HEADS, dtype=torch.float64)


NUMBERS = {"table", "log_cpb", "mlp", "linear", "quadratic"}
SENSIBLE = {(m, w) for m in NUMBERS for w in ("additive", "position_only", "gated", "multiplicative")}
SENSIBLE |= {("constant", "multiplicative"), ("twin_mlp", "affine"), ("anchored_mlp", "affine")}
SENSIBLE |= {("shaw1d", "contextual"), ("shaw2d", "contextual"), ("irpe", "contextual")}
SENSIBLE |= {("square_window", "masked"), ("cross_window", "masked")}


def test_the_sensible_cells_are_these():
    assert {tuple(name.split("/")) for name in variant_names() if "/" in name} == SENSIBLE
    assert [name for name in variant_names() if "/" not in name] == [
        "mhsa", "rpb", "window", "psa", "gpsa", "spsa", "anchored",
    ]  # fmt: skip


REASONS = {
    "embedding": "has to meet the query first",
    "in or out": "only a mask keeps the outside out",
    "two numbers": "a factor and an addend",
    "number": "the map says one number",
}


@pytest.mark.parametrize(("map_name", "way"), [(m, w) for m in MAPS for w in MODES if (m, w) not in SENSIBLE])
def test_the_other_cells_are_refused_with_the_reason(map_name, way):
    reason = REASONS[MAPS[map_name].says]
    if map_name == "constant" and way in ("additive", "position_only", "gated"):
        reason = "softmax does not see a number that is added to every score"
    with pytest.raises(UserError, match=f"the map '{map_name}' cannot be .*{reason}"):
        build_attention(f"{map_name}/{way}", DIM, HEADS, grid=(4, 4))
    assert reason in refusal(map_name, way)


def test_the_refused_constant_would_indeed_change_nothing():
    q, k, _ = draw(12)
    layer = MODES["additive"](DIM, HEADS, Constant(HEADS, neutral=3.0)).double()
    torch.testing.assert_close(layer.weights(q, k, (3, 4)), MHSA(DIM, HEADS).weights(q, k, (3, 4)))


@pytest.mark.parametrize(("name", "options", "message"), [
    ("mlp/multipled", {}, "no attention is called 'mlp/multipled'. Did you mean mlp/multiplicative"),
    ("gspa", {}, "Did you mean .*gpsa"),
    ("mhsa", {"hidden": 3}, "'mhsa' does not take"),
    ("table/additive", {"hidden": 3}, "'table/additive' does not take"),
    ("window", {"size": 0}, "window of 0 patches"),
])  # fmt: skip
def test_a_wrong_name_or_option_is_one_clear_line(name, options, message):
    with pytest.raises(UserError, match=message):
        build_attention(name, DIM, HEADS, grid=(4, 4), **options)


def test_the_named_ones_are_the_cells_that_they_name():
    for name, cell in {"rpb": "table/additive", "psa": "quadratic/additive", "gpsa": "quadratic/gated",
                       "spsa": "mlp/multiplicative", "anchored": "anchored_mlp/affine",
                       "window": "square_window/masked"}.items():  # fmt: skip
        one, other = (build_attention(n, DIM, HEADS, grid=(4, 4)).double() for n in (name, cell))
        other.load_state_dict(one.state_dict())
        q, k, v = draw(16)
        assert torch.equal(one.attend(q, k, v, (4, 4)), other.attend(q, k, v, (4, 4))), name


def test_the_printed_matrix_names_every_cell():
    lines = matrix().splitlines()
    assert lines[0].split() == list(MODES)
    for line in lines[1:]:
        cells = [line[14 + 18 * i : 32 + 18 * i].strip() for i in range(len(MODES))]
        name = line[:14].strip()
        assert {way for way, cell in zip(MODES, cells, strict=True) if cell} == {w for m, w in SENSIBLE if m == name}
    assert next(line for line in lines if line.startswith("mlp ")).split() == ["mlp", "·", "·", "·", "spsa"]


# --- Sharing ---------------------------------------------------------------------------------------------------------------

MAP_SIZES = {  # numbers of a map of `heads` heads on a 4×4 grid
    "table/additive": lambda heads: 49 * heads,
    "mlp/multiplicative": lambda heads: 4 * 32 * heads + heads,
    "quadratic/gated": lambda heads: 3 * heads,
    "twin_mlp/affine": lambda heads: 3 * 32 * heads + 2 * (32 * heads + heads),
    "linear/multiplicative": lambda heads: 3 * heads,
}


def shared(sharing, attention="mlp/multiplicative", **changes):
    config = ViTConfig(image_size=(16, 16), dim=24, depth=3, heads=4, attention=attention, sharing=sharing, **changes)
    return ViT(config)


@pytest.mark.parametrize("name", MAP_SIZES)
@pytest.mark.parametrize(("sharing", "maps", "heads"), [("head", 3, 4), ("block", 3, 1), ("network", 1, 1)])
def test_sharing_counts_each_map_once(name, sharing, maps, heads):
    numbers = {n: p.numel() for n, p in shared(sharing, name).named_parameters() if ".spatial." in n}
    assert sum(numbers.values()) == maps * MAP_SIZES[name](heads)


def test_a_network_s_map_is_one_tensor_in_all_blocks_but_the_plain_ones():
    model = shared("network", spatial_layers=2)
    first, second, plain = model.attentions()
    assert first.spatial is second.spatial and type(plain) is MHSA
    model(torch.randn(2, 3, 16, 16)).square().sum().backward()
    assert first.spatial.w2.grad.abs().max() > 0
    separate = shared("block")
    assert separate.attentions()[0].spatial.w2 is not separate.attentions()[1].spatial.w2


@pytest.mark.parametrize("name", [n for n in variant_names() if n not in ("mhsa", "cross_window/masked")])
def test_one_map_for_all_heads_is_the_same_map_in_each(name):
    """With the numbers of a shared map copied into each head's own, both layers are one function."""
    grid, prefix = (4, 4), 1
    one = build(name, map_heads=1)
    each = build(name)
    state = {}
    for key, own in each.state_dict().items():
        numbers = one.state_dict()[key]
        if numbers.shape != own.shape:  # the one axis that counts heads
            axis = next(a for a in range(own.ndim) if own.shape[a] != numbers.shape[a])
            numbers = numbers.repeat_interleave(HEADS, dim=axis)
        state[key] = numbers
    each.load_state_dict(state)
    q, k, v = draw(prefix + 16)
    torch.testing.assert_close(one.attend(q, k, v, grid), each.attend(q, k, v, grid))
    torch.testing.assert_close(one.weights(q, k, grid), each.weights(q, k, grid))


def test_a_table_serves_another_grid_inside_attention():
    layer = build("table/additive")
    q, k, v = draw(15)
    torch.testing.assert_close(layer.attend(q, k, v, (3, 5)), layer.weights(q, k, (3, 5)) @ v)
    assert isinstance(layer.spatial, Table) and isinstance(layer, MODES["additive"]) and not isinstance(layer, PSA)
