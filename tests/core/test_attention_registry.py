"""The matrix of attentions: its cells, what is refused and why, shared maps, and the registration of others."""

from functools import partial

import pytest
import torch

from spvit_mini import attention_registry, create_model, register_attention, register_map, save_weights
from spvit_mini.attention import MHSA, PSA
from spvit_mini.attention_registry import MAPS, MODES, attention_names, build_attention, matrix, refusal
from spvit_mini.errors import UserError
from spvit_mini.explain import attribution
from spvit_mini.flops import multiply_adds
from spvit_mini.geometry import offsets, pair_offsets
from spvit_mini.spatial import Constant, OffsetMap, Table
from spvit_mini.vit import ViT, ViTConfig
from spvit_mini.zoo import model_from_weights

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
SENSIBLE = {(m, mode) for m in NUMBERS for mode in ("additive", "position_only", "gated", "multiplicative")}
SENSIBLE -= {("log_cpb", "multiplicative")}
SENSIBLE |= {("constant", "multiplicative"), ("twin_mlp", "affine"), ("anchored_mlp", "affine")}
SENSIBLE |= {("shaw1d", "contextual"), ("shaw2d", "contextual"), ("irpe", "contextual")}
SENSIBLE |= {("square_window", "masked"), ("cross_window", "masked")}


def test_the_sensible_cells_are_these():
    assert {tuple(name.split("/")) for name in attention_names() if "/" in name} == SENSIBLE
    assert [name for name in attention_names() if "/" not in name] == [
        "mhsa", "rpb", "window", "psa", "gpsa", "spsa", "anchored",
    ]  # fmt: skip


REASONS = {
    "embedding": "needs a dot product with the query first",
    "in or out": "only a mask removes the outside",
    "two numbers": "a factor and an addend",
    "number": "the map gives one number",
}


@pytest.mark.parametrize(("map_name", "mode"), [(m, mode) for m in MAPS for mode in MODES if (m, mode) not in SENSIBLE])
def test_the_other_cells_are_refused_with_the_reason(map_name, mode):
    reason = REASONS[MAPS[map_name].kind]
    if map_name == "constant" and mode in ("additive", "position_only", "gated"):
        reason = "softmax does not change if a number is added to every score"
    if (map_name, mode) == ("log_cpb", "multiplicative"):
        reason = "a factor must begin at 1"
    with pytest.raises(UserError, match=f"the map '{map_name}' cannot be .*{reason}"):
        build_attention(f"{map_name}/{mode}", DIM, HEADS, grid=(4, 4))
    assert reason in refusal(map_name, mode)


FACTORS = ["spsa", "anchored", *(name for name in attention_names() if name.endswith(("multiplicative", "affine")))]


@pytest.mark.parametrize("name", FACTORS)
def test_every_factor_of_the_scores_begins_neutral(name):
    """Each factor is 1 for all pairs of patches; a table begins within its noise around 1."""
    layer = build_attention(name, DIM, HEADS, grid=(3, 5))
    factor = layer.spatial((3, 5))
    factor = factor[0] if factor.ndim == 4 else factor
    assert factor.shape == (HEADS, 15, 15)
    if name == "table/multiplicative":  # drawn with a standard deviation of 0.02, cut off at two of them
        assert (factor - 1).abs().max() <= 0.04 and abs(factor.mean().item() - 1) < 0.01
    else:
        assert torch.equal(factor, torch.ones_like(factor))


def test_the_refused_constant_would_indeed_change_nothing():
    q, k, _ = draw(12)
    layer = MODES["additive"](DIM, HEADS, Constant(HEADS, neutral=3.0)).double()
    torch.testing.assert_close(layer.weights(q, k, (3, 4)), MHSA(DIM, HEADS).weights(q, k, (3, 4)))


@pytest.mark.parametrize(("name", "options", "message"), [
    ("mlp/multipled", {}, "attention is 'mlp/multipled'; expected .* Did you mean mlp/multiplicative.* Use --import FILE"),
    ("gspa", {}, "Did you mean .*gpsa"),
    ("mhsa", {"hidden": 3}, "options of attention mhsa are {'hidden': 3}"),
    ("table/additive", {"hidden": 3}, "options of attention table/additive are {'hidden': 3}"),
    ("window", {"size": 0}, "attention window: size is 0; expected an integer"),
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
        cells = [line[14 + 16 * i : 30 + 16 * i].strip() for i in range(len(MODES))]
        name = line[:14].strip()
        assert {mode for mode, cell in zip(MODES, cells, strict=True) if cell} == {mode for m, mode in SENSIBLE if m == name}
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


@pytest.mark.parametrize("name", [n for n in attention_names() if n not in ("mhsa", "cross_window/masked")])
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


@pytest.mark.parametrize(
    ("name", "map_heads", "message"),
    [
        ("mhsa", 1, "map_heads is 1 for attention mhsa of 2 heads; expected None, since it has no map to share"),
        ("spsa", 3, "map_heads is 3 for attention spsa of 2 heads; expected 1, or 2, one for each"),
        ("table/additive", 0, "map_heads is 0 for attention table/additive"),
        ("cross_window/masked", 1, "heads is 1 for cross-shaped windows; expected an even number. Use sharing 'head'"),
    ],
)
def test_a_number_of_maps_that_would_be_ignored_is_refused(name, map_heads, message):
    with pytest.raises(UserError, match=message):
        build_attention(name, DIM, HEADS, grid=(4, 4), map_heads=map_heads)


@pytest.mark.parametrize("sharing", ["block", "network"])
def test_an_attention_without_a_map_shares_none(sharing):
    with pytest.raises(UserError, match="attention mhsa of 4 heads; expected None, since it has no map to share"):
        shared(sharing, "mhsa")


@pytest.mark.parametrize(
    ("name", "options", "odd"),
    [("window", {}, {"shift": 2}), ("spsa", {"hidden": 4}, {"hidden": 8}), ("square_window/masked", {}, {"size": 2})],
)
def test_blocks_with_maps_of_their_own_share_none_over_the_network(name, options, odd):
    """The first block's map would replace the others: a shifted window, for example, would not be shifted."""
    with pytest.raises(UserError, match="sharing is 'network' and odd_block_options are .* Use sharing 'block'"):
        shared("network", name, attention_options=options, odd_block_options=odd)
    blocks = shared("block", name, attention_options=options, odd_block_options=odd).attentions()
    values = [getattr(a.spatial, *odd) if name != "spsa" else a.spatial.w1.shape[1] for a in blocks]
    assert values[1] == next(iter(odd.values())) != values[0]
    same = shared("network", name, attention_options=odd, odd_block_options=odd).attentions()  # no second map
    assert len({a.spatial for a in same}) == 1


# --- Registration ----------------------------------------------------------------------------------------------------------


class Average(torch.nn.Module):
    """An attention of a user's own, a plain module: the mean over all tokens. It has neither weights nor a map."""

    def __init__(self, dim, heads, *, grid, qkv_bias, **options):
        super().__init__()
        self.value = torch.nn.Linear(dim, dim, **options)

    def forward(self, x, grid):
        return self.value(x.mean(1, keepdim=True)).expand_as(x)


class Decay(OffsetMap):
    """A map of a user's own, without parameters: neutral − scale · ‖δ‖."""

    def __init__(self, neutral, scale):
        super().__init__(neutral)
        self.scale = scale

    def table(self, grid):
        return self.neutral - self.scale * offsets(*grid).double().norm(dim=-1)[None]


def build_decay(heads, grid, head_dim, neutral, scale=1.0):
    return Decay(neutral, scale)


@pytest.fixture
def registry(monkeypatch):
    """The registry with an attention and a map more, which are gone after the test."""
    monkeypatch.setattr(attention_registry, "ATTENTIONS", dict(attention_registry.ATTENTIONS))
    monkeypatch.setattr(attention_registry, "MAPS", dict(MAPS))
    for _ in range(2):  # again with the same factory: fine
        register_attention("average", Average)
        register_map("decay", build_decay)
    return attention_registry


def test_an_attention_without_weights_and_map_is_trained_saved_and_rebuilt(registry, tmp_path):
    model = create_model("vit_mini", attention="average", depth=2, attention_options={"bias": False})
    images, linear = torch.randn(2, 3, 32, 32), 2 * 192**2
    model(images).square().sum().backward()
    assert model.blocks[1].attention.value.weight.grad.abs().max() > 0 and model.blocks[0].attention.value.bias is None
    save_weights(model, tmp_path / "w.safetensors")
    assert torch.equal(model_from_weights(tmp_path / "w.safetensors").eval()(images), model.eval()(images))
    with pytest.warns(UserWarning, match="Average has no method multiply_adds; only its linear layers are counted"):
        cost, plain = (multiply_adds(m) for m in (model, create_model("vit_mini", depth=2)))
    assert cost["proj"] == 64 * linear and cost["qkv"] == cost["map"] == 0 and cost["mlp"] == plain["mlp"]


def test_what_an_attention_lacks_is_said_in_one_line(registry):
    model, images = create_model("vit_mini", attention="average", depth=2), torch.randn(2, 3, 32, 32)
    rollout, relevance = (partial(f, model) for f in (attribution.attention_rollout, attribution.class_relevance))
    for explain in (model.attention_maps, rollout, relevance):
        with pytest.raises(UserError, match="Average has no attention weights to record; derive it from attention.MHSA$"):
            explain(images)
    assert model.spatial_maps() == attribution.gates(model) == [None, None] and attribution.priors(model) == []


@pytest.mark.parametrize(("mode", "options"), [("additive", {}), ("multiplicative", {"scale": 0.1})])
def test_a_registered_map_enters_by_every_mode_of_its_kind(registry, mode, options):
    layer = build_attention(f"decay/{mode}", DIM, HEADS, grid=(3, 4), **options).double()
    q, k, v = draw(12)
    distance, scores = pair_offsets(3, 4).double().norm(dim=-1), layer.scores(q, k)
    expected = (scores - distance if mode == "additive" else scores * (1 - 0.1 * distance)).softmax(-1)
    torch.testing.assert_close(layer.weights(q, k, (3, 4)), expected)
    torch.testing.assert_close(layer.eval().attend(q, k, v, (3, 4)), expected @ v)
    assert {f"decay/{m}" for m in ("additive", "position_only", "gated", "multiplicative")} <= set(attention_names())
    assert "decay" in matrix() and "average" in attention_names()
    with pytest.raises(UserError, match="the map 'decay' cannot be masked: the mode needs in or out for each pair"):
        build_attention("decay/masked", DIM, HEADS, grid=(3, 4))
    (prior,) = attribution.priors(create_model("vit_mini", attention=f"decay/{mode}", attention_options=options, depth=1))
    assert prior.multiplies == (mode == "multiplicative") and prior.table.shape == (1, 15, 15)


@pytest.mark.parametrize(
    ("register", "name", "factory", "message"),
    [
        (register_attention, "spsa", Average, "the name 'spsa' is taken by another attention; expected a new name"),
        (register_attention, "average", lambda *_, **__: None, "the name 'average' is taken"),
        (register_attention, "My", Average, "the name of the attention is 'My'; expected a lowercase identifier"),
        (register_attention, "mlp/mine", Average, "the name of the attention is 'mlp/mine'"),
        (register_attention, "", Average, "the name of the attention is ''"),
        (register_attention, "mine", "Average", "the factory of attention mine is 'Average'; expected a function or class"),
        (register_map, "mlp", build_decay, "the name 'mlp' is taken by another map"),
        (register_map, "two-d", build_decay, "the name of the map is 'two-d'"),
        (partial(register_map, kind="numbers"), "mine", build_decay, "the kind of map mine is 'numbers'; expected one of number"),
    ],
)
def test_a_wrong_registration_is_one_clear_line(registry, register, name, factory, message):
    with pytest.raises(UserError, match=message):
        register(name, factory)


def test_what_a_factory_does_wrong_is_one_clear_line(registry):
    register_attention("nothing", lambda dim, heads, **options: None)
    with pytest.raises(UserError, match="the factory of attention nothing returned NoneType; expected a torch.nn.Module"):
        build_attention("nothing", DIM, HEADS, grid=(4, 4))
    with pytest.raises(UserError, match=r"options of attention average are \{'hidden': 3\}; expected those of its class"):
        build_attention("average", DIM, HEADS, grid=(4, 4), hidden=3)
