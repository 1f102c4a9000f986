"""`python -m spvit_mini.evaluate`: the scores of a run's best weights, and one clear line for every mistake."""

import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from spvit_mini import create_model, save_weights
from spvit_mini.data import DataOptions, load_data
from spvit_mini.errors import run_program
from spvit_mini.evaluate import main, report
from spvit_mini.training import get_recipe, train
from spvit_mini.training.metrics import Counts


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run of a small model, and its result."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    recipe = get_recipe("spvit_mini_compass6").but(
        {"model.depth": 1, "data.train_images": 200, "data.val_images": 101, "batch": 20, "length": "4 epochs",
         "evaluate_every": "1 epoch", "device": "cpu"}
    )  # fmt: skip
    return folder, train(recipe, run=folder, progress=False)


def fails(arguments, capsys) -> str:
    with pytest.raises(SystemExit) as end:
        run_program(lambda: main([str(a) for a in arguments]))
    out, err = capsys.readouterr()
    assert end.value.code == 2
    assert err.startswith("error: ") and err.count("\n") == 1 and out == ""
    return err


@pytest.mark.parametrize("batch", ["7", "101", "1000"])
def test_the_scores_are_those_of_the_best_row_whatever_the_batch(run, capsys, batch):
    folder, result = run
    assert main([str(folder), "--batch", batch, "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    right = round(result.best["val_top1"] * 101 / 100)
    assert f"top-1  {result.best['val_top1']:.2f} %  ({right} of 101)" in out
    assert f"loss   {result.best['val_loss']:.4f}" in out
    assert f"spvit_mini, raw weights of step {result.best['step']}" in out
    assert "compass6: 101 validation images of 24×24 px, 8 classes" in out


def test_a_weights_file_alone_knows_its_data(run, tmp_path, capsys):
    folder, result = run
    shutil.copy(folder / "best.safetensors", tmp_path / "weights.safetensors")
    assert main([str(tmp_path / "weights.safetensors"), "--device", "cpu"]) == 0
    assert f"top-1  {result.best['val_top1']:.2f} %" in capsys.readouterr().out


def test_other_data_with_the_same_classes_by_hand(run, capsys):
    folder, _ = run
    assert main([str(folder), "--data.name", "compass", "--data.val-images", "50", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    from spvit_mini.zoo import model_from_weights

    model = model_from_weights(folder / "best.safetensors").eval()
    data = load_data(DataOptions(name="compass", val_images=50), seed=0)
    with torch.no_grad():
        answers = [model(data.val[i][0][None]).argmax().item() == data.val[i][1] for i in range(50)]
    assert f"({sum(answers)} of 50)" in out and "32×32 px" in out


def test_a_photograph_is_prepared_as_the_weights_say(tmp_path, capsys):
    """Weights with another mean than the set's: the answer follows the weights."""
    from dataclasses import replace

    import numpy as np
    from PIL import Image

    random = np.random.RandomState(0)
    for name in ("a", "b"):
        (tmp_path / "tree" / "val" / name).mkdir(parents=True)
        for i in range(5):
            pixels = random.randint(0, 255, (40, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "tree" / "val" / name / f"{i}.png")
    torch.manual_seed(0)
    model = create_model("vit_mini", num_classes=2, image_size=16, depth=1, dim=16, heads=2)
    model.preprocessing = replace(model.preprocessing, mean=(0.1, 0.2, 0.3), std=(0.05, 0.1, 0.2), crop=0.5)
    save_weights(model, tmp_path / "w.safetensors")
    assert main([str(tmp_path / "w.safetensors"), "--data.name", "tree", "--data.root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    data = load_data(DataOptions(name="tree", root=tmp_path), seed=0, train=False, preprocessing=model.preprocessing)
    images = torch.stack([data.val[i][0] for i in range(10)])
    assert images.shape[-2:] == (16, 16)
    loss = torch.nn.functional.cross_entropy(model.eval()(images), torch.tensor([0] * 5 + [1] * 5)).item()
    assert f"loss   {loss:.4f}" in out


def test_the_report_by_hand():
    counts = Counts(2000, torch.tensor(1000.0), torch.tensor(1500), torch.tensor(1999))
    assert report(counts, 8).splitlines() == [
        "top-1  75.00 %  (1,500 of 2,000)", "top-5  99.95 %  (1,999 of 2,000)", "loss   0.5000",
    ]  # fmt: skip
    assert "top-5" not in report(counts, 5)


def test_mistakes(run, tmp_path, capsys):
    folder, _ = run
    weights = folder / "best.safetensors"
    assert "comes first" in fails(["--data.root", "x"], capsys)
    assert "no run folder or weights file" in fails([tmp_path / "nowhere"], capsys)
    assert "holds no best.safetensors" in fails([tmp_path], capsys)
    assert "no option --data.nam. Did you mean --data.name" in fails([folder, "--data.nam", "rings"], capsys)
    assert "8 classes apart (N, NE, E, …), but rings has 4" in fails([folder, "--data.name", "rings"], capsys)
    assert "no data set 'compas'" in fails([folder, "--data.name", "compas"], capsys)
    assert "not on this machine" in fails([folder, "--device", "abacus"], capsys)
    assert "safetensors" in fails([folder / "last.pt"], capsys)

    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(weights.read_bytes()[:-100])
    assert "cut.safetensors" in fails([cut], capsys)

    bare = tmp_path / "bare.safetensors"
    save_file(load_file(weights), bare)
    assert "name them: --data.name" in fails([bare], capsys)
    assert "does not say which model" in fails([bare, "--data.name", "compass6"], capsys)


class Dangerous:
    def __reduce__(self):
        return (open, ("ran", "w"))


def test_a_pickle_with_code_is_not_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.safetensors").write_bytes(pickle.dumps(Dangerous()))
    assert "w.safetensors" in fails([tmp_path / "w.safetensors"], capsys)
    assert not (tmp_path / "ran").exists()


def test_help(capsys):
    assert main(["--help"]) == 0
    assert "runs/spvit_mini_compass" in capsys.readouterr().out
