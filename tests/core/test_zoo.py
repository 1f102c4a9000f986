"""Models by name, and their weights in files."""

import json
import subprocess
import sys
from functools import partial

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel

import spvit_mini
from spvit_mini import weights
from spvit_mini.attention import MHSA, SPSA
from spvit_mini.cait import CaiT
from spvit_mini.cnn import CNN
from spvit_mini.config import CaiTConfig, CNNConfig, ViTConfig
from spvit_mini.errors import UserError
from spvit_mini.training.checkpoint import load_trained
from spvit_mini.vit import ViT
from spvit_mini.weights import init_from_weights, load_metadata
from spvit_mini.zoo import model_from_weights

TINY = {"depth": 2, "dim": 24, "heads": 3}


@pytest.fixture
def trained(tmp_path):
    """A small SP-ViT with weights away from their start, and the file that holds them."""
    torch.manual_seed(0)
    model = spvit_mini.create_model("spvit_mini", num_classes=5, image_size=(16, 24), **TINY).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    spvit_mini.save_weights(model, tmp_path / "weights.safetensors", averaged="no")
    return model, tmp_path / "weights.safetensors"


def test_the_minis_share_a_skeleton_and_differ_by_their_priors():
    vit, spvit = (spvit_mini.create_model(name) for name in ("vit_mini", "spvit_mini"))
    priors = {n: p for n, p in spvit.named_parameters() if ".spatial." in n}
    assert {n: p.shape for n, p in spvit.named_parameters() if n not in priors} == {
        n: p.shape for n, p in vit.named_parameters()
    }
    assert sum(p.numel() for p in priors.values()) == 9 * (4 * 32 * 4 + 4)  # depth · (4·K·H + H)
    assert 1e6 < sum(p.numel() for p in spvit.parameters()) < 4e6
    assert all(type(b.attention) is MHSA for b in vit.blocks) and all(type(b.attention) is SPSA for b in spvit.blocks)


def test_with_the_same_numbers_both_minis_start_as_the_same_function():
    vit, spvit = (spvit_mini.create_model(name, **TINY).double() for name in ("vit_mini", "spvit_mini"))
    vit.load_state_dict({n: p for n, p in spvit.state_dict().items() if ".spatial." not in n})
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(spvit(images), vit(images), rtol=1e-12, atol=1e-12)


def test_weights_come_back_as_they_were(trained):
    model, path = trained
    images = torch.randn(2, 3, 16, 24)
    named = spvit_mini.create_model("spvit_mini", num_classes=5, image_size=(16, 24), weights=path, **TINY).eval()
    rebuilt = model_from_weights(path).eval()
    assert torch.equal(named(images), model(images)) and torch.equal(rebuilt(images), model(images))
    assert rebuilt.config == model.config and rebuilt.preprocessing == model.preprocessing


def test_the_file_says_what_it_holds(trained):
    with safe_open(str(trained[1]), framework="pt") as file:
        metadata = file.metadata()
    assert metadata["model"] == "spvit_mini" and metadata["averaged"] == "no"
    assert json.loads(metadata["config"])["depth"] == 2


def test_the_file_is_readable_by_whom_other_files_are(trained, tmp_path):
    (tmp_path / "other").write_text("")
    assert trained[1].stat().st_mode == (tmp_path / "other").stat().st_mode


def test_weights_serve_at_another_image_size(trained):
    model, path = trained
    images = torch.randn(2, 3, 24, 32)
    other = spvit_mini.create_model("spvit_mini", num_classes=5, image_size=(24, 32), weights=path, **TINY).eval()
    torch.testing.assert_close(other(images), model(images))
    rebuilt = model_from_weights(path, image_size=(24, 32)).eval()
    assert rebuilt.grid == (6, 8) and rebuilt.preprocessing.image_size == (24, 32)
    torch.testing.assert_close(rebuilt(images), model(images))


def test_another_state_can_stand_for_the_model_s_own(trained, tmp_path):
    model, _ = trained
    other = {name: value + 1 for name, value in model.state_dict().items()}
    spvit_mini.save_weights(model, tmp_path / "other.safetensors", state=other)
    loaded, metadata = spvit_mini.load_weights(tmp_path / "other.safetensors")
    assert all(torch.equal(loaded[name], value) for name, value in other.items()) and len(loaded) == len(other)
    assert metadata["model"] == "spvit_mini"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "spvit_mimi"}, "no model is called 'spvit_mimi'. Did you mean spvit_mini"),
        ({"name": "vit_mini", "dept": 3}, "no option 'dept'. Did you mean depth"),
        ({"name": "vit_mini", "image_size": 30}, "30×30 pixels cannot be cut into patches of 4×4"),
        ({"name": "vit_mini", "weights": "nowhere.safetensors"}, "no weights file nowhere.safetensors"),
    ],
)
def test_wrong_arguments_are_one_clear_line(arguments, message):
    with pytest.raises(UserError, match=message):
        spvit_mini.create_model(**arguments)


def test_weights_of_another_model_are_refused_with_the_differences(trained):
    with pytest.raises(UserError, match=r"\(spvit_mini\) does not fit vit_mini: it has attention spsa for mhsa; "):
        spvit_mini.create_model("vit_mini", num_classes=5, weights=trained[1], **TINY)
    with pytest.raises(UserError, match=r"has head.weight of shape \(5, 24\) for \(7, 24\)"):
        spvit_mini.create_model("spvit_mini", num_classes=7, weights=trained[1], **TINY)
    with pytest.raises(UserError, match="it has depth 2 for 3. Use depth=2.$"):
        spvit_mini.create_model("spvit_mini", num_classes=5, weights=trained[1], **(TINY | {"depth": 3}))


@pytest.mark.parametrize("length", [0, 7, 100, 2000])
def test_a_weights_file_that_is_cut_off_is_one_clear_line(trained, length):
    path = trained[1]
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match="no complete safetensors file"):
        spvit_mini.load_weights(path)


def test_a_pickle_is_not_opened(tmp_path):
    torch.save({"positions": torch.zeros(1)}, tmp_path / "pickle.safetensors")
    with pytest.raises(UserError, match="no complete safetensors file"):
        spvit_mini.load_weights(tmp_path / "pickle.safetensors")


def test_weights_without_a_name_must_be_given_one(tmp_path):
    save_file({"positions": torch.zeros(1)}, str(tmp_path / "bare.safetensors"))
    with pytest.raises(UserError, match="does not name its model"):
        model_from_weights(tmp_path / "bare.safetensors")


def test_metadata_that_nobody_can_read_are_one_clear_line(trained, tmp_path):
    model, _ = trained
    spvit_mini.save_weights(model, tmp_path / "odd.safetensors", config="{depth: 2}")
    with pytest.raises(UserError, match="the config in .*odd.safetensors is not JSON"):
        model_from_weights(tmp_path / "odd.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(("code", "absent"), [
    ("import spvit_mini.zoo; spvit_mini.zoo.list_models()", {"torch", "numpy"}),
    ("from spvit_mini.zoo import create_model; create_model('spvit_mini', depth=1)", {"torchvision", "torch._dynamo"}),
    ("from spvit_mini.zoo import create_model; create_model('cnn_mini', depth=1)", {"torchvision"}),
])  # fmt: skip
def test_names_need_no_torch_and_models_no_torchvision(code, absent):
    loaded = subprocess.run([sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"], capture_output=True, text=True)
    assert not absent & set(loaded.stdout.split()) and "spvit_mini.zoo" in loaded.stdout


# --- The configuration in a file is compared with the model's by its meaning ------------------------------------------------

LATE = {"depth": 3, "dim": 24, "heads": 3, "image_size": 16, "pool": "class", "spatial_layers": 1, "class_token_block": 1}


def write(path, name="spvit_mini", **options):
    model = spvit_mini.create_model(name, **options).eval()
    spvit_mini.save_weights(model, path)
    return model


@pytest.mark.parametrize(
    ("asked", "field", "before", "now"),
    [
        ({"class_token_block": 0}, "class_token_block", 1, 0),
        ({"class_token_block": 2}, "class_token_block", 1, 2),
        ({"heads": 4, "attention": "mhsa", "spatial_layers": None}, "heads", 3, 4),
        ({"residual_scale": 2.0}, "residual_scale", 1.0, 2.0),
        ({"norm_eps": 1e-5}, "norm_eps", 1e-6, 1e-5),
        ({"attention_options": {"log": True}}, "attention_options", {"hidden": 32}, {"log": True}),
        ({"attention": "mlp/additive"}, "attention", "spsa", "mlp/additive"),
        ({"spatial_layers": 2}, "spatial_layers", 1, 2),
    ],
    ids=str,
)
def test_weights_whose_shapes_fit_but_which_mean_another_model_are_refused(asked, field, before, now, tmp_path):
    path = tmp_path / "w.safetensors"
    write(path, **LATE)
    with pytest.raises(UserError) as error:
        spvit_mini.create_model("spvit_mini", weights=path, **(LATE | asked))
    assert f"(spvit_mini) does not fit spvit_mini: it has {field} {before} for {now}" in str(error.value)
    assert model_from_weights(path).config == spvit_mini.create_model("spvit_mini", **LATE).config  # the remedy


def test_weights_of_another_size_of_the_family_are_refused_by_the_names(tmp_path):
    write(tmp_path / "s.safetensors", "spvit_s", depth=3, spatial_layers=1, class_token_block=1, image_size=32)
    changes = {"depth": 3, "spatial_layers": 1, "class_token_block": 1, "image_size": 32}
    with pytest.raises(UserError, match=r"s.safetensors \(spvit_s\) does not fit spvit_m: it has dim 384 for 512; it has"):
        spvit_mini.create_model("spvit_m", weights=tmp_path / "s.safetensors", **changes)


@pytest.mark.parametrize(
    ("name", "written", "asked"),
    [
        ("spvit_mini", {"attention_options": {}}, {"attention_options": {"hidden": 32}}),
        ("spvit_mini", {}, {"attention_options": {"hidden": 32, "weight_std": 0.02, "bias_std": 0}}),
        ("spvit_mini", {}, {"attention": "mlp/multiplicative", "attention_options": {"hidden": 32, "log": False}}),
        ("rpb_mini", {}, {"attention": "table/additive"}),
        ("rpb_mini", {"spatial_layers": 3}, {"spatial_layers": None}),
        ("convit_mini", {}, {"attention": "quadratic/gated", "attention_options": {"strength": 2}}),
        ("window_mini", {"odd_block_options": {"shift": 0}}, {"odd_block_options": {}}),
        ("window_mini", {"odd_block_options": {}}, {"attention": "square_window/masked"}),
        ("spvit_mini", {}, {"drop_path": 0.2, "init_std": 0.1, "mlp_ratio": 2}),
    ],
    ids=str,
)
def test_two_ways_to_write_one_configuration_are_the_same_model(name, written, asked, tmp_path):
    size = {"depth": 3, "dim": 24, "heads": 3, "image_size": 16}
    model = write(tmp_path / "w.safetensors", name, **size, **written)
    other = spvit_mini.create_model(name, weights=tmp_path / "w.safetensors", **size, **asked).eval()
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(other(images), model(images))


def test_a_file_with_an_option_that_this_version_lacks_is_refused(tmp_path):
    write(tmp_path / "w.safetensors", **LATE)
    state, metadata = spvit_mini.load_weights(tmp_path / "w.safetensors")
    config = json.loads(metadata["config"]) | {"sinks": 4}
    save_file(state, tmp_path / "new.safetensors", metadata=metadata | {"config": json.dumps(config)})
    with pytest.raises(UserError, match="it has sinks 4, which the model lacks"):
        spvit_mini.create_model("spvit_mini", weights=tmp_path / "new.safetensors", **LATE)


@pytest.mark.parametrize("build", [
    lambda: ViT(ViTConfig(dim=24, depth=1, heads=3)), lambda: CaiT(CaiTConfig(image_size=(32, 32), dim=24, depth=1, heads=3)),
    lambda: CNN(CNNConfig(depth=3, dim=32)),
])  # fmt: skip
def test_a_model_that_was_not_built_by_name_is_saved_rebuilt_and_has_transforms(build, tmp_path):
    model, images = build().eval(), torch.randn(2, 3, 32, 32)
    spvit_mini.save_weights(model, tmp_path / "w.safetensors")
    other = model_from_weights(tmp_path / "w.safetensors").eval()
    assert other.config == model.config and torch.equal(other(images), model(images))
    assert spvit_mini.transforms_for(model)(Image.new("RGB", (50, 40))).shape == (3, 32, 32)


def test_wrappers_leave_no_trace_in_files(tmp_path):
    model, images = spvit_mini.create_model("spvit_mini", **TINY).eval(), torch.randn(2, 3, 32, 32)
    compiled = {f"_orig_mod.{name}": value for name, value in model.state_dict().items()}
    block = {name.replace("blocks.1", "blocks.1._orig_mod"): value for name, value in model.state_dict().items()}
    for label, wrapper, state in (("whole", model, compiled), ("block", model, block), ("averaged", AveragedModel(model), None)):
        path = tmp_path / f"{label}.safetensors"
        spvit_mini.save_weights(wrapper, path, state=state)
        assert torch.equal(model_from_weights(path).eval()(images), model(images))
        assert set(spvit_mini.load_weights(path)[0]) == set(model.state_dict())
    state = {f"module._orig_mod.{name}": value for name, value in model.state_dict().items()}
    save_file(state, tmp_path / "named.safetensors")
    other = spvit_mini.create_model("spvit_mini", weights=tmp_path / "named.safetensors", **TINY).eval()
    assert torch.equal(other(images), model(images))


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_third_party_weights_name_the_command_that_converts_them(prefix, tmp_path):
    path = tmp_path / "theirs.safetensors"
    save_file({f"{prefix}blocks.0.attn.qkv.weight": torch.zeros(6, 2), f"{prefix}cls_token": torch.zeros(1, 1, 2)}, path)
    message = f"has third-party weights, such as .*. Convert them first: python -m spvit_mini convert {path} --model"
    for load in (model_from_weights, load_metadata, partial(spvit_mini.create_model, "deit_tiny", weights=path, depth=1)):
        with pytest.raises(UserError, match=message):
            load() if isinstance(load, partial) else load(path)
    with pytest.raises(UserError, match=message):
        init_from_weights(spvit_mini.create_model("vit_mini", depth=1), path, classes=["a"])
    assert set(spvit_mini.load_weights(path)[0]) == {f"{prefix}blocks.0.attn.qkv.weight", f"{prefix}cls_token"}


def test_tensors_are_read_once_and_not_for_the_metadata(tmp_path, monkeypatch):
    model = write(tmp_path / "w.safetensors", **LATE)
    monkeypatch.setattr(weights, "load_weights", None)  # the metadata need no tensor
    assert json.loads(load_metadata(tmp_path / "w.safetensors")["config"])["depth"] == 3
    monkeypatch.undo()
    reads, load = [], weights.load_weights
    monkeypatch.setattr(weights, "load_weights", lambda path: reads.append(path) or load(path))
    assert load_trained(tmp_path / "w.safetensors")[0].config == model.config and len(reads) == 1
