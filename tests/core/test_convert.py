"""Weights of others: the official names of LV-ViT and SP-ViT, and that the converted numbers mean the same.

Neither model can be had here, so their files are made: names and shapes as published, numbers at random. What they mean
is written out below, slowly: all N² pairs, columns before rows, a prior of one matrix for all heads.
"""

import argparse
import math
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from spvit_mini import convert, create_model
from spvit_mini.attention import SPSA
from spvit_mini.cli import convert as program
from spvit_mini.errors import UserError
from spvit_mini.weights import list_differences, load_state, load_weights
from spvit_mini.zoo import MODELS, model_from_weights


def official(dim, depth, stem, *, heads, priors=None, patches=196, classes=1000, seed=0, device="cpu"):
    """Make the tensors of an LV-ViT (priors=None) or an SP-ViT with that many SP-SA blocks, under their official names."""
    generator = None if device == "meta" else torch.Generator().manual_seed(seed)

    def draw(*shape, around=0.0, std=0.3):
        values = torch.randn(*shape, device=device, dtype=torch.float64, generator=generator)
        return around + std * values * min(1, math.prod(shape[1:]) ** -0.5 / std)

    def norm(name, size):
        return {f"{name}.weight": draw(size, around=1), f"{name}.bias": draw(size)}

    late = priors is not None
    state = {"cls_token": draw(1, 1, dim), "pos_embed": draw(1, patches + (not late), dim)}
    for n, (inputs, kernel) in enumerate([(3, 7), (stem, 3), (stem, 3)], start=1):
        state |= {f"patch_embed.conv{n}.weight": draw(stem, inputs, kernel, kernel)} | norm(f"patch_embed.bn{n}", stem)
        state |= {
            f"patch_embed.bn{n}.running_mean": draw(stem),
            f"patch_embed.bn{n}.running_var": draw(stem, around=1).abs() + 0.1,
            f"patch_embed.bn{n}.num_batches_tracked": torch.tensor(7, device=device),
        }
    state |= {"patch_embed.proj.weight": draw(dim, stem, 8, 8), "patch_embed.proj.bias": draw(dim)}
    for i in range(depth):
        block = f"blocks.{i}"
        state |= norm(f"{block}.norm1", dim) | norm(f"{block}.norm2", dim)
        if late and i < priors:
            state |= {
                f"{block}.attn.w2": draw(dim, 1, std=1),
                f"{block}.attn.b2": draw(heads, around=1),
                f"{block}.attn.v.weight": draw(dim, dim),
                f"{block}.attn.qk.weight": draw(2 * dim, dim, std=1) * 2,
                f"{block}.attn.w1.weight": draw(dim, 2),
                f"{block}.attn.w1.bias": draw(dim),
            }
        else:
            state |= {f"{block}.attn.qkv.weight": draw(3 * dim, dim)}
        state |= {f"{block}.attn.proj.weight": draw(dim, dim), f"{block}.attn.proj.bias": draw(dim)}
        state |= {f"{block}.mlp.fc1.weight": draw(3 * dim, dim), f"{block}.mlp.fc1.bias": draw(3 * dim)}
        state |= {f"{block}.mlp.fc2.weight": draw(dim, 3 * dim), f"{block}.mlp.fc2.bias": draw(dim)}
        if late:
            state[f"{block}.pos_block.proj.0.weight"] = draw(dim, 1, 3, 3)
            state[f"{block}.pos_block.proj.0.bias"] = draw(dim)
    state |= norm("norm", dim)
    for head in ("head", "aux_head"):
        state |= {f"{head}.weight": draw(classes, dim), f"{head}.bias": draw(classes)}
    return state


def parameters_in(state):
    return sum(tensor.numel() for name, tensor in state.items() if not re.search("running_|num_batches", name))


def official_spsa(state, block, x, heads, side):
    """SP-SA from its official tensors, pair by pair: query i, key j, offsets (column, row), units of all heads in a row."""
    p = {name.removeprefix(f"{block}.attn."): tensor for name, tensor in state.items() if name.startswith(f"{block}.attn.")}
    B, N, D = x.shape
    C = D // heads
    prior = torch.zeros(heads, N, N, dtype=x.dtype)
    for i in range(N):
        for j in range(N):
            right, down = j % side - i % side, j // side - i // side
            hidden = (p["w1.weight"] @ torch.tensor([right, down], dtype=x.dtype) + p["w1.bias"]).clamp(min=0)
            for h in range(heads):
                prior[h, i, j] = hidden[h * C : (h + 1) * C] @ p["w2"][h * C : (h + 1) * C, 0] + p["b2"][h]
    qk, v = x @ p["qk.weight"].T, x @ p["v.weight"].T
    mixed = torch.zeros_like(x)
    for h in range(heads):
        one = slice(h * C, (h + 1) * C)
        scores = qk[..., :D][..., one] @ qk[..., D:][..., one].mT / C**0.5
        mixed[..., one] = (prior[h] * scores).softmax(-1) @ v[..., one]
    return mixed @ p["proj.weight"].T + p["proj.bias"]


def official_forward(state, images, *, heads, depth, scale, priors=None):
    """Evaluate an LV-ViT or SP-ViT from its official tensors; scale divides the branches."""
    x = images
    for n, stride in ((1, 2), (2, 1), (3, 1)):
        name = f"patch_embed.bn{n}"
        x = F.conv2d(x, state[f"patch_embed.conv{n}.weight"], stride=stride, padding=3 if n == 1 else 1)
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        x = F.relu(F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"]))
    x = F.conv2d(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=8)
    side, dim = x.shape[-1], x.shape[1]
    x = x.flatten(2).mT
    token = state["cls_token"].expand(len(x), 1, dim)
    x = (torch.cat([token, x], 1) if priors is None else x) + state["pos_embed"]
    for i in range(depth):
        block = f"blocks.{i}"
        if priors == i:
            x = torch.cat([token, x], 1)
        h = F.layer_norm(x, (dim,), state[f"{block}.norm1.weight"], state[f"{block}.norm1.bias"])
        if priors is not None and i < priors:
            h = official_spsa(state, block, h, heads, side)
        else:
            q, k, v = (h @ state[f"{block}.attn.qkv.weight"].T).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
            h = ((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
            h = h @ state[f"{block}.attn.proj.weight"].T + state[f"{block}.attn.proj.bias"]
        x = x + h / scale
        h = F.layer_norm(x, (dim,), state[f"{block}.norm2.weight"], state[f"{block}.norm2.bias"])
        h = F.gelu(h @ state[f"{block}.mlp.fc1.weight"].T + state[f"{block}.mlp.fc1.bias"])
        x = x + (h @ state[f"{block}.mlp.fc2.weight"].T + state[f"{block}.mlp.fc2.bias"]) / scale
        if priors is not None:
            first = x.shape[1] - side**2
            patches = x[:, first:].mT.unflatten(-1, (side, side))
            weight, bias = (state[f"{block}.pos_block.proj.0.{part}"] for part in ("weight", "bias"))
            patches = patches + F.conv2d(patches, weight, bias, padding=1, groups=dim)
            x = torch.cat([x[:, :first], patches.flatten(2).mT], 1)
    x = F.layer_norm(x, (dim,), state["norm.weight"], state["norm.bias"])
    logits = x[:, 0] @ state["head.weight"].T + state["head.bias"]
    patches = x[:, 1:] @ state["aux_head.weight"].T + state["aux_head.bias"]
    return logits + 0.5 * patches.max(1).values


SMALL = {"dim": 24, "depth": 3, "heads": 3}


@pytest.mark.parametrize("seed", [0, 1])
def test_a_converted_spsa_layer_means_the_same(seed):
    state = official(24, 1, 8, heads=3, priors=1, patches=16, seed=seed)
    found = convert.convert_state(state).state
    layer = SPSA(24, 3, hidden=8).double()
    layer.load_state_dict({k.removeprefix("blocks.0.attention."): t for k, t in found.items() if ".attention." in k})
    x = torch.randn(2, 16, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    expected = official_spsa(state, "blocks.0", x, 3, 4)
    torch.testing.assert_close(layer(x, (4, 4)), expected, rtol=1e-10, atol=1e-10)
    # Offsets read in the wrong order would be seen.
    layer.spatial.w1.data = layer.spatial.w1.data.flip(-1)
    assert (layer(x, (4, 4)) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("name", "priors"), [("lvvit_s", None), ("spvit_s", 1), ("spvit_s", 2)])
def test_a_converted_model_means_the_same(name, priors, seed):
    state = official(24, 3, 8, heads=3, priors=priors, patches=16, classes=5, seed=seed)
    overrides = {"spatial_layers": priors, "class_token_block": priors, "attention_options": {"hidden": 8}} if priors else {}
    model = create_model(name, image_size=64, num_classes=5, stem=8, **SMALL, **overrides).double().eval()
    converted = convert.convert_state(state)
    assert not converted.unmatched
    load_state(model, converted.state, source="made")
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    expected = official_forward(state, images, heads=3, depth=3, scale=2, priors=priors)
    torch.testing.assert_close(model(images), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "shape", "priors", "parameters"),
    [
        ("spvit_s", (384, 16, 64, 6), 14, 26_234_468),
        ("spvit_m", (512, 20, 64, 8), 18, 55_969_440),
        ("spvit_m", (512, 20, 64, 8), 10, 55_952_992),
        ("spvit_l", (768, 24, 128, 12), 22, 150_273_368),
        ("spvit_l", (768, 24, 128, 12), 0, 150_205_520),
        ("lvvit_s", (384, 16, 64, 6), None, None),
        ("lvvit_m", (512, 20, 64, 8), None, None),
        ("lvvit_l", (768, 24, 128, 12), None, None),
    ],
)
def test_the_released_layouts_convert_tensor_by_tensor(name, shape, priors, parameters):
    """Parameter counts as measured of the official code; a class token's own position is all that ours has less."""
    dim, depth, stem, heads = shape
    state = official(dim, depth, stem, heads=heads, priors=priors, device="meta")
    assert parameters is None or parameters_in(state) == parameters
    converted = convert.convert_state(state)
    assert not converted.unmatched and not converted.dropped
    found, named = converted.spatial_layers, depth - 2
    assert found == (priors or 0)
    arguments = program.Arguments(model=name, spatial_layers=None if priors in (None, named) else priors)
    overrides = program.prior_overrides(converted, arguments, source="made") if priors is not None else {}
    model = program.create_on_meta(name, **overrides)
    assert not list_differences(model, converted.state)
    assert sum(p.numel() for p in model.parameters()) == parameters_in(state) - (dim if priors is None else 0)
    if priors == 0:
        assert model.config.class_token_block == depth - 2


# Files and the program. Small models under real names cannot be asked for on the command line, so tensors are cut down
# only where a message is the point.


@pytest.fixture(scope="module")
def spvit_file(tmp_path_factory):
    """An SP-ViT-S as a training checkpoint: raw and averaged weights, and the command line as a Namespace."""
    path = tmp_path_factory.mktemp("weights") / "model_best.pth.tar"
    state = {k: t.float() if t.is_floating_point() else t for k, t in official(384, 16, 64, heads=6, priors=14).items()}
    content = {
        "epoch": 3,
        "args": argparse.Namespace(model="lvvit_s"),
        "state_dict": {f"module.{k}": 0 * t for k, t in state.items()},
        "state_dict_ema": state,
    }
    torch.save(content, path)
    return path, state


@pytest.mark.slow
def test_the_program_converts_prints_the_map_and_writes_once(spvit_file, tmp_path, capsys):
    path, state = spvit_file
    out = tmp_path / "out.safetensors"
    assert program.main([str(path), "--model", "spvit_s", "--out", str(out), "--verbose"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1].endswith(f"from {len(state)} tensors of an SP-ViT in {path} [state_dict_ema]")
    assert "blocks.0.attn.qk.weight + blocks.0.attn.v.weight → blocks.0.attention.qkv.weight (1152, 384)" in said
    assert "blocks.3.attn.w1.weight + blocks.3.attn.b2 → blocks.3.attention.spatial.w1 (6, 64, 2)" in said
    assert "26,234,468 parameters, 224×224 px" in said
    model = model_from_weights(out)
    assert torch.equal(model.state_dict()["blocks.3.attention.spatial.b2"], state["blocks.3.attn.b2"])
    assert model.preprocessing.crop == 0.9 and load_weights(out)[1]["weights"] == "ema"
    with pytest.raises(UserError, match="exists already and is never overwritten"):
        program.main([str(path), "--model", "spvit_s", "--out", str(out)])


def run(tmp_path, state, *arguments):
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, str(tmp_path / "theirs.safetensors"))
    return program.main(
        [str(tmp_path / "theirs.safetensors"), *arguments, "--out", str(tmp_path / "ours.safetensors")]
    )


def test_a_small_vit_converts_at_the_size_and_classes_of_the_file(tmp_path):
    """The file's own positions set the image size, an option another one; a head of other classes must be asked for."""
    model = create_model("deit_tiny", num_classes=7, image_size=32)
    state = {name.replace("mlp.0", "mlp.fc1").replace("mlp.2", "mlp.fc2").replace("attention.", "attn."): tensor
             for name, tensor in model.state_dict().items()}  # fmt: skip
    state = {re.sub("^embed", "patch_embed.proj", name): tensor for name, tensor in state.items()}
    state["cls_token"] = state.pop("class_token")
    patches = state.pop("positions").flatten(2).mT
    state["pos_embed"] = torch.cat([torch.full((1, 1, 192), 0.5), patches], dim=1)
    with pytest.raises(UserError, match=r"in 2 tensors: it has head.weight of shape \(7, 192\) for \(1000, 192\)"):
        run(tmp_path, state, "--model", "deit_tiny")
    assert not (tmp_path / "ours.safetensors").exists()
    assert run(tmp_path, state, "--model", "deit_tiny", "--num-classes", "7", "--mean", "0.5", "0.5", "0.5") == 0
    ours = model_from_weights(tmp_path / "ours.safetensors")
    assert ours.config.image_size == (32, 32) and ours.preprocessing.mean == (0.5, 0.5, 0.5)
    torch.testing.assert_close(ours.class_token, model.class_token + 0.5)
    torch.testing.assert_close(ours.positions, model.positions)
    (tmp_path / "ours.safetensors").unlink()
    assert run(tmp_path, state, "--model", "deit_tiny", "--num-classes", "7", "--image-size", "48") == 0
    ours = model_from_weights(tmp_path / "ours.safetensors")
    expected = F.interpolate(model.positions, (3, 3), mode="bicubic", align_corners=False)
    torch.testing.assert_close(ours.positions, expected)


TIMM = pytest.importorskip("timm")


def vit(name="deit_tiny_patch16_224", **changes):
    """Make the tensors of one of timm's models for images of 32 pixels and 3 classes."""
    return TIMM.create_model(name, **{"img_size": 32, "num_classes": 3, "depth": 2, **changes}).state_dict()


@pytest.fixture(scope="module")
def unwrapped():
    state = vit()
    return state, convert.convert_state(state).state


WRAPPED = ["_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module.", "model.", "ema.", "model.module._orig_mod.",
           "student.backbone.", "_fsdp_wrapped_module.module.", "net._orig_mod."]  # fmt: skip


@pytest.mark.parametrize("prefix", WRAPPED)
def test_what_wrappers_put_before_names_is_removed_in_any_nesting(prefix, unwrapped, tmp_path):
    state, expected = unwrapped
    torch.save({"state_dict": {prefix + name: tensor for name, tensor in state.items()}}, tmp_path / "w.pth")
    found, _ = convert.read_state(tmp_path / "w.pth")
    assert list(found) == list(state)
    save_file({prefix + name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "w.safetensors")
    found = convert.convert_state(convert.read_state(tmp_path / "w.safetensors")[0]).state
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def renamed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("wrap", "place"),
    [
        (lambda s: {"n_averaged": torch.tensor(3), **renamed(s, "module.")}, ""),
        (lambda s: {name.replace("blocks.1.", "blocks.1._orig_mod."): tensor for name, tensor in s.items()}, ""),
        (lambda s: renamed(s, "model.") | renamed({n: t + 1 for n, t in s.items()} | {"decay": torch.ones(1)}, "ema."), "ema"),
        (lambda s: {"checkpoint": {"model": renamed(s, "module."), "optimizer": {}}}, "checkpoint.model"),
        (lambda s: {"model": s, "model_ema": {n: t + 1 for n, t in s.items()}}, "model_ema"),
    ],
    ids=["AveragedModel", "a compiled block", "EMA beside", "nested", "EMA of timm"],
)
def test_the_weights_of_a_checkpoint_are_found(wrap, place, unwrapped, tmp_path):
    state = unwrapped[0]
    torch.save(wrap(state), tmp_path / "w.pth")
    found, where = convert.read_state(tmp_path / "w.pth")
    found.pop("decay", None)
    assert where == place and found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name] + ("ema" in place)) for name in found)


RELATIVES = {
    "deit_tiny_distilled_patch16_224": "of a distilled DeiT, with a distillation token .*: dist_token has no place in a DeiT",
    "deit3_small_patch16_224": r"of a DeiT III or DINOv2, .* \(LayerScale\): blocks.0.ls1.gamma has no place in a DeiT",
    "vit_base_patch16_clip_224": "of a ViT with more parts than a DeiT: norm_pre.* has no place",
    "beit_base_patch16_224": "of a BEiT or EVA, whose attention has positions of its own",
}


@pytest.mark.parametrize("name", RELATIVES)
def test_relatives_of_a_vit_are_refused_with_what_differs(name, tmp_path):
    with pytest.raises(UserError, match=f"these weights are {RELATIVES[name]}.*Use weights of a plain DeiT"):
        run(tmp_path, vit(name), "--model", "deit_tiny", "--num-classes", "3")


def test_options_for_other_classes_and_patches_are_suggested_and_fit(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(MODELS, "deit_tiny", replace(MODELS["deit_tiny"], depth=2))
    state = vit("vit_tiny_patch16_224", patch_size=8)
    with pytest.raises(UserError, match="in 3 tensors: it has embed.weight .* Use --num-classes 3 --patch 8.$"):
        run(tmp_path, state, "--model", "deit_tiny")
    assert capsys.readouterr().out == ""
    assert run(tmp_path, state, "--model", "deit_tiny", "--num-classes", "3", "--patch", "8") == 0
    line = capsys.readouterr().out  # one for all
    assert line.count("\n") == 1 and f"32×32 px, from {len(state)} tensors of a DeiT or ViT in" in line
    theirs = TIMM.create_model("vit_tiny_patch16_224", img_size=32, num_classes=3, depth=2, patch_size=8).eval()
    theirs.load_state_dict(state)
    images, ours = torch.randn(2, 3, 32, 32), model_from_weights(tmp_path / "ours.safetensors").eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)


def test_weights_of_ones_own_or_of_several_models_are_refused_with_the_reason(unwrapped, tmp_path):
    own = create_model("deit_tiny", depth=1).state_dict()
    with pytest.raises(UserError, match="have this package's names already. Use the file, or the run folder, as it is"):
        run(tmp_path, own, "--model", "deit_tiny")
    with pytest.raises(UserError, match=r"weights of several models \(student., teacher.\). Save the state_dict of one"):
        run(tmp_path, renamed(unwrapped[0], "student.") | renamed(vit(), "teacher."), "--model", "deit_tiny")


def tiny(**changes):
    return {k: t.float() for k, t in official(24, 2, 8, heads=3, patches=16, classes=5, **changes).items()}


@pytest.mark.parametrize(
    ("state", "arguments", "message"),
    [
        ({"weight": torch.zeros(2)}, ["--model", "deit_tiny"], "of no family that can be converted .*begins with weight"),
        (tiny(), ["--model", "spvit_s"], "--model is spvit_s, but .* of an LV-ViT; use --model lvvit_l or lvvit_m or lvvit_s"),
        (tiny(), ["--model", "lvit_s"], "no model is called 'lvit_s'. Did you mean lvvit_s"),
        (tiny(), [], "--model is missing; expected the model that the weights are for"),
        (tiny(priors=0), ["--model", "spvit_l"], "holds no prior: it is an LV-ViT with PEG and a late class"),
        (tiny(priors=1), ["--model", "spvit_s"], "has 1 blocks with priors; spvit_s has 14. Use --spatial-layers 1"),
        (tiny(), ["--model", "lvvit_s", "--spatial-layers", "3"], "--spatial-layers is 3, but only SP-ViT has it"),
        (tiny() | {"pos_embed": torch.zeros(1, 13, 24)}, ["--model", "lvvit_s"], "12 patches, which fill no square"),
        (tiny() | {"odd": torch.zeros(1)}, ["--model", "lvvit_s"], "does not fit lvvit_s in .* tensors: it"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(tmp_path, state, arguments, message):
    with pytest.raises(UserError, match=message):
        run(tmp_path, state, *arguments)
    assert not (tmp_path / "ours.safetensors").exists()


def test_all_differences_are_printed(tmp_path, capsys):
    state = official(384, 16, 64, heads=6, device="meta")
    state = {name: torch.zeros(tensor.shape) for name, tensor in state.items() if not name.startswith("blocks.15.")}
    state |= {"surplus": torch.zeros(1), "norm.bias": torch.zeros(385)}
    with pytest.raises(UserError, match="in 13 tensors: it lacks .*; it lacks .*; it lacks .* Use --verbose to list all"):
        run(tmp_path, state, "--model", "lvvit_s")
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="in 13 tensors"):
        run(tmp_path, state, "--model", "lvvit_s", "--verbose")
    said = capsys.readouterr().out
    assert "lacks blocks.15.attention.qkv.weight" in said
    assert "has surplus, which an LV-ViT here lacks" in said
    assert "has norm.bias of shape (385,) for (384,)" in said


class Harmful:
    def __reduce__(self):
        return (print, ("code from the file ran",))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: torch.save({"state_dict": {}, "hook": Harmful()}, path), r"running code that it contains \(.*print"),
        (lambda path: path.write_bytes(b"no weights at all"), "no torch file|no complete"),
        (lambda path: path.write_bytes(b""), "no complete safetensors or torch file"),
        (lambda path: torch.save({"a": 1}, path), "contains no tensors by name"),
        (lambda path: torch.save(torch.zeros(3), path), "contains no tensors by name"),
        (lambda path: None, "there is no file"),
    ],
)
def test_files_that_are_no_weights(tmp_path, capfd, write, message):
    path = tmp_path / "theirs.pth"
    write(path)
    with pytest.raises(UserError, match=message):
        program.main([str(path), "--model", "deit_tiny", "--out", str(tmp_path / "x.safetensors")])
    assert "code from the file ran" not in capfd.readouterr().out


def test_help_and_order_of_arguments(capsys):
    with pytest.raises(SystemExit):
        program.main([])
    said = capsys.readouterr().out
    assert said.startswith("Convert third-party weights") and "--spatial-layers" in said
    with pytest.raises(UserError, match="FILE comes before the options"):
        program.main(["--model", "deit_tiny", "file"])
