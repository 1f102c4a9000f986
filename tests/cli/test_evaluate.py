"""`python -m spvit_mini evaluate`: the scores of a run's best weights, and one clear line for every mistake."""

import csv
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

from spvit_mini import create_model, save_weights
from spvit_mini.cli.evaluate import COLUMNS, format_metrics, list_classes, main, print_worst, update_confusion
from spvit_mini.cli.program import run_program
from spvit_mini.data import DataOptions, load_data
from spvit_mini.recipes import Recipe, get_recipe
from spvit_mini.training import train
from spvit_mini.training.metrics import ClassificationMetrics
from spvit_mini.weights import load_weights
from spvit_mini.zoo import model_from_weights


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run of a small model, and its result."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    recipe = get_recipe("spvit_mini_compass6").override(
        {"model.depth": 1, "data.train_images": 200, "data.val_images": 101, "batch_size": 20, "duration": "4 epochs",
         "evaluate_every": "1 epoch", "device": "cpu", "ema": 0.9}
    )  # fmt: skip
    return folder, train(recipe, run_dir=folder, progress=False)


def best(result) -> tuple[float, float, str]:
    """Take loss, accuracy and kind of the better weights of the best row."""
    row = result.best
    if row["ema_top1"] > row["val_top1"]:
        return row["ema_loss"], row["ema_top1"], "ema"
    return row["val_loss"], row["val_top1"], "last"


def fails(arguments, capsys) -> str:
    with pytest.raises(SystemExit) as end:
        run_program(lambda: main([str(a) for a in arguments]))
    out, err = capsys.readouterr()
    assert end.value.code == 2
    assert err.startswith("error: ") and err.count("\n") == 1 and out == ""
    return err


@pytest.mark.parametrize("batch", ["7", "1000"])
def test_the_scores_are_those_of_the_best_row_whatever_the_batch(run, capsys, batch):
    folder, result = run
    assert main([str(folder), "--batch-size", batch, "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    loss, top1, which = best(result)
    assert f"top-1  {top1:.2f} %  ({round(top1 * 101 / 100)} of 101)" in out
    assert f"loss   {loss:.4f}" in out
    assert f"spvit_mini, {which} weights of step {result.best['step']}" in out
    assert "compass6: 101 validation images of 24×24 px, 8 classes" in out


@pytest.mark.parametrize(("which", "column"), [("last", "val"), ("ema", "ema")])
def test_the_newest_weights_score_as_in_the_last_row(run, capsys, which, column):
    folder, result = run
    assert main([str(folder), "--weights", which, "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    row = result.rows[-1]
    assert row["val_loss"] != row["ema_loss"]
    assert f"spvit_mini, {which} weights of step 40" in out
    assert f"top-1  {row[f'{column}_top1']:.2f} %" in out and f"loss   {row[f'{column}_loss']:.4f}" in out


def test_class_by_class(run, tmp_path, capsys):
    folder, _ = run
    table = tmp_path / "classes.csv"
    assert main([str(folder), "--worst-classes", "3", "--per-class", str(table), "--batch-size", "7", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    model = model_from_weights(folder / "best.safetensors").eval()
    data = load_data(DataOptions(name="compass6", val_images=101), seed=0)
    with torch.no_grad():
        answers = torch.stack([model(data.val[i][0][None]).argmax() for i in range(101)])
    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["class"] for row in rows) == sorted(data.classes)
    for row in rows:
        given = answers[data.val.labels == data.classes.index(row["class"])]
        taken = given.bincount(minlength=8)
        right = taken[data.classes.index(row["class"])].item()
        assert (int(row["images"]), int(row["right"])) == (len(given), right)
        assert float(row["top1"]) == pytest.approx(100 * right / len(given), rel=1e-5)
        taken[data.classes.index(row["class"])] = 0
        assert int(row["confused"]) == taken.max()
        if row["confused_with"]:
            assert taken[data.classes.index(row["confused_with"])] == taken.max() > 0
    assert [float(row["top1"]) for row in rows] == sorted(float(row["top1"]) for row in rows)
    shown = [line.split()[0] for line in lines if line.startswith("  ")]
    assert shown == [row["class"] for row in rows[:3]] and f"all classes: {table}" in lines


def test_the_precision_is_float32_unless_asked_for_and_is_said_and_recorded(run, tmp_path, capsys):
    """Of a run whose forward pass is in bfloat16, too."""
    folder, _ = run
    _, metadata = load_weights(folder / "best.safetensors")
    recipe = Recipe.from_json(metadata["recipe"]).override({"precision": "bfloat16"})
    model = model_from_weights(folder / "best.safetensors")
    save_weights(model, tmp_path / "run.safetensors", classes=metadata["classes"], recipe=recipe.to_json())
    data = load_data(recipe.data, seed=recipe.seed, train=False)
    losses = {}
    for precision, dtype in ((None, torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        options = ["--precision", precision] if precision else []
        table = tmp_path / f"{precision}.csv"
        assert main([str(tmp_path / "run.safetensors"), "--device", "cpu", "--per-class", str(table), *options]) == 0
        out = capsys.readouterr().out
        name = str(dtype).removeprefix("torch.")
        assert f"8 classes, {name}\n" in out
        assert {row["precision"] for row in csv.DictReader(table.read_text().splitlines())} == {name}
        images, labels = torch.stack([image for image, _ in data.val]), data.val.labels
        with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            losses[precision] = F.cross_entropy(model.eval()(images).float(), labels).item()
        assert f"loss   {losses[precision]:.4f}" in out
    assert losses[None] == losses["float32"] != losses["bfloat16"]


def test_the_rows_of_classes_by_hand(capsys):
    matrix = torch.tensor([[8, 2, 0, 0], [0, 0, 0, 0], [1, 0, 1, 2], [0, 0, 0, 9]])
    rows = list_classes(matrix, ["oak", "elm", "ash", "fir"])
    assert [tuple(row.values()) for row in rows] == [
        ("ash", 4, 1, 25.0, "fir", 2),
        ("oak", 10, 8, 80.0, "elm", 2),
        ("fir", 9, 9, 100.0, None, 0),
        ("elm", 0, 0, None, None, 0),
    ]
    assert (*rows[0], "precision") == COLUMNS
    print_worst(rows)
    assert capsys.readouterr().out.splitlines() == [
        "  ash   25.00 %  (1 of 4)  2 confused with fir",
        "  oak   80.00 %  (8 of 10)  2 confused with elm",
        "  fir  100.00 %  (9 of 9)",
        "  elm  no images",
    ]


def test_what_is_no_image_is_not_confused():
    confusion = torch.zeros(3, 3, dtype=torch.int64)
    logits = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]])
    update_confusion(confusion, logits, torch.tensor([0, 2, -1, 2]))
    assert confusion.tolist() == [[1, 0, 0], [0, 0, 0], [0, 2, 0]]


@pytest.mark.slow
def test_two_processes_count_the_same(run, tmp_path, capsys):
    """101 images on two processes: one of them is given an image that does not count."""
    folder, _ = run
    options = [str(folder), "--device", "cpu", "--batch-size", "20", "--per-class"]
    many = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*many, "-m", "spvit_mini", "evaluate", *options, str(tmp_path / "two.csv")]
    two = subprocess.run(command, capture_output=True, text=True)
    assert two.returncode == 0, two.stderr
    assert main([*options, str(tmp_path / "one.csv")]) == 0
    out = capsys.readouterr().out
    assert two.stdout.replace("two.csv", "one.csv") == out and "of 101)" in out
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()


def test_a_bar_is_shown_on_a_terminal_alone(run, capsys, monkeypatch):
    folder, _ = run
    main([str(folder), "--device", "cpu"])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    main([str(folder), "--device", "cpu"])
    assert "/2 [" in capsys.readouterr().err  # 101 images by 100


def test_a_weights_file_alone_knows_its_data(run, tmp_path, capsys):
    folder, result = run
    shutil.copy(folder / "best.safetensors", tmp_path / "weights.safetensors")
    assert main([str(tmp_path / "weights.safetensors"), "--device", "cpu"]) == 0
    assert f"top-1  {best(result)[1]:.2f} %" in capsys.readouterr().out


def test_other_data_with_the_same_classes_by_hand(run, capsys):
    folder, _ = run
    assert main([str(folder), "--data.name", "compass", "--data.val-images", "50", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    model = model_from_weights(folder / "best.safetensors").eval()
    data = load_data(DataOptions(name="compass", val_images=50), seed=0)
    with torch.no_grad():
        answers = [model(data.val[i][0][None]).argmax().item() == data.val[i][1] for i in range(50)]
    assert f"({sum(answers)} of 50)" in out and "32×32 px (trained at 24×24), 8 classes" in out


@pytest.mark.parametrize("image_size", [None, 24])
def test_a_photograph_is_prepared_as_the_weights_say(tmp_path, capsys, image_size):
    """Weights with another mean than the set's, at their own resolution and another: the answer follows the weights."""
    random = np.random.RandomState(0)
    for name in ("a", "b"):
        (tmp_path / "tree" / "val" / name).mkdir(parents=True)
        for i in range(5):
            pixels = random.randint(0, 255, (40, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "tree" / "val" / name / f"{i}.png")
    model = create_model("vit_mini", num_classes=2, image_size=16, depth=1, dim=16, heads=2)
    torch.nn.init.normal_(model.positions)
    model.preprocessing = replace(model.preprocessing, mean=(0.1, 0.2, 0.3), std=(0.05, 0.1, 0.2), crop=0.5)
    save_weights(model, tmp_path / "w.safetensors")
    options = [] if image_size is None else ["--data.image-size", str(image_size)]
    assert main([str(tmp_path / "w.safetensors"), "--data.name", "tree", "--data.root", str(tmp_path), *options]) == 0
    out = capsys.readouterr().out
    if image_size is not None:
        model = model_from_weights(tmp_path / "w.safetensors", image_size=image_size)
    data = load_data(DataOptions(name="tree", root=tmp_path), seed=0, train=False, preprocessing=model.preprocessing)
    images = torch.stack([data.val[i][0] for i in range(10)])
    assert images.shape[-2:] == (image_size or 16, image_size or 16)
    loss = torch.nn.functional.cross_entropy(model.eval()(images), torch.tensor([0] * 5 + [1] * 5)).item()
    assert f"loss   {loss:.4f}" in out
    size = "24×24 px (trained at 16×16)" if image_size else "16×16 px"
    assert f"tree: 10 validation images of {size}, the central 0.5 of the frame, 2 classes" in out


def test_an_image_size_that_the_model_does_not_take(tmp_path, capsys):
    """A CNN takes any, a ViT what its patch divides."""
    for label in ("a", "b"):
        (tmp_path / "tree" / "val" / label).mkdir(parents=True)
        Image.new("RGB", (30, 30)).save(tmp_path / "tree" / "val" / label / "0.png")
    for name in ("cnn_mini", "vit_mini"):
        save_weights(create_model(name, num_classes=2, image_size=16, depth=1, dim=16), tmp_path / f"{name}.safetensors")
    options = ["--data.name", "tree", "--data.root", str(tmp_path), "--data.image-size", "22", "--device", "cpu"]
    assert main([str(tmp_path / "cnn_mini.safetensors"), *options]) == 0
    assert "2 validation images of 22×22 px (trained at 16×16)" in capsys.readouterr().out
    said = fails([tmp_path / "vit_mini.safetensors", *options], capsys)
    assert "an image of 22×22 pixels cannot be cut into patches of 4×4" in said


def test_the_report_by_hand():
    counts = ClassificationMetrics(2000, torch.tensor(1000.0), torch.tensor(1500), torch.tensor(1999))
    assert format_metrics(counts, 8).splitlines() == [
        "top-1  75.00 %  (1,500 of 2,000)", "top-5  99.95 %  (1,999 of 2,000)", "loss   0.5000",
    ]  # fmt: skip
    assert "top-5" not in format_metrics(counts, 5)


def test_mistakes(run, tmp_path, capsys):
    folder, result = run
    weights = folder / "best.safetensors"
    assert "RUN_OR_WEIGHTS comes before the options" in fails(["--data.root", "x"], capsys)
    assert "expected a run folder or a weights file" in fails([tmp_path / "nowhere"], capsys)
    assert "contains no best.safetensors" in fails([tmp_path], capsys)
    assert "no option --data.nam. Did you mean --data.name" in fails([folder, "--data.nam", "rings"], capsys)
    assert "has 8 classes (N, NE, E, …), but rings has 4" in fails([folder, "--data.name", "rings"], capsys)
    assert "no dataset 'compas'" in fails([folder, "--data.name", "compas"], capsys)
    assert "--device is 'abacus'; expected auto, cpu, cuda" in fails([folder, "--device", "abacus"], capsys)
    assert "safetensors" in fails([folder / "last.pt"], capsys)
    assert "data.image_size is 26; expected a multiple of 4" in fails([folder, "--data.image-size", "26"], capsys)
    assert "--worst-classes is -1; expected an integer from 0" in fails([folder, "--worst-classes", "-1"], capsys)
    assert "--batch-size is 0; expected an integer from 1" in fails([folder, "--batch-size", "0"], capsys)
    assert "expected the name of a .csv file" in fails([folder, "--per-class", weights], capsys)
    assert "in an existing folder" in fails([folder, "--per-class", tmp_path / "no" / "t.csv"], capsys)

    # Other weights than the best.
    refusal = f"has {best(result)[2]} weights only. Use a run folder for --weights last"
    assert refusal in fails([weights, "--weights", "last"], capsys)
    shutil.copy(weights, tmp_path / "best.safetensors")
    assert "has no training state" in fails([tmp_path, "--weights", "last"], capsys)
    state = torch.load(folder / "last.pt", weights_only=True)
    torch.save(state | {"ema": None}, tmp_path / "last.pt")
    assert "has no EMA weights, since its recipe has no ema. Use --weights last" in fails([tmp_path, "--weights", "ema"], capsys)
    del state["model"]["norm.weight"]
    torch.save(state, tmp_path / "last.pt")
    assert "does not fit spvit_mini: it lacks norm.weight" in fails([tmp_path, "--weights", "last"], capsys)

    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(weights.read_bytes()[:-100])
    assert "cut.safetensors" in fails([cut], capsys)

    bare = tmp_path / "bare.safetensors"
    save_file(load_file(weights), bare)
    assert "add --data.name NAME" in fails([bare], capsys)
    assert "does not name its model" in fails([bare, "--data.name", "compass6"], capsys)


class Dangerous:
    def __reduce__(self):
        return (open, ("ran", "w"))


def test_a_pickle_with_code_is_not_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.safetensors").write_bytes(pickle.dumps(Dangerous()))
    assert "w.safetensors" in fails([tmp_path / "w.safetensors"], capsys)
    assert not (tmp_path / "ran").exists()


def test_help(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    out = capsys.readouterr().out
    assert not end.value.code and "runs/spvit_mini_compass" in out and "--worst-classes INT" in out
