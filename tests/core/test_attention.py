"""Attention, against its equations written out in float64 with loops over heads and all N² pairs."""

from functools import partial

import pytest
import torch

from spvit_mini import attention_backends
from spvit_mini.attention import GPSA, MHSA, PSA, SPSA, AnchoredSPSA, ContextualAttention, RelativeBias, WindowAttention
from spvit_mini.errors import UserError
from spvit_mini.geometry import pad_prefix, pair_offsets
from spvit_mini.spatial import Anchored, LogCPB, PriorMLP, Quadratic, Shaw2D, SquareWindow, Table

GRIDS = [(1, 1), (5, 5), (3, 6), (7, 2)]


def written_out(layer, x, grid, prefix):
    """SP-SA from the paper's equation: a loop over heads, the prior evaluated on every pair of patches."""
    B, N, D = x.shape
    C = D // layer.heads
    q, k, v = (x @ layer.qkv.weight.T).split(D, dim=-1)
    delta = pair_offsets(*grid).to(x.dtype)
    heads = []
    for h in range(layer.heads):
        of_head = slice(h * C, (h + 1) * C)
        scores = torch.einsum("bic,bjc->bij", q[..., of_head], k[..., of_head]) / C**0.5
        prior = torch.ones(N, N, dtype=x.dtype)
        f = layer.spatial
        prior[prefix:, prefix:] = torch.relu(delta @ f.w1[h].T + f.b1[h]) @ f.w2[h] + f.b2[h]
        scores = prior * scores
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        heads.append(torch.einsum("bij,bjc->bic", weights, v[..., of_head]))
    return torch.cat(heads, dim=-1) @ layer.proj.weight.T + layer.proj.bias


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize(("heads", "hidden"), [(1, 1), (2, 64), (3, 32), (12, 5)])
def test_spsa_is_the_equation_in_value_and_all_gradients(grid, prefix, heads, hidden):
    torch.manual_seed(prefix)
    layer = SPSA(24, heads, hidden).double()
    torch.nn.init.normal_(layer.spatial.w2, std=0.3), torch.nn.init.normal_(layer.spatial.b2)
    x = torch.randn(2, prefix + grid[0] * grid[1], 24, dtype=torch.float64, requires_grad=True)
    weight = torch.randn_like(x)
    inputs = [x, *layer.parameters()]
    ours, theirs = layer(x, grid), written_out(layer, x, grid, prefix)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    got = torch.autograd.grad((ours * weight).sum(), inputs)
    expected = torch.autograd.grad((theirs * weight).sum(), inputs)
    for mine, other in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("prefix", [0, 1])
def test_spsa_starts_as_mhsa_to_the_last_bit(dtype, prefix):
    grid = (4, 6)
    spsa, mhsa = SPSA(32, 4).to(dtype), MHSA(32, 4).to(dtype)
    mhsa.load_state_dict({name: p for name, p in spsa.state_dict().items() if not name.startswith("spatial")})
    q, k = torch.randn(2, 3, 4, prefix + 24, 8, dtype=dtype)
    assert torch.equal(spsa.weights(q, k, grid), mhsa.weights(q, k, grid))


@pytest.mark.parametrize("bias", [False, True])
def test_mhsa_is_torch_s_multihead_attention(bias):
    ours = MHSA(24, 3, qkv_bias=bias).double()
    theirs = torch.nn.MultiheadAttention(24, 3, batch_first=True, bias=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias if bias else torch.zeros(72))
        theirs.out_proj.weight.copy_(ours.proj.weight), theirs.out_proj.bias.copy_(ours.proj.bias)
    x = torch.randn(2, 10, 24, dtype=torch.float64)
    torch.testing.assert_close(ours(x, (2, 5)), theirs(x, x, x, need_weights=False)[0])


@pytest.mark.parametrize("variant", [MHSA, SPSA])
@pytest.mark.parametrize(("grid", "prefix"), [((8, 8), 1), ((4, 16), 2)])
def test_attend_is_weights_times_v_in_a_bfloat16_layer(variant, grid, prefix):
    """Without autocast; in float64 and under autocast every attention is compared in test_modes.py."""
    dtype, tolerance = torch.bfloat16, 3e-2
    layer = variant(32, 4).to(dtype)
    if variant is SPSA:
        torch.nn.init.normal_(layer.spatial.w2, std=0.1)
    q, k, v = (torch.randn(2, 4, prefix + grid[0] * grid[1], 8, dtype=dtype, requires_grad=True) for _ in range(3))
    weight = torch.randn_like(v)
    fast, slow = layer.attend(q, k, v, grid), layer.weights(q, k, grid) @ v
    torch.testing.assert_close(fast, slow, rtol=tolerance, atol=tolerance)
    for mine, other in zip(
        torch.autograd.grad((fast * weight).sum(), (q, k, v)),
        torch.autograd.grad((slow * weight).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


def test_weights_are_distributions_over_the_keys():
    layer = SPSA(32, 4)
    torch.nn.init.normal_(layer.spatial.w2)
    weights = layer.weights(*torch.randn(2, 3, 4, 13, 8), (3, 4))
    assert weights.shape == (3, 4, 13, 13) and weights.min() >= 0
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4, 13))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(UserError, match="5 heads do not divide a width of 24"):
        MHSA(24, 5)


@pytest.mark.parametrize("images", [1, 3, 7, 100])
def test_parts_of_a_batch_add_up_to_the_batch(images, monkeypatch):
    layer = SPSA(32, 4).double()
    torch.nn.init.normal_(layer.spatial.w2, std=0.3)
    q, k, v = (torch.randn(7, 4, 15, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    monkeypatch.setattr(attention_backends, "CACHE", images * 4 * 15 * 15 * 8)
    inputs = [q, k, v, *layer.spatial.parameters()]
    fast, slow = layer.attend(q, k, v, (3, 5)), layer.weights(q, k, (3, 5)) @ v
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)
    for mine, other in zip(
        torch.autograd.grad(fast.square().sum(), inputs), torch.autograd.grad(slow.square().sum(), inputs), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-10)


NO_GRIDS = [None, 14, (4,), (4, 4, 4), (0, 4), (4, -1), (4, 2.5), "44", "4"]


@pytest.mark.parametrize("build", [partial(RelativeBias, 16, 2), partial(Table, 2), partial(LogCPB, 2)])
@pytest.mark.parametrize("grid", NO_GRIDS, ids=str)
def test_a_map_of_the_size_of_a_grid_needs_a_grid(build, grid):
    with pytest.raises(UserError, match="grid is .*; expected 2 values: an integer from 1 to"):
        build(grid)


def test_a_relative_bias_without_a_grid_or_a_table_is_refused():
    with pytest.raises(UserError, match="grid is None"):
        RelativeBias(16, 2)
    assert RelativeBias(16, 2, [4, 5]).spatial.values.shape == (2, 7, 9)
    assert RelativeBias(16, 2, (4, 5), std=0.5).spatial.values.std() > 0.2


OWN_MAPS = {
    RelativeBias: (lambda: Table(2, (4, 4)), [{"grid": (4, 4)}, {"std": 0.1}]),
    WindowAttention: (lambda: SquareWindow(2), [{"size": 4}, {"shift": 0}, {"shift": 1}]),
    PSA: (lambda: Quadratic(2), [{"strength": 1.0}]),
    GPSA: (lambda: Quadratic(2), [{"strength": 0.0}]),
    SPSA: (lambda: PriorMLP(2, 4), [{"hidden": 8}, {"hidden": 32}, {"weight_std": 0.02}, {"log": False}]),
    AnchoredSPSA: (lambda: Anchored(2, 4), [{"hidden": 8}, {"strength": 2.0}, {"log": True}]),
}


@pytest.mark.parametrize(("kind", "options"), [(kind, options) for kind, (_, all_) in OWN_MAPS.items() for options in all_])
def test_options_beside_a_map_are_refused_since_the_map_decides(kind, options):
    spatial = OWN_MAPS[kind][0]()
    assert kind(16, 2, spatial=spatial).spatial is spatial
    with pytest.raises(UserError, match=f"{next(iter(options))} is .* beside the map {type(spatial).__name__}; expected one"):
        kind(16, 2, spatial=spatial, **options)


@pytest.mark.parametrize("prefix", [0, 2])
def test_the_maps_for_all_tokens_are_neutral_for_prefix_tokens(prefix):
    """An affine mode pads its factor by 1, its addend by 0; a mode whose map has no value for them has no such method."""
    grid, tokens = (2, 3), prefix + 6
    layer = AnchoredSPSA(16, 2, 4)
    torch.nn.init.normal_(layer.spatial.prior.w2)
    f, g = layer.spatial_map(tokens, grid)
    factor, addend = layer.spatial(grid)
    assert torch.equal(f, pad_prefix(factor, prefix, 1.0)) and torch.equal(g, pad_prefix(addend, prefix, 0.0))
    assert torch.equal(SPSA(16, 2, spatial=layer.spatial.prior).spatial_map(tokens, grid), f)
    assert torch.equal(PSA(16, 2, spatial=layer.spatial.anchor).spatial_map(tokens, grid), g)
    for other in (GPSA(16, 2), WindowAttention(16, 2), ContextualAttention(16, 2, Shaw2D(8)), MHSA(16, 2)):
        assert not hasattr(other, "spatial_map")
