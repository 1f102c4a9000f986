"""What LV-ViT and SP-ViT add to the plain model, each part written out: stem, scaled residuals, PEG, dense head, MixToken."""

import pytest
import torch
import torch.nn.functional as F

from spvit_mini.errors import UserError
from spvit_mini.vit import PEG, Stem, StochasticDepth, ViT, ViTConfig, swap_box

PLAIN = {"image_size": (16, 24), "dim": 24, "depth": 3, "heads": 3, "num_classes": 5}
LVVIT = {**PLAIN, "pool": "class", "dense_head": True, "stem": 6, "residual_scale": 3.0, "norm_eps": 1e-5}
SPVIT = {**LVVIT, "attention": "spsa", "peg": True, "spatial_layers": 2, "class_token_block": 2}


def build(options):
    """Build a model in float64 with all its numbers away from their start, running statistics too."""
    model = ViT(ViTConfig(**options)).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    return model.eval()


def draw(batch=3):
    return torch.randn(batch, 3, 16, 24, dtype=torch.float64)


def stem_by_hand(p, buffers, images):
    x = images
    for conv, norm, stride, padding in ((0, 1, 2, 3), (3, 4, 1, 1), (6, 7, 1, 1)):
        x = F.conv2d(x, p[f"embed.{conv}.weight"], stride=stride, padding=padding)
        mean, variance = (buffers[f"embed.{norm}.running_{s}"][:, None, None] for s in ("mean", "var"))
        weight, bias = (p[f"embed.{norm}.{s}"][:, None, None] for s in ("weight", "bias"))
        x = torch.relu((x - mean) / (variance + 1e-5).sqrt() * weight + bias)
    return F.conv2d(x, p["embed.9.weight"], p["embed.9.bias"], stride=2)


def peg_by_hand(x, weight, bias, prefix):
    """x + the depthwise 3×3 convolution, one patch and one neighbour after the other."""
    out = x.clone()
    for r in range(4):
        for c in range(6):
            out[:, prefix + 6 * r + c] += bias
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    if 0 <= r + down < 4 and 0 <= c + right < 6:
                        neighbour = x[:, prefix + 6 * (r + down) + c + right]
                        out[:, prefix + 6 * r + c] += weight[:, 0, down + 1, right + 1] * neighbour
    return out


def by_hand(model, images):
    """The tokens after the last norm, from the parameters; the attention layer itself is taken as it is."""
    p, buffers, config = dict(model.named_parameters()), dict(model.named_buffers()), model.config
    x = (stem_by_hand(p, buffers, images) + p["positions"]).flatten(2).transpose(1, 2)

    def norm(x, name):
        return F.layer_norm(x, (24,), p[f"{name}.weight"], p[f"{name}.bias"], config.norm_eps)

    for i, block in enumerate(model.blocks):
        if i == config.class_token_block:
            x = torch.cat([p["class_token"].expand(len(x), 1, 24), x], dim=1)
        name = f"blocks.{i}"
        x = x + block.attention(norm(x, f"{name}.norm1"), (4, 6)) / config.residual_scale
        h = F.gelu(norm(x, f"{name}.norm2") @ p[f"{name}.mlp.0.weight"].T + p[f"{name}.mlp.0.bias"])
        x = x + (h @ p[f"{name}.mlp.2.weight"].T + p[f"{name}.mlp.2.bias"]) / config.residual_scale
        if config.peg:
            x = peg_by_hand(x, p[f"{name}.peg.conv.weight"], p[f"{name}.peg.conv.bias"], int(i >= config.class_token_block))
    return norm(x, "norm")


@pytest.mark.parametrize("options", [LVVIT, SPVIT], ids=["lvvit", "spvit"])
def test_the_whole_is_its_parts(options):
    model, images = build(options), draw()
    tokens = by_hand(model, images)
    torch.testing.assert_close(model.forward_features(images), tokens, rtol=1e-10, atol=1e-10)
    logits = tokens[:, 0] @ model.head.weight.T + model.head.bias
    patches = tokens[:, 1:] @ model.dense_head.weight.T + model.dense_head.bias
    for ours, theirs in zip(model(images, dense=True), (logits, patches), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model(images), logits + 0.5 * patches.max(dim=1).values, rtol=1e-10, atol=1e-10)


def test_the_stem_of_patches_of_16_halves_once_and_cuts_patches_of_8():
    stem = Stem(3, 64, 384, 16)
    shapes = [(m.kernel_size, m.stride, m.out_channels) for m in stem if isinstance(m, torch.nn.Conv2d)]
    assert shapes == [((7, 7), (2, 2), 64), ((3, 3), (1, 1), 64), ((3, 3), (1, 1), 64), ((8, 8), (8, 8), 384)]


@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_peg_moves_patches_only(prefix):
    peg, x = PEG(8).double(), torch.randn(2, prefix + 24, 8, dtype=torch.float64)
    ours = peg(x, (4, 6))
    assert torch.equal(ours[:, :prefix], x[:, :prefix])
    torch.testing.assert_close(ours, peg_by_hand(x, peg.conv.weight, peg.conv.bias, prefix))


def test_peg_without_positions_tells_patches_apart_by_the_border():
    """Equal patches everywhere: only zeros around the image can make tokens differ."""
    blank = torch.ones(1, 3, 16, 24, dtype=torch.float64)
    plain = build({**PLAIN, "positions": False}).forward_features(blank)
    encoded = build({**PLAIN, "positions": False, "peg": True}).forward_features(blank)
    assert plain.std(dim=1).max() < 1e-9 and encoded.std(dim=1).max() > 1e-2


class Given(torch.nn.Module):
    """A stem that has found its tokens already."""

    def __init__(self, tokens):
        super().__init__()
        self.tokens = tokens

    def forward(self, images):
        return self.tokens


@pytest.mark.parametrize("box", [(0, 0, 4, 6), (1, 2, 3, 5), (2, 2, 2, 4)])
def test_mix_token_trades_a_box_of_tokens_and_brings_the_dense_logits_home(box):
    """As LV-ViT does: tokens are swapped after the stem, before the positions; dense outputs are swapped back."""
    model, images = build(LVVIT), draw()
    inside = torch.zeros(4, 6, dtype=torch.bool)
    for r in range(box[0], box[2]):
        for c in range(box[1], box[3]):
            inside[r, c] = True
    plain, stem = model.embed(images), model.embed
    model.embed = Given(torch.where(inside, plain.flip(0), plain))
    logits, mixed = model(images, dense=True)
    model.embed = stem
    home = torch.where(inside.flatten()[:, None], mixed.flip(0), mixed)
    for ours, theirs in zip(model(images, dense=True, mix=box), (logits, home), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_swapping_a_box_twice_gives_back_what_was():
    x = torch.randn(4, 5, 4, 6)
    once = swap_box(x, (1, 0, 4, 3))
    assert torch.equal(once[:, :, 1:, :3], x.flip(0)[:, :, 1:, :3]) and torch.equal(once[:, :, :, 3:], x[:, :, :, 3:])
    assert torch.equal(swap_box(once, (1, 0, 4, 3)), x)


@pytest.mark.parametrize(("options", "message"), [
    ({"dense_head": True}, "Use pool 'class'"),
    ({"stem": 8, "patch": 1}, "a patch of 1 must be even"),
    ({"sharing": "layer"}, "sharing is 'layer'; expected head, block or network"),
])  # fmt: skip
def test_parts_that_do_not_fit_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        ViTConfig(**{**PLAIN, **options})


def test_dense_logits_of_a_model_without_a_dense_head_are_refused():
    with pytest.raises(UserError, match="need a model with dense_head=True"):
        build(PLAIN)(draw(), dense=True)


@pytest.mark.parametrize("p", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("training", [True, False])
def test_stochastic_depth_draws_what_torchvision_draws(p, training):
    ops = pytest.importorskip("torchvision.ops")
    x, results = torch.randn(64, 3, 4, requires_grad=True), []
    for layer in (StochasticDepth(p), ops.StochasticDepth(p, mode="row")):
        torch.manual_seed(1)
        y = layer.train(training)(x)
        results += [(y, *torch.autograd.grad(y.sum(), x))]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))
