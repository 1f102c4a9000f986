"""CaiT: talking heads and class attention held to their equations, and the same surface as any other model."""

import dataclasses

import pytest
import torch

from spvit_mini import create_model, save_weights
from spvit_mini.cait import CaiT, CaiTConfig, ClassAttention, TalkingHeads
from spvit_mini.errors import UserError
from spvit_mini.vit import recording
from spvit_mini.zoo import model_from_weights

SMALL = {"image_size": (16, 24), "patch": 4, "num_classes": 5, "dim": 24, "depth": 2, "heads": 3}


def build(seed=0, **changes):
    torch.manual_seed(seed)
    model = CaiT(dataclasses.replace(CaiTConfig(**SMALL), **changes)).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def images(size=(16, 24), seed=0):
    return torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", [0, 1])
def test_talking_heads_by_loops(seed):
    torch.manual_seed(seed)
    H, N, C = 3, 6, 4
    layer = TalkingHeads(H * C, H).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, N, H * C, dtype=torch.float64)
    q, k, v = (x @ layer.qkv.weight.T + layer.qkv.bias).unflatten(-1, (3, H, C)).unbind(2)
    L, l, W, w = layer.before.weight, layer.before.bias, layer.after.weight, layer.after.bias
    out = torch.zeros(2, N, H, C, dtype=torch.float64)
    for b in range(2):
        for i in range(N):
            scores = torch.stack([k[b, :, h] @ q[b, i, h] / C**0.5 for h in range(H)])  # (H, N)
            talked = torch.stack([sum(L[h, g] * scores[g] for g in range(H)) + l[h] for h in range(H)])
            weights = talked.exp() / talked.exp().sum(-1, keepdim=True)
            for h in range(H):
                mixed = sum(W[h, g] * weights[g] for g in range(H)) + w[h]
                out[b, i, h] = sum(mixed[j] * v[b, j, h] for j in range(N))
    expected = out.flatten(2) @ layer.proj.weight.T + layer.proj.bias
    torch.testing.assert_close(layer(x, (2, 3)), expected, rtol=1e-10, atol=1e-10)
    heads = [t.transpose(1, 2) for t in (q, k, v)]
    joined = layer.attend(*heads, (2, 3)).transpose(1, 2).flatten(2)
    torch.testing.assert_close(joined @ layer.proj.weight.T + layer.proj.bias, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("bias", [True, False])
def test_class_attention_by_loops(seed, bias):
    torch.manual_seed(seed)
    H, C, N = 2, 4, 7
    layer = ClassAttention(H * C, H, qkv_bias=bias).double()
    x = torch.randn(2, N, H * C, dtype=torch.float64)
    q, k, v = layer.qkv(x).unflatten(-1, (3, H, C)).unbind(2)
    out = torch.zeros(2, H, C, dtype=torch.float64)
    for b in range(2):
        for h in range(H):
            scores = torch.stack([q[b, 0, h] @ k[b, j, h] for j in range(N)]) / C**0.5
            out[b, h] = (scores.exp() / scores.exp().sum()) @ v[b, :, h]
    expected = layer.proj(out.flatten(1))[:, None]
    torch.testing.assert_close(layer(x, (2, 3)), expected, rtol=1e-10, atol=1e-10)


def test_attention_maps_say_what_each_stage_looked_at():
    model = build()
    maps = model.attention_maps(images())
    assert [m.shape for m in maps] == [(2, 3, 24, 24)] * 2 + [(2, 3, 1, 25)] * 2
    for m in maps:
        torch.testing.assert_close(m.sum(-1), torch.ones_like(m[..., 0]))
    with recording(model) as maps:
        recorded = model(images())
    torch.testing.assert_close(recorded, model(images()))
    gradients = torch.autograd.grad(recorded.sum(), maps)
    assert all(g.abs().max() > 0 for g in gradients)
    assert model.spatial_maps() == [None] * 4 and model.spatial_maps((3, 3)) == [None] * 4


def test_the_class_token_leaves_the_patches_as_they_are():
    model = build()
    before = model.forward_features(images())
    torch.nn.init.normal_(model.class_token)
    after = model.forward_features(images())
    assert torch.equal(before[:, 1:], after[:, 1:]) and not torch.allclose(before[:, 0], after[:, 0])


def test_layer_scale_starts_where_the_config_says_and_silences_the_trunk():
    model = CaiT(CaiTConfig(**SMALL, layer_scale=0.0)).double().eval()
    x = model.embed(images()) + model.positions
    tokens = torch.cat([model.class_token.expand(2, -1, -1), x.flatten(2).transpose(1, 2)], dim=1)
    torch.testing.assert_close(model.forward_features(images()), model.norm(tokens))


def test_stochastic_depth_is_constant_and_spares_the_class_blocks():
    model = build(drop_path=0.3, depth=3)
    assert [block.drop_path.p for block in model.blocks] == [0.3] * 3
    assert [block.drop_path.p for block in model.class_blocks] == [0.0] * 2


def test_checkpointing_changes_no_gradient():
    model = build().train()
    plain = torch.autograd.grad(model(images()).square().sum(), list(model.parameters()))
    model.activation_checkpointing = True
    again = torch.autograd.grad(model(images()).square().sum(), list(model.parameters()))
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other)


def test_decay_spares_biases_scales_positions_and_the_class_token():
    model = build()
    decayed = {name for name, _ in model.named_parameters()} - model.no_decay()
    assert {name.split(".", 2)[-1] if "blocks" in name else name for name in decayed} == {
        "embed.weight", "attention.qkv.weight", "attention.proj.weight", "attention.before.weight", "attention.after.weight",
        "mlp.0.weight", "mlp.2.weight", "head.weight",
    }  # fmt: skip


def test_by_name_with_overrides_and_weights_in_a_file(tmp_path):
    torch.manual_seed(0)
    model = create_model("cait_xxs24", depth=2, num_classes=5, image_size=(32, 48)).eval()
    assert isinstance(model, CaiT) and model.grid == (2, 3) and model.blocks[0].scale1.unique().item() == pytest.approx(1e-5)
    save_weights(model, tmp_path / "cait.safetensors")
    again = model_from_weights(tmp_path / "cait.safetensors").eval()
    x = images((32, 48)).float()
    assert torch.equal(model(x), again(x)) and again.config == model.config
    other = create_model("cait_xxs24", depth=2, num_classes=5, image_size=64, weights=tmp_path / "cait.safetensors").eval()
    torch.testing.assert_close(other(images((64, 64)).float()), model(images((64, 64)).float()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build(depth=0), "depth is 0; expected an integer from 1"),
        (lambda: build(heads=5), "5 heads do not divide"),
        (lambda: build(image_size=(16, 25)), "16×25 pixels cannot be cut"),
        (lambda: build()(images(), dense=True), "dense logits need"),
        (lambda: create_model("cait_xxs24", pool="mean"), "only a ViT has an option 'pool'"),
    ],
)
def test_mistakes_are_one_clear_line(call, message):
    with pytest.raises(UserError, match=message):
        call()
