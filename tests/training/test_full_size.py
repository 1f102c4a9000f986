"""The full-size path on real images of a thousand classes: labels, SP-ViT-S at 224 pixels, its fine-tune at 384.

The recipes run as they are, except for the batch size and the number of steps, so that a CPU can run them.
"""

import json
import shutil
from importlib import import_module

import pytest
import torch

from spvit_mini import create_model, load_weights, save_weights
from spvit_mini.cli import COMMANDS
from spvit_mini.training.metrics import read_rows

VALIDATION = 6  # images, each of another class


@pytest.fixture(scope="module")
def data(real_images, tmp_path_factory):
    """Make ImageNet's tree of the samples: all thousand to train on, the first few to validate on."""
    samples = real_images("imagenet-samples-1000") / "imagenet-samples-1000" / "val"
    root = tmp_path_factory.mktemp("data")
    for number, folder in enumerate(sorted(samples.iterdir())):
        for part in ("train", "val") if number < VALIDATION else ("train",):
            shutil.copytree(folder, root / "imagenet" / part / folder.name)
    return root


@pytest.fixture
def run(capsys):
    """Run a command in this process, and return what it prints."""

    def run_command(command, *arguments):
        assert not import_module(COMMANDS[command][0]).main(list(map(str, arguments)))
        return capsys.readouterr().out

    return run_command


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_labels_then_spvit_s_at_224_then_at_384(data, run, tmp_path):
    torch.manual_seed(0)
    teacher = create_model("vit_mini", num_classes=1000, image_size=56, depth=1, dim=32, heads=2)
    names = sorted(path.name for path in (data / "imagenet" / "train").iterdir())
    save_weights(teacher, tmp_path / "teacher.safetensors", classes=json.dumps(names))
    labels = tmp_path / "labels"
    images = ["--data.name", "imagenet", "--data.root", data]
    said = run("label", "--model", tmp_path / "teacher.safetensors", *images, "--out", labels)
    assert "new     1,000 maps" in said

    places = ["--data.root", data, "--token-labels.folder", labels, "--data.workers", 2, "--device", "cpu"]
    first = tmp_path / "first"
    steps = ["--batch-size", 4, "--micro-batch-size", 2, "--max-steps", 2]
    said = run("train", "spvit_s_imagenet", "--run-dir", first, *steps, *places)
    assert "26,234,468 parameters, 14×14 patches" in said and "step 2/2" in said
    assert "1,000 training and 6 validation images of 224×224 px, 1000 classes" in said
    (row,) = read_rows(first / "metrics.csv")
    # A loss of the class token and one of the patches, both about ln 1000 = 6.9 where nothing is known yet.
    assert 12 < row["train_loss"] < 16 and 6 < row["val_loss"] < 9 and 6 < row["ema_loss"] < 9
    assert row["skipped_steps"] == 0
    said = run("evaluate", first, "--data.root", data, "--data.workers", 2, "--device", "cpu")
    assert "of 6)" in said

    second = tmp_path / "second"
    said = run(
        "train", "spvit_s_imagenet_384", "--init-from", first, "--run-dir", second, "--batch-size", 2, "--micro-batch-size", 1,
        "--max-steps", 1, *places,
    )  # fmt: skip
    assert "24×24 patches" in said and f"initialised with {first}" in said and "interpolated to 24×24 patches" in said
    before, after = (load_weights(folder / "best.safetensors")[0] for folder in (first, second))
    assert before["positions"].shape[-2:] == (14, 14) and after["positions"].shape[-2:] == (24, 24)
    # One step at 5e-6 × 2 / 256 moves nothing that could be seen: these are the first run's weights. What batch norms
    # remember does move.
    learned = {name for name, _ in create_model("spvit_s", image_size=384).named_parameters()}
    for name in learned - {"positions"}:
        torch.testing.assert_close(after[name], before[name], rtol=1e-3, atol=1e-3, msg=name)
