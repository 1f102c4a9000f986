"""timm as an oracle: with its weights, drawn at random and converted, our models compute what its models compute.

In float64 on real photographs. Every tensor is drawn away from its start, where gates, biases and scales could not be told
from their absence. What we leave out on purpose, since it has no effect, is counted in `INERT`.
"""

import pytest
import timm
import torch
from timm.models import swin_transformer, swin_transformer_v2

from spvit_mini import create_model, transforms_for
from spvit_mini.attention import RelativeBias
from spvit_mini.convert import convert_state
from spvit_mini.data.images import read_image
from spvit_mini.spatial import LogCPB, Table
from spvit_mini.weights import list_differences, load_state

PAIRS = {
    "deit_tiny": "deit_tiny_patch16_224",
    "deit_small": "deit_small_patch16_224",
    "deit_base": "deit_base_patch16_224",
    "convit_tiny": "convit_tiny",
    "convit_small": "convit_small",
    "convit_base": "convit_base",
    "cait_xxs24": "cait_xxs24_224",
}
LARGE = [name for name in PAIRS if name not in ("deit_tiny", "convit_tiny")]
# DeiT: the class token's position is a second vector added to the same token; here the token holds the sum.
# ConViT: pos_proj's bias, a number for each head of the ten GPSA layers, is added to whole rows of scores before a softmax.
INERT = {
    "deit_tiny": 192, "deit_small": 384, "deit_base": 768,
    "convit_tiny": 10 * 4, "convit_small": 10 * 9, "convit_base": 10 * 16,
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_float64():
    """timm's ConViT makes its coordinates in the default type, whatever its weights are."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def photographs(real_images):
    """Two photographs of ImageNet's classes, prepared as for a DeiT: (2, 3, 224, 224)."""
    paths = sorted((real_images("imagenet-samples-1000") / "imagenet-samples-1000" / "val").rglob("*.JPEG"))
    prepare = transforms_for(create_model("deit_tiny", depth=1))
    return torch.stack([prepare(read_image(path)) for path in paths[:: len(paths) // 2][:2]]).double()


def twins(name: str, *, seed: int):
    """Build timm's model with random weights, and ours with the same ones converted."""
    torch.manual_seed(seed)
    theirs = timm.create_model(PAIRS[name]).eval()
    with torch.no_grad():
        for key, parameter in theirs.named_parameters():
            around = 1.0 if key.startswith("norm") or ".norm" in key or ".gamma_" in key else 0.0
            parameter.normal_(around, 0.1 if parameter.ndim < 2 else min(0.1, parameter[0].numel() ** -0.5))
    ours = create_model(name).double().eval()
    converted = convert_state(theirs.state_dict())
    assert not converted.unmatched
    load_state(ours, converted.state, source="timm")
    return theirs, ours, converted


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in PAIRS]
)
def test_logits_and_gradients_are_timms(name, photographs):
    theirs, ours, converted = twins(name, seed=0)
    images = photographs[: 1 if name.endswith("base") else 2]
    with_gradients = not name.endswith("base")
    inputs = [images.clone().requires_grad_(with_gradients) for _ in range(2)]
    with torch.set_grad_enabled(with_gradients):
        expected, found = theirs(inputs[0]), ours(inputs[1])
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    if not with_gradients:
        return

    direction = torch.linspace(-1, 1, expected.numel()).reshape(expected.shape)
    (expected * direction).sum().backward()
    (found * direction).sum().backward()
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-9, atol=1e-12)
    # Converting is linear, but for the class token's sum, so gradients convert as the weights do.
    gradients = {key: parameter.grad for key, parameter in theirs.named_parameters()}
    expected = convert_state(gradients).state
    expected["class_token"] = gradients["cls_token"]
    assert expected.keys() == dict(ours.named_parameters()).keys()
    for key, parameter in ours.named_parameters():
        assert parameter.grad.abs().max() > 0
        torch.testing.assert_close(parameter.grad, expected[key], rtol=1e-8, atol=1e-11, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("name", PAIRS)
def test_parameters_are_timms_but_for_those_without_effect(name):
    with torch.device("meta"):
        theirs, ours = timm.create_model(PAIRS[name]), create_model(name)
    counts = [sum(parameter.numel() for parameter in model.parameters()) for model in (theirs, ours)]
    assert counts[1] + INERT.get(name, 0) == counts[0]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "theirs", "size"), [("cait_s24", "cait_s24_224", 224), ("cait_m36", "cait_m36_384", 384)])
def test_parameters_of_larger_caits_are_timms(name, theirs, size):
    with torch.device("meta"):
        theirs, ours = timm.create_model(theirs), create_model(name, image_size=size)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert not list_differences(ours, convert_state(theirs.state_dict()).state)


@pytest.mark.parametrize("grid", [(7, 7), (3, 5)])
def test_the_bias_table_is_swins(grid):
    """Swin numbers the offsets by query − key, we by key − query: its table is ours read backwards on both axes."""
    torch.manual_seed(0)
    heads, dim = 3, 24
    theirs = swin_transformer.WindowAttention(dim, heads, window_size=grid, qkv_bias=True)
    theirs.relative_position_bias_table.data.normal_()
    values = theirs.relative_position_bias_table.detach().T.unflatten(1, (2 * grid[0] - 1, 2 * grid[1] - 1)).flip(1, 2)
    table = Table(heads, grid).double()
    table.values.data.copy_(values)
    torch.testing.assert_close(table(grid), theirs._get_rel_pos_bias()[0], rtol=0, atol=0)

    ours = RelativeBias(dim, heads, spatial=table, qkv_bias=True).double()
    for part in ("qkv", "proj"):
        getattr(ours, part).load_state_dict(getattr(theirs, part).state_dict())
    x = torch.randn(2, grid[0] * grid[1], dim)
    torch.testing.assert_close(ours(x, grid), theirs(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("grid", [(8, 8), (3, 5)])
@pytest.mark.parametrize("trained_on", [None, (6, 4)])
def test_the_log_spaced_bias_is_swin_v2s(grid, trained_on):
    """Its offsets are query − key too: the first layer sees them with the other sign. Scores there are cosines, not here."""
    torch.manual_seed(0)
    heads = 3
    theirs = swin_transformer_v2.WindowAttention(24, grid, heads, pretrained_window_size=trained_on or (0, 0)).double()
    theirs.cpb_mlp[2].weight.data.normal_()
    ours = LogCPB(heads, trained_on or grid).double()
    ours.mlp.load_state_dict(theirs.cpb_mlp.state_dict())
    ours.mlp[0].weight.data.neg_()
    table = theirs.cpb_mlp(theirs.relative_coords_table.double()).view(-1, heads)
    pairs = grid[0] * grid[1]
    expected = 16 * table[theirs.relative_position_index.view(-1)].view(pairs, pairs, heads).permute(2, 0, 1).sigmoid()
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(grid), expected, rtol=0, atol=1e-5)  # of 16; its coordinates are float32
