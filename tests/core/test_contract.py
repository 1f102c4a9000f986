"""One contract for every model by name: what `create_model` gives keeps these promises, new names included.

Cheap promises are held by every name, at full size where that costs nothing; costly ones by every distinct small model,
since names that differ in size alone are one model when shrunk.
"""

import dataclasses
import functools
import shutil
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch

import spvit_mini
from spvit_mini.attention import SpatialAttention
from spvit_mini.cnn import CNN, CNNConfig
from spvit_mini.vit import recording
from spvit_mini.zoo import MODELS, model_from_weights

PARAMETERS = {
    "vit_mini": 2_692_042,
    "rpb_mini": 2_700_142,
    "window_mini": 2_692_042,
    "psa_mini": 2_692_150,
    "convit_mini": 2_692_186,
    "spvit_mini": 2_696_686,
    "anchored_mini": 2_696_794,
    "cnn_mini": 2_643_260,
    "deit_tiny": 5_717_224,
    "deit_small": 22_050_280,
    "deit_base": 86_566_888,
    "convit_tiny": 5_710_472,
    "convit_small": 27_777_232,
    "convit_base": 86_539_880,
    "convit_tiny_plus": 9_972_872,
    "convit_small_plus": 48_979_792,
    "convit_base_plus": 153_134_696,
    "cait_xxs24": 11_956_264,
    "cait_s24": 46_916_200,
    "cait_m36": 270_929_512,
    "lvvit_s": 26_151_440,
    "lvvit_m": 55_830_032,
    "lvvit_l": 150_021_200,
    "spvit_s": 26_234_468,
    "spvit_m": 55_969_440,
    "spvit_l": 150_273_368,
    "vit_ablation": 27_776_872,
    "vit_ablation_16": 36_752_104,
}
NAMES = spvit_mini.list_models()
SIZE = (16, 24)  # of the small models' images: 4×6 patches

# Models that no name stands for, and that the contract should hold for all the same.
MORE = {
    "one map a block": ("spvit_mini", {"sharing": "block"}),
    "one map for the network": ("spvit_mini", {"sharing": "network"}),
    "one table for the network": ("rpb_mini", {"sharing": "network"}),
    "an embedding": ("vit_mini", {"attention": "shaw2d/contextual"}),
    "stripes": ("vit_mini", {"attention": "cross_window/masked"}),
    "two outputs": ("vit_mini", {"attention": "twin_mlp/affine"}),
    "a map alone": (
        "vit_mini",
        {"attention": "quadratic/position_only", "pool": "class", "class_token_block": 1, "spatial_layers": 1},
    ),
}


def shrink(label):
    """Say how to build the small form of a name, or of one of `MORE`: (name, overrides)."""
    name, changes = MORE.get(label, (label, {}))
    if isinstance(MODELS[name], CNNConfig):
        return name, {"depth": 3, "dim": 32, "patch": 4}
    full = dataclasses.asdict(MODELS[name])
    depth = 3 if full.get("class_token_block") else 2
    small = {"depth": depth, "dim": 32, "heads": 4, "patch": 4, "drop_path": 0.0}
    for late in ("class_token_block", "spatial_layers"):
        if full.get(late):
            small[late] = depth - (full["depth"] - full[late])
    if full.get("stem"):
        small["stem"] = 8
    return name, {**small, **changes}


def stir(model, noise):
    """Move a model a step away from its start, where priors are neutral and LayerScale all but shuts the branches."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += noise * torch.randn_like(parameter)
    return model.eval()


def build(label, *, noise=0.05, image_size=SIZE, dtype=torch.float32):
    """Build the small form, a step away from its start."""
    name, overrides = shrink(label)
    return stir(spvit_mini.create_model(name, num_classes=5, image_size=image_size, **overrides).to(dtype), noise)


def draw(size=SIZE, *, batch=2, dtype=torch.float32):
    return torch.randn(batch, 3, *size, dtype=dtype)


@functools.cache
def distinct():
    """List the names whose small forms differ in more than a factor or a width of the MLP, and those of `MORE`."""
    seen = {}
    for name in NAMES:
        config = dataclasses.asdict(dataclasses.replace(MODELS[name], **shrink(name)[1]))
        for factor in ("residual_scale", "layer_scale", "init_std", "mlp_ratio", "norm_eps"):
            config.pop(factor, None)
        seen.setdefault(repr(config), name)
    return [*seen.values(), *MORE]


# What torch's own backend needs on a CPU.
COMPILER = shutil.which("g++") and Path(sysconfig.get_paths()["include"], "Python.h").is_file()
every_name = pytest.mark.parametrize("label", [*NAMES, *MORE])
every_model = pytest.mark.parametrize("label", distinct())
# For the compiler and exporters, which take seconds a model: without those whose every module is in another one.
CONTAINED = {"vit_mini", "vit_ablation", "spvit_mini", "convit_mini", "one map a block"}
every_module = pytest.mark.parametrize("label", [label for label in distinct() if label not in CONTAINED])


# --- At full size ----------------------------------------------------------------------------------------------------------


def linear(inputs, outputs, bias=True):
    return inputs * outputs + bias * outputs


def map_parameters(config):
    """Count the numbers of one layer's map and gate from the formulas of spatial.py."""
    H, (R, C) = config.heads, config.grid
    prior = 4 * config.attention_options.get("hidden", 32) * H + H
    table = H * (2 * R - 1) * (2 * C - 1)
    known = {
        "mhsa": 0,
        "window": 0,
        "rpb": table,
        "psa": 3 * H,
        "gpsa": 4 * H,
        "spsa": prior,
        "anchored": prior + 3 * H,
    }
    return known[config.attention]


def closed_formula(config):
    """Count a model's parameters from its configuration alone."""
    if isinstance(config, CNNConfig):  # three stages of equally many blocks, the stem as wide as the first
        per_stage, first, D = config.depth // 3, config.dim // 4, config.dim
        equal = sum(2 * 9 * w * w + 4 * w for w in (first, 2 * first, D))
        doubling = sum(9 * w * w // 2 + 9 * w * w + w * w // 2 + 6 * w for w in (2 * first, D))
        unchanged = equal * per_stage - sum(2 * 9 * w * w + 4 * w for w in (2 * first, D))
        return 27 * first + 2 * first + unchanged + doubling + linear(D, config.num_classes)
    D, hidden, tokens = config.dim, int(config.dim * config.mlp_ratio), config.grid[0] * config.grid[1]
    head = linear(D, config.num_classes)
    mlp = linear(D, hidden) + linear(hidden, D)
    if hasattr(config, "class_depth"):  # CaiT: biases everywhere, LayerScale, talking heads in the first stage
        block = linear(D, 3 * D) + linear(D, D) + mlp + 4 * D + 2 * D
        talking = config.depth * 2 * linear(config.heads, config.heads)
        patches = linear(3 * config.patch**2, D)
        return patches + tokens * D + D + (config.depth + config.class_depth) * block + talking + 2 * D + head
    block = linear(D, 3 * D, config.qkv_bias) + linear(D, D) + mlp + 4 * D + config.peg * linear(9, D)
    maps = map_parameters(config) * (config.depth if config.spatial_layers is None else config.spatial_layers)
    if config.stem is None:
        patches = linear(3 * config.patch**2, D)
    else:
        w = config.stem
        patches = 3 * 49 * w + 2 * 9 * w * w + 3 * 2 * w + linear(w * (config.patch // 2) ** 2, D)
    token = D if config.pool == "class" else 0
    return patches + tokens * D + token + config.depth * block + maps + 2 * D + head * (1 + config.dense_head)


def count(name, **overrides):
    with torch.device("meta"):
        model = spvit_mini.create_model(name, **overrides)
    return sum(p.numel() for p in model.parameters()), closed_formula(model.config)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_counted_to_the_digit(name):
    counted, formula = count(name)
    assert counted == formula
    assert counted == PARAMETERS.get(name, formula)


@pytest.mark.parametrize(("name", "overrides", "released"), [
    ("spvit_m", {"spatial_layers": 10, "class_token_block": 10}, 55_952_992),
    ("spvit_l", {"attention": "mhsa", "attention_options": {}}, 150_205_520),
])  # fmt: skip
def test_the_released_code_s_own_settings_give_its_counts(name, overrides, released):
    assert count(name, **overrides) == (released, released)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in NAMES if PARAMETERS.get(n, 0) < 30e6])
def test_a_full_size_model_answers_each_image_for_itself(name):
    model = stir(spvit_mini.create_model(name), 0.02)
    images = draw(model.config.image_size)
    with torch.inference_mode():
        together, alone = model(images), model(images[1:])
    assert together.shape == (2, model.config.num_classes) and torch.isfinite(together).all()
    torch.testing.assert_close(together[1:], alone, rtol=1e-3, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-4


# --- Small -----------------------------------------------------------------------------------------------------------------

# A prior's first layer waits until its second has left 0; a number added to all scores of a head is unseen by softmax.
WAITS_AT_THE_START = ("spatial.w1", "spatial.b1", "spatial.prior.w1", "spatial.prior.b1", "before.bias")


@every_model
def test_the_gradient_reaches_every_parameter_and_is_finite(label):
    for noise in (0.0, 0.05):
        model = build(label, noise=noise).train()
        logits = model(draw())
        assert logits.shape == (2, 5) and torch.isfinite(logits).all()
        logits.square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            if not name.endswith(WAITS_AT_THE_START if noise == 0 else "before.bias"):
                assert parameter.grad.abs().max() > 0, name


@every_name
def test_weights_come_back_from_a_state_and_from_a_file(label, tmp_path):
    model, images = build(label), draw()
    name, overrides = shrink(label)
    fresh = spvit_mini.create_model(name, num_classes=5, image_size=SIZE, **overrides).eval()
    fresh.load_state_dict(model.state_dict())
    spvit_mini.save_weights(model, tmp_path / "weights.safetensors")
    rebuilt = model_from_weights(tmp_path / "weights.safetensors").eval()
    assert rebuilt.config == model.config
    for other in (fresh, rebuilt):
        assert torch.equal(other(images), model(images))
        assert sum(p.numel() for p in other.parameters()) == sum(p.numel() for p in model.parameters())  # still shared


@every_model
@pytest.mark.parametrize("size", [(24, 24), (12, 32)])
def test_other_image_sizes_need_no_surgery(label, size, tmp_path):
    """The model takes them as it is; and made for them from its file, it is the same function."""
    model, images = build(label), draw(size)
    spvit_mini.save_weights(model, tmp_path / "weights.safetensors")
    name, overrides = shrink(label)
    other = spvit_mini.create_model(
        name, num_classes=5, image_size=size, weights=tmp_path / "weights.safetensors", **overrides
    )
    logits = model(images)
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(other.eval()(images), logits, rtol=1e-4, atol=1e-5)


@every_model
def test_attention_maps_are_distributions_of_the_promised_shapes(label):
    model = build(label)
    if isinstance(model, CNN):  # there are none
        assert model.attention_maps(draw()) == model.spatial_maps((3, 2)) == []
        return
    config, n = model.config, model.grid[0] * model.grid[1]
    if hasattr(config, "class_depth"):
        shapes = [(n, n)] * config.depth + [(1, n + 1)] * config.class_depth
    else:
        tokens = [n + (config.pool == "class" and i >= config.class_token_block) for i in range(config.depth)]
        shapes = [(t, t) for t in tokens]
    maps = model.attention_maps(draw())
    assert [m.shape for m in maps] == [(2, config.heads, *shape) for shape in shapes]
    for m in maps:
        assert m.min() >= 0
        torch.testing.assert_close(m.sum(-1), torch.ones_like(m[..., 0]))
    assert len(model.spatial_maps((3, 2))) == len(maps)


@every_model
def test_recording_attention_changes_no_answer(label):
    model, images = build(label, dtype=torch.float64), draw(dtype=torch.float64)
    plain = model(images)
    model.attention_maps(images)
    with recording(model):
        torch.testing.assert_close(model(images), plain)


@every_model
def test_what_is_spared_from_decay_exists_and_is_no_weight_matrix(label):
    model = build(label)
    parameters = dict(model.named_parameters())
    assert model.no_decay() <= set(parameters)
    matrices = {n for n, p in parameters.items() if p.ndim >= 2 and ".spatial." not in n}
    assert set(parameters) - model.no_decay() == matrices - {"positions", "class_token"}
    maps = [a.spatial for a in model.attentions() if isinstance(a, SpatialAttention)]
    held = {id(p) for m in maps for p in m.parameters()}
    assert held == {id(p) for n, p in parameters.items() if ".spatial." in n}


@every_model
def test_bfloat16_autocast_stays_near_float32(label):
    model, images = build(label), draw(batch=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(images)
        rough.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    exact = model(images)
    assert (rough - exact).norm() < 0.05 * exact.norm()


@every_model
def test_checkpointing_changes_no_gradient(label):
    model, images = build(label, dtype=torch.float64).train(), draw(dtype=torch.float64)
    plain = torch.autograd.grad(model(images).square().sum(), list(model.parameters()))
    model.activation_checkpointing = True
    again = torch.autograd.grad(model(images).square().sum(), list(model.parameters()))
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other)


# --- Through a compiler and out of the house ---------------------------------------------------------------------------------


def assert_compiled_is_eager(label, backend):
    torch.compiler.reset()
    model, images = build(label), draw()
    compiled = torch.compile(model, backend=backend, fullgraph=True, dynamic=False)
    parameters = list(model.parameters())
    found, wanted = compiled(images), model(images)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    mine = torch.autograd.grad(found.square().sum(), parameters)
    theirs = torch.autograd.grad(wanted.square().sum(), parameters)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * max(1.0, other.abs().max().item()))


@pytest.mark.slow
@every_module
def test_compiled_equals_eager_in_value_and_gradient(label):
    assert_compiled_is_eager(label, "aot_eager")


@pytest.mark.slow
@pytest.mark.skipif(not COMPILER, reason="torch.compile's own backend needs a C++ compiler and Python's headers")
@pytest.mark.parametrize("label", ["spvit_s", "convit_tiny"])
def test_inductor_equals_eager_in_value_and_gradient(label):
    assert_compiled_is_eager(label, "inductor")


@functools.cache
def evaluator_operators():
    """Mend the reference evaluator: its GatherElements takes no negative axis and no more than 64 choices."""
    from onnx.reference.op_run import OpRun

    class GatherElements(OpRun):
        def _run(self, data, indices, axis=None):
            return (np.take_along_axis(data, indices, axis=axis),)

    return [GatherElements]


@pytest.mark.slow
@every_module
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_exported_programs_agree(label):
    """torch.export and ONNX, the latter read by onnx's reference evaluator."""
    onnx_reference = pytest.importorskip("onnx.reference")
    pytest.importorskip("onnxscript")
    # With gradients on, the exporter loses the layout of a fused attention that takes a mask: export what is frozen.
    model, images = build(label).requires_grad_(False), draw()
    expected = model(images)
    program = torch.export.export(model, (images,))
    torch.testing.assert_close(program.module()(images), expected, rtol=1e-4, atol=1e-5)
    proto = torch.onnx.export(program, dynamo=True, verbose=False).model_proto
    reference = onnx_reference.ReferenceEvaluator(proto, new_ops=evaluator_operators())
    found = reference.run(None, {proto.graph.input[0].name: images.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)
