"""`init_from_weights`: trained weights as the beginning for other classes and other image sizes."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from spvit_mini import create_model, save_weights
from spvit_mini.errors import UserError
from spvit_mini.weights import init_from_weights

TINY = {"depth": 2, "dim": 24, "heads": 3}
BIRDS = ["robin", "wren", "crow"]
# Every kind of thing that a grid leaves in the weights: positions, tables, both, and none but priors; and a dense head.
KINDS = {
    "spvit_mini": {},
    "rpb_mini": {},
    "no positions": {"name": "rpb_mini", "positions": False},
    "convit_mini": {"pool": "class", "class_token_block": 1, "spatial_layers": 1},
    "dense": {"name": "spvit_mini", "pool": "class", "dense_head": True, "stem": 8, "peg": True},
    "one table": {"name": "rpb_mini", "sharing": "network"},
    "window_mini": {},
}


def build(kind, classes, image_size, **changes):
    """Make a tiny model in float64 with weights away from their start."""
    options = {"name": kind, **KINDS[kind], **TINY, **changes}
    model = (
        create_model(options.pop("name"), num_classes=len(classes), image_size=image_size, **options).double().eval()
    )
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.1, 1) if "running_var" in name else value.normal_(std=0.2)
    return model


def saved(model, path, **metadata):
    save_weights(model, path, **metadata)
    return path


@pytest.mark.parametrize("image_size", [(16, 16), (24, 24), (16, 28)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_for_other_classes_all_but_the_heads_computes_the_same(kind, image_size, tmp_path):
    source = build(kind, BIRDS, (16, 16))
    path = saved(source, tmp_path / "w.safetensors", classes=json.dumps(BIRDS))
    model = build(kind, ["oak", "elm"], image_size)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    line = init_from_weights(model, path, classes=["oak", "elm"])

    images = torch.randn(2, 3, *image_size, dtype=torch.float64)
    torch.testing.assert_close(model.forward_features(images), source.forward_features(images), rtol=1e-10, atol=1e-10)
    after = model.state_dict()
    heads = [name for name in after if name.split(".")[0] in ("head", "dense_head")]
    assert len(heads) == (4 if kind == "dense" else 2)
    assert all(torch.equal(after[name], start[name]) for name in heads)
    assert "re-initialised for 2 classes (the file has 3)" in line and ("dense head are" in line) == (kind == "dense")
    has = {"positions": "positions" in after, "bias tables": any(name.endswith("spatial.values") for name in after)}
    for what, there in has.items():
        assert (what in line) == (there and image_size != (16, 16)), line


@pytest.mark.parametrize("metadata", [{"classes": json.dumps(BIRDS)}, {}], ids=["named", "as many"])
def test_the_same_classes_keep_the_head_at_a_higher_resolution(metadata, tmp_path):
    source = build("dense", BIRDS, 16)
    model = build("dense", BIRDS, 24)
    line = init_from_weights(model, saved(source, tmp_path / "w.safetensors", **metadata), classes=BIRDS)
    images = torch.randn(2, 3, 24, 24, dtype=torch.float64)
    torch.testing.assert_close(model(images), source(images), rtol=1e-10, atol=1e-10)
    assert "head included" in line and "re-initialised" not in line and "positions are interpolated to 6×6 patches" in line


def test_as_many_classes_of_other_names_or_in_another_order_re_initialise_the_head(tmp_path):
    source = build("spvit_mini", BIRDS, 16)
    path = saved(source, tmp_path / "w.safetensors", classes=json.dumps(BIRDS), weights="ema", step="7")
    for classes in (["oak", "elm", "ash"], BIRDS[::-1]):
        model = build("spvit_mini", classes, 16)
        head = model.head.weight.clone()
        line = init_from_weights(model, path, classes=classes)
        assert torch.equal(model.head.weight, head) and torch.equal(model.norm.weight, source.norm.weight)
        assert line == f"{path}, ema weights of step 7; the head is re-initialised for 3 classes (the file has others)"


def test_another_normalisation_is_said(tmp_path):
    source = build("spvit_mini", BIRDS, 16)
    source.preprocessing = replace(source.preprocessing, mean=(0.5, 0.5, 0.5), crop=0.9)
    path = saved(source, tmp_path / "w.safetensors")
    model = build("spvit_mini", BIRDS, 16)
    assert "they were trained with a mean of (0.5, 0.5, 0.5) and a std of" in init_from_weights(model, path, classes=BIRDS)
    model.preprocessing = replace(source.preprocessing, crop=1.0)
    assert "trained with" not in init_from_weights(model, path, classes=BIRDS)


def test_a_run_folder_stands_for_its_best_weights(tmp_path):
    source = build("spvit_mini", BIRDS, 16)
    saved(source, tmp_path / "best.safetensors", classes=json.dumps(BIRDS))
    model = build("spvit_mini", BIRDS, 16)
    line = init_from_weights(model, tmp_path, classes=BIRDS)
    assert torch.equal(model.head.weight, source.head.weight) and "best.safetensors, last weights, head included" in line


def test_how_a_model_was_drawn_and_is_trained_may_differ(tmp_path):
    source = build("spvit_mini", BIRDS, 16)
    path = saved(source, tmp_path / "w.safetensors")
    model = build("spvit_mini", BIRDS, 16, drop_path=0.3, attention_options={"hidden": 32, "weight_std": 0.1})
    init_from_weights(model, path, classes=BIRDS)
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(model(images), source(images))


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("rpb_mini", {}, r"w.safetensors \(spvit_mini\) does not fit rpb_mini: it has attention spsa for rpb"),
        ("spvit_mini", {"depth": 3}, "it has depth 2 for 3"),
        ("spvit_mini", {"heads": 4}, "it has heads 3 for 4"),  # positions and projections of the same shape
        ("spvit_mini", {"residual_scale": 2.0}, "it has residual_scale 1.0 for 2.0"),  # all of the same shape
        ("spvit_mini", {"attention_options": {"hidden": 8}}, r"it has attention_options \{'hidden': 32\} for"),
        ("spvit_mini", {"patch": 8}, "it has patch 4 for 8"),
    ],
)
def test_weights_of_another_model_are_refused_and_nothing_changes(kind, changes, message, tmp_path):
    path = saved(build("spvit_mini", BIRDS, 16), tmp_path / "w.safetensors")
    model = build(kind, BIRDS, 16, **changes)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=message):
        init_from_weights(model, path, classes=BIRDS)
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


def test_tensors_alone_are_held_against_the_model(tmp_path):
    """A file without metadata: its tensors decide."""
    source = build("spvit_mini", BIRDS, 16)
    saved(source, tmp_path / "w.safetensors")
    save_file(load_file(tmp_path / "w.safetensors"), tmp_path / "bare.safetensors")
    model = build("spvit_mini", ["oak", "elm"], 16)
    init_from_weights(model, tmp_path / "bare.safetensors", classes=["oak", "elm"])
    assert torch.equal(model.norm.weight, source.norm.weight)
    with pytest.raises(UserError, match="it lacks class_token; it lacks blocks.0.attention.gate; it lacks"):
        init_from_weights(build("convit_mini", BIRDS, 16), tmp_path / "bare.safetensors", classes=BIRDS)


def test_a_dense_head_does_not_come_from_nowhere(tmp_path):
    path = saved(build("dense", BIRDS, 16, dense_head=False), tmp_path / "w.safetensors")
    save_file(load_file(path), path)
    with pytest.raises(UserError, match="it lacks dense_head.weight; it lacks dense_head.bias$"):
        init_from_weights(build("dense", ["oak"], 16), path, classes=["oak"])


def test_mistakes_are_one_clear_line(tmp_path):
    model = build("spvit_mini", BIRDS, 16)
    with pytest.raises(UserError, match="does not exist; expected a run folder or a weights file"):
        init_from_weights(model, tmp_path / "nowhere", classes=BIRDS)
    with pytest.raises(UserError, match="contains no best.safetensors"):
        init_from_weights(model, tmp_path, classes=BIRDS)
    torch.save({}, tmp_path / "deit.pth")
    with pytest.raises(UserError, match="convert third-party weights first: python -m spvit_mini convert .*deit.pth --model"):
        init_from_weights(model, tmp_path / "deit.pth", classes=BIRDS)
    with pytest.raises(UserError, match="the classes in .* is not JSON"):
        init_from_weights(model, saved(model, tmp_path / "w.safetensors", classes="robin, wren"), classes=BIRDS)


def test_released_weights_start_a_fine_tune_once_they_are_converted(tmp_path):
    """A DeiT in its authors' names: through the converter, then to other classes."""
    timm = pytest.importorskip("timm")
    from spvit_mini.cli.convert import main

    theirs = timm.create_model("deit_tiny_patch16_224", img_size=64, num_classes=3).eval()
    torch.save({"model": theirs.state_dict()}, tmp_path / "deit.pth")
    paths = [str(tmp_path / name) for name in ("deit.pth", "w.safetensors")]
    main([paths[0], "--model", "deit_tiny", "--out", paths[1], "--num-classes", "3"])
    model = create_model("deit_tiny", image_size=64, num_classes=2).eval()
    assert "re-initialised for 2 classes" in init_from_weights(model, tmp_path / "w.safetensors", classes=["oak", "elm"])
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            model.forward_features(images), theirs.forward_features(images), rtol=1e-4, atol=1e-4
        )
