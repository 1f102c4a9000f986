"""The model around the attention: order of the parts, class token, sizes, maps."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from spvit_mini import create_model
from spvit_mini.attention import MHSA, SPSA
from spvit_mini.errors import UserError
from spvit_mini.geometry import patchify
from spvit_mini.vit import ViT, ViTConfig, recording, resize_grid

SMALL = ViTConfig(image_size=(16, 24), dim=24, depth=3, heads=3, attention="spsa", attention_options={"hidden": 4})


def build(seed=0, **changes):
    torch.manual_seed(seed)
    model = ViT(dataclasses.replace(SMALL, **changes)).double()
    for parameter in model.parameters():  # away from the start, where scores are small and priors neutral
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def by_hand(model, images):
    """The whole model from its parameters, in the order that the paper's equations have."""
    p, config = dict(model.named_parameters()), model.config
    x = patchify(images, config.patch) @ p["embed.weight"].flatten(1).T + p["embed.bias"]
    if config.positions:
        x = x + p["positions"].flatten(2).transpose(1, 2)
    grid = model.grid
    for i in range(config.depth):
        if config.pool == "class" and i == config.class_token_block:
            x = torch.cat([p["class_token"].expand(len(x), -1, -1), x], dim=1)
        name = f"blocks.{i}."
        h = F.layer_norm(x, x.shape[-1:], p[name + "norm1.weight"], p[name + "norm1.bias"], 1e-6)
        attention = model.blocks[i].attention
        C = config.dim // config.heads
        q, k, v = (t.unflatten(-1, (-1, C)).transpose(1, 2) for t in (h @ attention.qkv.weight.T).chunk(3, dim=-1))
        mixed = (attention.weights(q, k, grid) @ v).transpose(1, 2).flatten(2)
        x = x + mixed @ p[name + "attention.proj.weight"].T + p[name + "attention.proj.bias"]
        h = F.layer_norm(x, x.shape[-1:], p[name + "norm2.weight"], p[name + "norm2.bias"], 1e-6)
        h = F.gelu(h @ p[name + "mlp.0.weight"].T + p[name + "mlp.0.bias"])
        x = x + h @ p[name + "mlp.2.weight"].T + p[name + "mlp.2.bias"]
    x = F.layer_norm(x, x.shape[-1:], p["norm.weight"], p["norm.bias"], 1e-6)
    read = x[:, 0] if config.pool == "class" else x.mean(1)
    return read @ p["head.weight"].T + p["head.bias"]


@pytest.mark.parametrize("positions", [True, False])
@pytest.mark.parametrize("pooling", [{"pool": "mean"}, {"pool": "class"}, {"pool": "class", "class_token_block": 2}])
@pytest.mark.parametrize("spatial_layers", [None, 1])
def test_the_model_is_its_equations(positions, pooling, spatial_layers):
    model = build(positions=positions, spatial_layers=spatial_layers, **pooling)
    images = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    torch.testing.assert_close(model(images), by_hand(model, images), rtol=1e-10, atol=1e-10)


def test_spatial_layers_come_first():
    kinds = [type(block.attention) for block in build(spatial_layers=2).blocks]
    assert kinds == [SPSA, SPSA, MHSA]


def test_without_positions_a_plain_vit_cannot_see_the_order_of_patches():
    images = torch.randn(1, 3, 16, 24, dtype=torch.float64)
    tokens = images.unfold(2, 4, 4).unfold(3, 4, 4).flatten(2, 3)  # (1, 3, patches, 4, 4)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    moved = tokens[:, :, order].reshape(1, 3, 4, 6, 4, 4).permute(0, 1, 2, 4, 3, 5).reshape(1, 3, 16, 24)
    blind = build(attention="mhsa", attention_options={}, positions=False)
    torch.testing.assert_close(blind(moved), blind(images))
    assert (build(positions=False)(moved) - build(positions=False)(images)).abs().max() > 1e-3


@pytest.mark.parametrize("size", [(16, 24), (32, 32), (8, 40)])
def test_another_size_interpolates_the_positions_and_nothing_else(size):
    model = build()
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    grid = (size[0] // 4, size[1] // 4)
    other = ViT(dataclasses.replace(model.config, image_size=size)).double().eval()
    state = model.state_dict() | {"positions": F.interpolate(model.positions.detach(), grid, mode="bicubic")}
    other.load_state_dict(state)
    torch.testing.assert_close(model(images), other(images))


def test_resizing_to_the_same_grid_changes_nothing():
    values = torch.randn(1, 5, 4, 6)
    assert resize_grid(values, (4, 6)) is values


@pytest.mark.parametrize("pooling", [{"pool": "mean"}, {"pool": "class", "class_token_block": 2}])
def test_attention_maps_are_the_weights_that_the_model_uses(pooling):
    model = build(**pooling)
    images = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    maps = model.attention_maps(images)
    tokens = [24 + (pooling["pool"] == "class" and i >= 2) for i in range(3)]
    assert [m.shape for m in maps] == [(2, 3, n, n) for n in tokens]
    for m in maps:
        torch.testing.assert_close(m.sum(-1), torch.ones_like(m[..., 0]))
    with recording(model):
        recorded = model(images)
    torch.testing.assert_close(recorded, model(images))
    assert not any(block.attention.recorded for block in model.blocks)


def test_recordings_can_be_nested_and_end_with_their_block():
    model, images = build(), torch.randn(3, 2, 3, 16, 24, dtype=torch.float64)
    expected = [model.attention_maps(x) for x in images]
    with recording(model) as outer:
        model(images[0])
        with pytest.raises(ZeroDivisionError), recording(model) as inner:
            model(images[1])
            1 / 0  # noqa: B018
        assert len(model.attention_maps(images[2])) == 3  # a recording too
    model(images[0])
    for maps, wanted in ((outer, sum(expected, [])), (inner, expected[1])):
        assert len(maps) == len(wanted) and all(map(torch.equal, maps, wanted))

    first, second = recording(model), recording(model)  # that end in the order in which they began
    first_maps, second_maps = first.__enter__(), second.__enter__()
    first.__exit__(None, None, None)
    model(images[0])
    second.__exit__(None, None, None)
    model(images[0])
    assert not first_maps and len(second_maps) == 3


@pytest.mark.parametrize("ends", ["before the backward pass", "after it"])
@pytest.mark.parametrize("label", ["vit", "cait"])
def test_with_activation_checkpointing_each_block_is_recorded_once_and_gradients_stay(label, ends):
    if label == "vit":
        model, images = build().train(), torch.randn(2, 3, 16, 24, dtype=torch.float64)
    else:
        model, images = create_model("cait_xxs24", depth=3, dim=24, heads=3, image_size=32).train(), torch.randn(2, 3, 32, 32)
    parameters = list(model.parameters())
    expected = model.attention_maps(images)
    plain = torch.autograd.grad(model(images).square().sum(), parameters)
    model.activation_checkpointing = True
    with recording(model) as maps:
        loss = model(images).square().sum()
        if ends == "after it":
            of_maps = torch.autograd.grad(loss, maps, retain_graph=True)
            found = torch.autograd.grad(loss, parameters)
    if ends == "before the backward pass":
        of_maps = torch.autograd.grad(loss, maps, retain_graph=True)
        found = torch.autograd.grad(loss, parameters)
    assert len(maps) == len(expected) and all(map(torch.equal, maps, expected))
    assert all(gradient.abs().max() > 0 for gradient in of_maps)
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_spatial_maps_on_any_grid():
    model = build(spatial_layers=2)
    maps = model.spatial_maps((5, 3))
    assert maps[2] is None
    for i in range(2):
        assert torch.equal(maps[i], model.blocks[i].attention.spatial((5, 3)))


def test_stochastic_depth_grows_with_depth_and_keeps_the_mean():
    model = build(drop_path=0.5)
    assert [block.drop_path.p for block in model.blocks] == [0.0, 0.25, 0.5]
    kept = model.blocks[2].train().drop_path(torch.ones(4000, 1, 1))
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert kept.mean().item() == pytest.approx(1, abs=0.1)


def test_checkpointing_changes_no_gradient():
    model, images = build().train(), torch.randn(2, 3, 16, 24, dtype=torch.float64)
    plain = torch.autograd.grad(model(images).square().sum(), list(model.parameters()))
    model.activation_checkpointing = True
    again = torch.autograd.grad(model(images).square().sum(), list(model.parameters()))
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other)


def test_decay_spares_biases_norms_positions_and_priors():
    model = build(pool="class")
    spared = model.no_decay()
    decayed = {name for name, _ in model.named_parameters()} - spared
    kinds = {name.split(".", 2)[-1] if name.startswith("blocks") else name for name in decayed}
    assert kinds == {
        "embed.weight", "attention.qkv.weight", "attention.proj.weight", "mlp.0.weight", "mlp.2.weight", "head.weight"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": "spas"}, "attention is 'spas'; expected .* Did you mean spsa"),
        ({"attention_options": {"hiden": 3}}, "options of attention spsa are {'hiden': 3}"),
        ({"pool": "max"}, "pool is 'max'; expected mean or class"),
        ({"class_token_block": 3, "pool": "class"}, "class_token_block is 3, but there are 3 blocks"),
        ({"class_token_block": 2}, "class_token_block is 2 and pool is 'mean', without a class token. Use pool 'class'"),
        ({"dense_head": True}, "dense_head is True and pool is 'mean', without a class token. Use pool 'class'"),
        ({"spatial_layers": 4}, "spatial_layers is 4, but there are 3 blocks"),
        ({"depth": 0}, "depth is 0; expected an integer from 1"),
        ({"image_size": (16, 25)}, "16×25 pixels cannot be cut"),
    ],
)
def test_a_wrong_configuration_is_one_clear_line(changes, message):
    with pytest.raises(UserError, match=message):
        build(**changes)


def test_an_image_of_a_size_that_the_patch_does_not_divide_is_refused():
    with pytest.raises(UserError, match="18×24 pixels"):
        build()(torch.zeros(1, 3, 18, 24, dtype=torch.float64))
