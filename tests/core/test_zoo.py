"""Models by name, and their weights in files."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import spvit_mini
from spvit_mini.attention import MHSA, SPSA
from spvit_mini.errors import UserError
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
    with pytest.raises(UserError, match="does not fit vit_mini: it has blocks.0.attention.spatial.b1, which the model"):
        spvit_mini.create_model("vit_mini", num_classes=5, weights=trained[1], **TINY)
    with pytest.raises(UserError, match=r"has head.weight of shape \(5, 24\) for \(7, 24\)"):
        spvit_mini.create_model("spvit_mini", num_classes=7, weights=trained[1], **TINY)
    with pytest.raises(UserError, match="it lacks blocks.2"):
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
