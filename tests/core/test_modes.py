"""Every mode against its equation with loops over heads, queries and keys; every `attend` against the equation."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spvit_mini.attention import (
    GPSA,
    AffineAttention,
    ContextualAttention,
    GatedAttention,
    MaskedAttention,
    PositionOnlyAttention,
    WindowAttention,
)
from spvit_mini.attention_registry import CELLS, MAPS, MODES, attention_names, build_attention
from spvit_mini.errors import UserError
from spvit_mini.geometry import offsets, offsets_like
from spvit_mini.vit import ViT, ViTConfig

DIM, HEADS = 16, 2
SMALL = {"square_window": {"size": 2}, "cross_window": {"width": 2}, "window": {"size": 2, "shift": 1}}


def build(name, grid, spread=0.5):
    """Build a variant in float64 with all its numbers away from their start."""
    layer = build_attention(name, DIM, HEADS, grid=grid, **SMALL.get(name.partition("/")[0], {})).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=spread)
    return layer


def draw(tokens):
    """Draw q, k and v, (2, HEADS, tokens, C) each, that want gradients."""
    return [torch.randn(2, HEADS, tokens, DIM // HEADS, dtype=torch.float64, requires_grad=True) for _ in range(3)]


def softmax(values):
    """Normalise a list of (B,) numbers, some of which may be −∞."""
    powers = [value.exp() for value in values]
    return [power / sum(powers) for power in powers]


def written_out(layer, q, k, v, grid, prefix):
    """weights @ v from the equations of the modes: loops over heads, queries and keys; lists of (B,) numbers."""
    B, H, N, C = q.shape
    spatial = getattr(layer, "spatial", None) and layer.spatial(grid)
    mixed = []
    for h in range(H):
        for i in range(N):
            scores = [(q[:, h, i] * k[:, h, j]).sum(-1) / math.sqrt(C) for j in range(N)]
            has_position = i >= prefix  # a query without a position attends by content
            patches = [(j, j - prefix) for j in range(prefix, N)] if has_position else []
            at = i - prefix
            if isinstance(layer, ContextualAttention):
                for j, there in patches:
                    down, right = there // grid[1] - at // grid[1], there % grid[1] - at % grid[1]
                    for vectors, buckets in spatial:
                        embedding = vectors[buckets[down + grid[0] - 1, right + grid[1] - 1]]
                        scores[j] = scores[j] + (q[:, h, i] * embedding).sum(-1) / math.sqrt(C)
            elif isinstance(layer, MaskedAttention):
                for j, there in patches:
                    if not spatial[h if len(spatial) > 1 else 0, at, there]:
                        scores[j] = torch.full_like(scores[j], -math.inf)
            elif isinstance(layer, AffineAttention):
                for j, there in patches:
                    scores[j] = spatial[0, h, at, there] * scores[j] + spatial[1, h, at, there]
            elif layer.__class__ in MULTIPLIED:
                for j, there in patches:
                    scores[j] = spatial[h, at, there] * scores[j]
            elif layer.__class__ in ADDED:
                for j, there in patches:
                    scores[j] = scores[j] + spatial[h, at, there]
            weights = softmax(scores)
            if isinstance(layer, GatedAttention) and has_position:
                share = 1.0 if isinstance(layer, PositionOnlyAttention) else 1 / (1 + torch.exp(-layer.gate[h]))
                positional = [0.0] * prefix + softmax([spatial[h, at, there] for _, there in patches])
                weights = [(1 - share) * c + share * p for c, p in zip(weights, positional, strict=True)]
            mixed.append(sum(weights[j][:, None] * v[:, h, j] for j in range(N)))
    return torch.stack(mixed, dim=1).reshape(B, H, N, C)


ADDED = {MODES["additive"], *(kind for kind, _ in CELLS.values() if issubclass(kind, MODES["additive"]))}
MULTIPLIED = {MODES["multiplicative"], *(kind for kind, _ in CELLS.values() if issubclass(kind, MODES["multiplicative"]))}


def assert_same(ours, theirs, inputs, *, tolerance):
    """Compare two results in value and in the gradient of every input."""
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    weight = torch.randn_like(ours)
    mine, other = (
        torch.autograd.grad((out * weight).sum(), inputs, retain_graph=True, allow_unused=True, materialize_grads=True)
        for out in (ours, theirs)
    )
    for a, b in zip(mine, other, strict=True):
        assert torch.isfinite(a).all()
        scale = max(1.0, b.abs().max().item())
        torch.testing.assert_close(a / scale, b / scale, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("grid", "prefix"), [((3, 3), 0), ((2, 4), 1), ((3, 2), 2)])
@pytest.mark.parametrize("name", attention_names())
def test_every_mode_is_its_equation_in_value_and_gradient(name, grid, prefix):
    layer = build(name, grid)
    q, k, v = draw(prefix + grid[0] * grid[1])
    inputs = [q, k, v, *(p for n, p in layer.named_parameters() if not n.startswith(("qkv", "proj")))]
    theirs = written_out(layer, q, k, v, grid, prefix)
    assert_same(layer.weights(q, k, grid) @ v, theirs, inputs, tolerance=1e-10)
    assert_same(layer.attend(q, k, v, grid), theirs, inputs, tolerance=1e-10)


class OtherDevices(TorchDispatchMode):
    """Collect the operations that read or make a tensor of another device than one."""

    def __init__(self, device):
        super().__init__()
        self.device, self.found = device, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves([args, kwargs, result]) if isinstance(t, torch.Tensor)]
        self.found += [str(function) for t in tensors if t.device.type != self.device]
        return result


@pytest.mark.parametrize("name", attention_names())
def test_a_pass_copies_nothing_from_the_cpu(name):
    """Offsets and windows are made on the device of the layer: a copy would wait for it in each block."""
    grid = (3, 5)
    layer = build_attention(name, DIM, HEADS, grid=grid).to("meta")
    x = torch.randn(2, 16, DIM, device="meta", requires_grad=True)
    with OtherDevices("meta") as others:
        layer(x, grid).sum().backward()
        layer.weights(*layer.project(x)[:2], grid)
        with torch.no_grad():
            layer.eval()(x, grid)
    assert not others.found


def test_offsets_are_made_once_for_each_grid_device_and_dtype():
    cases = [((3, 4), torch.float32), ((3, 4), torch.float64), ((4, 3), torch.float32)]
    with torch.inference_mode():
        made = [offsets_like(torch.zeros(1, dtype=dtype), grid) for grid, dtype in cases]
    for (grid, dtype), delta in zip(cases, made, strict=True):
        assert torch.equal(delta, offsets(*grid).to(dtype)) and delta.dtype == dtype and not delta.is_inference()
        assert offsets_like(torch.nn.Parameter(torch.ones(2, dtype=dtype)), list(grid)) is delta
    assert offsets_like(torch.zeros(1, dtype=torch.bfloat16), (200, 2), torch.long).amax() == 199
    assert offsets_like(torch.zeros(1, device="meta"), (3, 4)).is_meta


SIZES = [((8, 8), 1), ((4, 16), 2), ((14, 14), 0)]


@pytest.mark.parametrize(("grid", "prefix"), SIZES)
@pytest.mark.parametrize("name", attention_names())
def test_attend_is_weights_times_v_in_value_and_gradient(name, grid, prefix):
    layer = build(name, grid, spread=0.1)
    q, k, v = draw(prefix + grid[0] * grid[1])
    inputs = [q, k, v, *(p for n, p in layer.named_parameters() if not n.startswith(("qkv", "proj")))]
    assert_same(layer.attend(q, k, v, grid), layer.weights(q, k, grid) @ v, inputs, tolerance=1e-10)


class Given(torch.nn.Module):
    """A map of numbers for one grid, to look at its own gradient: the parameters behind it sum this, and cancel."""

    def __init__(self, numbers):
        super().__init__()
        self.numbers = torch.nn.Parameter(numbers.detach())

    def forward(self, grid):
        return self.numbers


@pytest.mark.parametrize(("grid", "prefix"), [((8, 8), 1), ((14, 14), 0)])
@pytest.mark.parametrize("name", attention_names())
def test_attend_is_weights_times_v_in_bfloat16(name, grid, prefix):
    """As under autocast: q, k and v in bfloat16, the map in float32, near its start. float64 is the judge of both."""
    layer = build_attention(name, DIM, HEADS, grid=grid).double()
    for parameter in layer.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    if name != "mhsa" and MAPS[CELLS.get(name, (None, name.partition("/")[0]))[1]].kind.endswith(("number", "numbers")):
        layer.spatial = Given(layer.spatial(grid))

    def outcome(function, *qkv):
        """List the result and its gradients with respect to q, k, v and the map; the gate's two numbers cancel as well."""
        inputs = [*qkv, *(p for n, p in layer.named_parameters() if not n.startswith(("qkv", "proj", "gate")))]
        out = function(*qkv, grid)
        return [out, *torch.autograd.grad((out * weight).sum(), inputs, allow_unused=True, materialize_grads=True)]

    def written(q, k, v, grid):
        return layer.weights(q, k, grid).to(v.dtype) @ v

    qkv = [t.detach().bfloat16() for t in draw(prefix + grid[0] * grid[1])]
    weight = torch.randn(qkv[0].shape, dtype=torch.float64)
    truth = outcome(written, *(t.double().requires_grad_() for t in qkv))
    layer.float()
    for function in (layer.attend, written):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = outcome(function, *(t.clone().requires_grad_() for t in qkv))
        assert found[0].dtype == torch.bfloat16
        for a, b in zip(found, truth, strict=True):
            assert torch.isfinite(a).all()
            assert (a - b).norm() <= 0.06 * b.norm() + 1e-6, ((a - b).norm() / b.norm(), a.shape)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels in question run on CUDA")
@pytest.mark.parametrize("grid", [(8, 8), (14, 14)])
@pytest.mark.parametrize("name", attention_names())
def test_strongly_negative_scores_leave_cuda_s_gradients_finite(name, grid):
    """pytorch#196678: cuDNN with any mask, 64 tokens and all scores below −88 gives NaN for q's gradient."""
    layer = build_attention(name, 4 * 64, 4, grid=grid).cuda()
    q, k, v = 0.1 * torch.randn(3, 2, 4, grid[0] * grid[1], 64, device="cuda", dtype=torch.bfloat16)
    q[..., 0], k[..., 0] = 1.0, -120 * 8
    inputs = [t.requires_grad_() for t in (q, k, v)]
    with torch.autocast("cuda", dtype=torch.bfloat16):
        out = layer.attend(*inputs, grid)
    gradients = torch.autograd.grad(out.square().sum(), inputs, allow_unused=True, materialize_grads=True)
    assert all(torch.isfinite(gradient).all() for gradient in (out, *gradients))


# --- Prefix tokens, the rule of each mode once more by itself ------------------------------------------------------------


@pytest.mark.parametrize("name", attention_names())
def test_prefix_tokens_attend_by_content(name):
    layer, (q, k, _) = build(name, (3, 4)), draw(14)
    content = (q @ k.transpose(-2, -1) / math.sqrt(DIM // HEADS)).softmax(-1)
    torch.testing.assert_close(layer.weights(q, k, (3, 4))[:, :, :2], content[:, :, :2])


@pytest.mark.parametrize("name", attention_names())
def test_patches_attend_to_prefix_tokens_by_the_rule_of_the_mode(name):
    layer, (q, k, _) = build(name, (3, 4)), draw(14)
    scores = q @ k.transpose(-2, -1) / math.sqrt(DIM // HEADS)
    weights = layer.weights(q, k, (3, 4))[:, :, 2:]
    if isinstance(layer, PositionOnlyAttention):
        assert (weights[..., :2] == 0).all()
    elif isinstance(layer, GatedAttention):
        share = layer.gate.sigmoid()[:, None, None]
        torch.testing.assert_close(weights[..., :2], (1 - share) * scores.softmax(-1)[:, :, 2:, :2])
    else:  # neither moved nor scaled: between two prefix tokens only the content decides
        ratio = (scores[:, :, 2:, 0] - scores[:, :, 2:, 1]).exp()
        torch.testing.assert_close(weights[..., 0] / weights[..., 1], ratio)
        assert (weights[..., :2] > 0).all()


def test_fewer_tokens_than_patches_are_refused():
    for name in ("spsa", "gpsa", "window", "shaw2d/contextual"):
        q, k, v = draw(11)
        with pytest.raises(UserError, match="11 tokens are fewer than the 12 patches"):
            build(name, (3, 4)).attend(q, k, v, (3, 4))


# --- Properties of the named attentions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["additive", "position_only", "gated"])
def test_nine_local_heads_are_any_3_by_3_convolution(mode):
    """Cordonnier et al. 2020, theorem 1: sharp heads at the nine neighbours, W_q = W_k = 0, the kernel in W_v and W_proj."""
    grid, channels, heads = (6, 7), 4, 9
    dim = heads * channels
    layer = build_attention(f"quadratic/{mode}", dim, heads, grid=grid, strength=30.0).double()
    kernel = torch.randn(dim, channels, 3, 3, dtype=torch.float64)
    centres = [tuple(c) for c in (layer.spatial.v[:, 1:] / 60).round().int().tolist()]  # v = −α(1, −2Δ)
    assert sorted(centres) == [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    with torch.no_grad():
        layer.qkv.weight.zero_()
        layer.proj.weight.zero_(), layer.proj.bias.zero_()
        if mode == "gated":
            layer.gate.fill_(40.0)
        for h, (down, right) in enumerate(centres):
            of_head = slice(h * channels, (h + 1) * channels)
            layer.qkv.weight[2 * dim :][of_head, :channels] = torch.eye(channels)  # each head takes the first channels
            layer.proj.weight[:, of_head] = kernel[:, :, down + 1, right + 1]
    x = torch.randn(2, grid[0] * grid[1], dim, dtype=torch.float64)
    ours = layer(x, grid).transpose(1, 2).unflatten(-1, grid)
    theirs = torch.nn.functional.conv2d(x[..., :channels].transpose(1, 2).unflatten(-1, grid), kernel)
    torch.testing.assert_close(ours[..., 1:-1, 1:-1], theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in attention_names() if n.endswith("masked") or n == "window"])
def test_windows_put_exactly_0_outside(name):
    layer, (q, k, _) = build(name, (5, 6)), draw(30)
    weights, inside = layer.weights(q, k, (5, 6)), layer.spatial((5, 6)).expand(HEADS, -1, -1)
    assert (weights[:, ~inside] == 0).all() and (weights[:, inside] > 0).all()
    assert not inside.all()


def swin(q, k, v, grid, size, shift):
    """Attention in shifted windows as Swin computes it: roll, cut into windows, −∞ between regions that do not adjoin."""
    rows, columns = grid

    def cut(x):  # (..., R, C) → (..., windows, size²)
        x = x.unflatten(-2, (rows // size, size)).unflatten(-1, (columns // size, size))
        return x.transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)

    def windows(x):  # (B, H, N, C) → (B, H, windows, size², C)
        rolled = x.unflatten(2, grid).roll((-shift, -shift), dims=(2, 3))
        return cut(rolled.movedim(-1, 2)).movedim(2, -1)

    region = torch.zeros(grid, dtype=torch.long)
    parts = [slice(0, -size), slice(-size, -shift or None), slice(-shift, None) if shift else slice(0, 0)]
    for a, down in enumerate(parts):
        for b, right in enumerate(parts):
            region[down, right] = 3 * a + b
    region = cut(region)  # (windows, size²), of the rolled image
    scores = windows(q) @ windows(k).transpose(-2, -1) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(region[:, :, None] != region[:, None, :], -math.inf)
    mixed = (scores.softmax(-1) @ windows(v)).movedim(-1, 2)  # (B, H, C, windows, size²)
    mixed = mixed.unflatten(-2, (rows // size, columns // size)).unflatten(-1, (size, size)).transpose(-3, -2)
    rolled = mixed.flatten(-4, -3).flatten(-2, -1)  # (B, H, C, R, C)
    return rolled.roll((shift, shift), dims=(-2, -1)).flatten(-2).transpose(-2, -1)


@pytest.mark.parametrize(("grid", "size", "shift"), [
    ((4, 4), 2, 0), ((4, 4), 2, 1), ((8, 8), 4, 2), ((6, 9), 3, 1), ((6, 9), 3, 2), ((4, 8), 4, 1), ((4, 4), 4, 3)
])  # fmt: skip
def test_shifted_windows_are_swin_s(grid, size, shift):
    layer, (q, k, v) = WindowAttention(DIM, HEADS, size, shift=shift), draw(grid[0] * grid[1])
    torch.testing.assert_close(layer.attend(q, k, v, grid), swin(q, k, v, grid, size, shift))


def test_gpsa_is_initialised_with_the_patches_themselves_as_values_also_inside_a_model():
    layer = GPSA(18, 9)
    assert torch.equal(layer.qkv.weight[36:], torch.eye(18)) and (layer.gate == 1).all()
    model = ViT(ViTConfig(attention="gpsa", dim=18, heads=9, depth=2, init_std=0.02))
    for attention in model.attentions():
        assert torch.equal(attention.qkv.weight[36:], torch.eye(18)) and attention.qkv.weight[:36].std() < 0.03


def test_gpsa_without_local_initialisation_attends_everywhere_by_position_and_draws_its_values():
    options = {"attention": "gpsa", "attention_options": {"strength": 0}, "dim": 18, "heads": 9, "depth": 1}
    (attention,) = ViT(ViTConfig(**options, init_std=0.02)).attentions()
    torch.testing.assert_close(attention.spatial((3, 4)).softmax(-1), torch.full((9, 12, 12), 1 / 12))
    assert 0.01 < attention.qkv.weight[36:].std() < 0.03


def test_a_positional_head_gives_every_image_the_same_attention():
    layer, (q, k, _) = build("quadratic/position_only", (3, 4)), draw(12)
    weights = layer.weights(q, k, (3, 4))
    torch.testing.assert_close(weights[0], weights[1])
    torch.testing.assert_close(weights[0], layer.spatial((3, 4)).softmax(-1))


@pytest.mark.parametrize("name", ["log_cpb/additive", "mlp/multiplicative", "quadratic/gated", "table/additive"])
def test_the_initialisation_of_a_model_does_not_change_its_maps(name):
    """log-CPB's MLP is made of linear layers too; a narrow distribution would flatten it."""
    model = ViT(ViTConfig(attention=name, depth=2, init_std=0.02))
    torch.manual_seed(torch.initial_seed())
    plain = ViT(ViTConfig(attention=name, depth=2, init_std=None))
    for one, other in zip(model.attentions(), plain.attentions(), strict=True):
        torch.testing.assert_close(one.spatial((4, 5)), other.spatial((4, 5)))
