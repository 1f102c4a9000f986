"""`python -m spvit_mini export`: files that answer as the model does, know all about it, and are whole or not there."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch

from spvit_mini import create_model, save_weights
from spvit_mini.cli.export import check_onnx, main
from spvit_mini.cli.program import run_program
from spvit_mini.errors import UserError
from spvit_mini.weights import load_weights
from spvit_mini.zoo import model_from_weights

CLASSES = ["iris", "lily of the valley", "rose"]
# Between them: a late class token, a prior, PEG, stem and dense head; a lookup per query.
KINDS = {
    "spatial": {
        "name": "spvit_mini", "depth": 2, "stem": 8, "peg": True, "dense_head": True, "pool": "class",
        "class_token_block": 1, "spatial_layers": 1,
    },
    "contextual": {"name": "vit_mini", "depth": 1, "attention": "shaw2d/contextual"},
}  # fmt: skip


def build(kind):
    options = dict(KINDS[kind])
    model = create_model(options.pop("name"), num_classes=3, image_size=(16, 24), dim=16, heads=2, **options).eval()
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.1, 1) if "running_var" in name else value.normal_(std=0.2)
    model.preprocessing = dataclasses.replace(
        model.preprocessing, mean=(0.1, 0.2, 0.3), std=(0.05, 0.1, 0.2), crop=0.5, interpolation="bilinear"
    )
    return model


def saved(model, path):
    save_weights(model, path, classes=json.dumps(CLASSES), weights="ema", step="7", recipe="{}")
    return path


def run(arguments, capsys):
    """Run the program as from the command line: exit status, stdout, stderr."""
    try:
        run_program(lambda: main([str(a) for a in arguments]))
        status = 0
    except SystemExit as end:
        status = end.code
    return status, *capsys.readouterr()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_onnx_file_answers_as_the_model_and_says_what_it_needs(kind, tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class GatherElements(OpRun):
        def _run(self, data, indices, axis=None):
            return (np.take_along_axis(data, indices, axis=axis),)

    model = build(kind)
    path, to = saved(model, tmp_path / "w.safetensors"), tmp_path / "m.onnx"
    status, out, err = run([path, "--out", to], capsys)
    assert (status, err, out.count("\n")) == (0, "", 1)
    assert "16×24 px, 3 classes, ema weights of step 7" in out
    proto = onnx.load(to)
    onnx.checker.check_model(proto, full_check=True)
    reference = ReferenceEvaluator(proto, new_ops=[GatherElements])
    for count in (1, 2, 5):
        images = torch.randn(count, 3, 16, 24)
        (found,) = reference.run(["logits"], {"images": images.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(found), model(images), rtol=1e-4, atol=1e-5)
    shape = [d.dim_param or d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["batch", 3, 16, 24]

    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(metadata["preprocessing"]) == {
        "image_size": [16, 24], "mean": [0.1, 0.2, 0.3], "std": [0.05, 0.1, 0.2], "crop": 0.5, "interpolation": "bilinear",
    }  # fmt: skip
    assert json.loads(metadata["classes"]) == CLASSES and json.loads(metadata["config"])["dim"] == 16
    assert [metadata[n] for n in ("model", "weights", "step", "recipe")] == [model.name, "ema", "7", "{}"]


@pytest.mark.parametrize("image_size", [None, 32])
def test_a_safetensors_file_is_the_model_again(image_size, tmp_path, capsys):
    model = build("spatial")
    path, to = saved(model, tmp_path / "w.safetensors"), tmp_path / "m.safetensors"
    options = [] if image_size is None else ["--image-size", image_size]
    status, out, err = run([path, "--out", to, *options], capsys)
    assert (status, err) == (0, "")
    size = (16, 24) if image_size is None else (32, 32)
    again = model_from_weights(to).eval()
    assert again.config.image_size == again.preprocessing.image_size == size
    assert dataclasses.replace(again.preprocessing, image_size=(16, 24)) == model.preprocessing
    images = torch.randn(2, 3, *size)
    torch.testing.assert_close(again(images), model(images))
    _, before = load_weights(path)
    _, after = load_weights(to)
    changed = {name for name in before if before[name] != after[name]}
    assert after.keys() == before.keys() and changed == (set() if image_size is None else {"config", "preprocessing"})


def test_an_onnx_file_that_answers_otherwise_is_refused():
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 2]) for name in ("images", "logits"))
    graph = helper.make_graph([helper.make_node("Abs", ["images"], ["logits"])], "graph", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    images = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
    check_onnx(model.SerializeToString(), images, images)
    check_onnx(model.SerializeToString(), images, images + 3e-4)
    with pytest.raises(UserError, match="differ from the model's by 2.0e-04 of the largest logit; expected at most 1e-04"):
        check_onnx(model.SerializeToString(), images, images + torch.tensor([[8e-4, 0.0], [0.0, 0.0]]))
    with pytest.raises(UserError, match="check that the weights are finite"):
        check_onnx(model.SerializeToString(), images, torch.full_like(images, float("nan")))


def test_mistakes_are_one_line_and_nothing_is_written(tmp_path, capsys, monkeypatch):
    path = saved(build("spatial"), tmp_path / "w.safetensors")

    def fails(*arguments):
        status, out, err = run(arguments, capsys)
        assert status == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1
        assert list(tmp_path.iterdir()) == [path]
        return err

    assert "RUN_OR_WEIGHTS comes before the options" in fails("--out", "m.onnx")
    assert "--out is None; expected a file that ends with" in fails(path)
    assert ".onnx or .safetensors" in fails(path, "--out", tmp_path / "m.pt")
    assert "exists already" in fails(path, "--out", path)
    assert "no folder" in fails(path, "--out", tmp_path / "nowhere" / "m.onnx")
    assert "expected a run folder or a weights file" in fails(tmp_path / "nowhere", "--out", tmp_path / "m.onnx")
    assert "contains no best.safetensors" in fails(tmp_path, "--out", tmp_path / "m.onnx")
    assert "30×30 pixels cannot be cut" in fails(path, "--out", tmp_path / "m.onnx", "--image-size", "30")
    assert "has ema weights only" in fails(path, "--out", tmp_path / "m.safetensors", "--weights", "last")
    with monkeypatch.context() as missing:
        missing.setitem(sys.modules, "onnxscript", None)
        assert "onnxscript: pip install 'spvit-mini[export]'" in fails(path, "--out", tmp_path / "m.onnx")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spvit_mini.files.os.replace", full)
    assert "could not be written (No space left on device)" in fails(path, "--out", tmp_path / "m.safetensors")


def test_help(capsys):
    _, out, _ = run(["--help"], capsys)
    assert out.startswith("Write a trained model to a file") and "--out" in out
