"""`torch.hub` from a checkout: the entry points are the models, and they build the same models as `create_model`."""

import runpy
from pathlib import Path

import pytest
import torch

from spvit_mini import create_model, list_models, save_weights

ROOT = str(Path(__file__).parent.parent)


def test_every_model_is_an_entry_point():
    names = {name for name, value in runpy.run_path(f"{ROOT}/hubconf.py").items() if callable(value) and name[0] != "_"}
    assert names == {*list_models(), "create_model", "list_models"}  # as torch.hub.list finds them


@pytest.mark.parametrize(("entry", "arguments"), [("spvit_mini", ()), ("create_model", ("spvit_mini",))])
def test_a_model_by_torch_hub_is_the_model_of_the_library(entry, arguments, tmp_path):
    expected = create_model("spvit_mini", depth=1, num_classes=3)
    save_weights(expected, tmp_path / "w.safetensors")
    options = {"depth": 1, "num_classes": 3, "weights": tmp_path / "w.safetensors"}
    model = torch.hub.load(ROOT, entry, *arguments, source="local", **options)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model.eval()(images), expected.eval()(images), rtol=0, atol=0)
