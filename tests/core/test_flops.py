"""The multiply-adds of a model: against torch's own counter, against published totals, and by closed formulas."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import spvit_mini
from spvit_mini.attention_registry import attention_names
from spvit_mini.flops import PARTS, multiply_adds
from spvit_mini.vit import ViT, ViTConfig, recording
from spvit_mini.zoo import LVVIT, MODELS

SMALL = {"image_size": (32, 48), "dim": 32, "heads": 4, "depth": 3, "num_classes": 7}
PAIRS = (8 * 12) ** 2  # of patches; element-wise products over them are what torch does not count


def counted_by_torch(model):
    """Count with torch's counter, attention written out so that no fused kernel hides a product; FLOPs are two each."""
    images = torch.randn(1, 3, *model.config.image_size)
    model.eval().requires_grad_(False)
    with recording(model), FlopCounterMode(display=False) as counter:
        model(images)
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", [n for n in attention_names() if not n.endswith("/position_only")])
def test_every_attention_costs_what_torch_counts(name):
    config = ViTConfig(**SMALL, attention=name, pool="class", class_token_block=1)
    cost = multiply_adds(config)
    mode = name.partition("/")[2] or {"spsa": "multiplicative", "gpsa": "gated", "anchored": "affine"}.get(name)
    products = 3 * 4 * PAIRS if mode in ("multiplicative", "gated", "affine") else 0  # depth · heads · N²
    assert cost["total"] == counted_by_torch(ViT(config)) + products


@pytest.mark.parametrize("changes", [
    {"stem": 8, "dense_head": True, "pool": "class", "peg": True, "class_token_block": 2},
    {"stem": 8, "patch": 8, "image_size": (48, 80)}, {"pool": "class"}, {"peg": True, "spatial_layers": 1},
    {"sharing": "block"}, {"sharing": "network"}, {"qkv_bias": True, "mlp_ratio": 3.0, "positions": False},
])  # fmt: skip
def test_every_switch_costs_what_torch_counts(changes):
    config = ViTConfig(**{**SMALL, "attention": "spsa", **changes})
    blocks = 3 if config.spatial_layers is None else config.spatial_layers
    pairs = (config.grid[0] * config.grid[1]) ** 2
    assert multiply_adds(config)["total"] == counted_by_torch(ViT(config)) + blocks * 4 * pairs


def test_cait_costs_what_torch_counts():
    model = spvit_mini.create_model("cait_xxs24", image_size=(64, 96), depth=3, dim=32, heads=4, num_classes=7)
    assert multiply_adds(model)["total"] == counted_by_torch(model)


# Totals of the official formula (GMAC; biases and activations of the prior counted there): SP-ViT, then LV-ViT.
PUBLISHED = {
    ("spvit_s", 224): 6.58, ("spvit_m", 224): 12.74, ("spvit_l", 224): 34.73,
    ("spvit_s", 384): 22.26, ("spvit_m", 384): 42.30, ("spvit_l", 384): 110.8,
    ("lvvit_s", 224): 6.54, ("lvvit_m", 224): 12.68, ("lvvit_l", 224): 34.62,
    ("lvvit_s", 384): 22.13, ("lvvit_m", 384): 42.09, ("lvvit_l", 384): 110.4,
}  # fmt: skip


@pytest.mark.parametrize(("name", "size"), PUBLISHED)
def test_totals_are_the_published_ones(name, size):
    assert multiply_adds(MODELS[name], size)["total"] / 1e9 == pytest.approx(PUBLISHED[name, size], rel=0.015)


@pytest.mark.parametrize(("name", "billions"), [("deit_tiny", 1.26), ("deit_small", 4.6), ("deit_base", 17.6)])
def test_deit_s_totals(name, billions):
    assert multiply_adds(MODELS[name])["total"] / 1e9 == pytest.approx(billions, rel=0.015)


@pytest.mark.parametrize("model", LVVIT)
@pytest.mark.parametrize("size", [(224, 224), (384, 384), (224, 320)])
def test_sp_vit_costs_its_prior_and_peg_more_than_lv_vit_and_its_late_token_less(model, size):
    config = MODELS[f"spvit_{model}"]
    D, H, K, depth, layers = config.dim, config.heads, 64, config.depth, config.spatial_layers
    R, C = size[0] // 16, size[1] // 16
    N = R * C
    prior = layers * (3 * K * H * (2 * R - 1) * (2 * C - 1) + H * N * N)  # 2 inputs, 1 output; the product with S
    peg = depth * 9 * D * N
    token = layers * (4 * D * D + 2 * 3 * D * D + 2 * D * ((N + 1) ** 2 - N**2))  # one token through so many blocks
    sp, lv = (multiply_adds(MODELS[f"{kind}_{model}"], size) for kind in ("spvit", "lvvit"))
    assert sp["total"] - lv["total"] == prior + peg - token
    assert (sp["map"], sp["peg"]) == (prior, peg) and (lv["map"], lv["peg"]) == (0, 0)
    assert sp["embed"] == lv["embed"] and sp["head"] == lv["head"]


def test_parts_sum_to_the_total_and_a_model_counts_as_its_configuration():
    model = spvit_mini.create_model("spvit_mini")
    cost = multiply_adds(model)
    assert set(cost) == {*PARTS, "total"} and sum(cost[part] for part in PARTS) == cost["total"]
    assert cost == multiply_adds(MODELS["spvit_mini"]) == multiply_adds(model, 32) == multiply_adds(model, (32, 32))
    assert multiply_adds(model, (32, 64))["qkv"] == 2 * cost["qkv"]


def test_a_map_alone_asks_no_content():
    """Nor does its head pay for scores; a class token still does."""
    mean, token = (multiply_adds(ViTConfig(**SMALL, attention="table/position_only", pool=pool)) for pool in ("mean", "class"))
    assert mean["scores"] == 0 and token["scores"] == 3 * 97 * 32
    assert mean["values"] == 3 * 96 * 96 * 32 and mean["map"] == 0
