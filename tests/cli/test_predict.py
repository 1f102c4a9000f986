"""`python -m spvit_mini predict`: right answers in the table, whole pictures, and one clear line for every mistake."""

import csv
import dataclasses
import json
import os
import shlex
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from spvit_mini import create_model, save_weights, transforms_for
from spvit_mini.cli.predict import choose_priors, main
from spvit_mini.cli.program import run_program
from spvit_mini.recipes import get_recipe
from spvit_mini.training import train
from spvit_mini.weights import load_weights
from spvit_mini.zoo import model_from_weights

CLASSES = ["iris", "lily of the valley", "rose"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    built = create_model(
        "convit_mini", num_classes=3, image_size=(16, 24), depth=2, dim=16, heads=2, spatial_layers=1, pool="class",
        class_token_block=1,
    )  # fmt: skip
    built.preprocessing = dataclasses.replace(built.preprocessing, mean=(0.1, 0.2, 0.3), std=(0.05, 0.1, 0.2), crop=0.5)
    return built.eval()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """Weights and photographs: good ones of several kinds, and bad ones."""
    folder = tmp_path_factory.mktemp("predict")
    save_weights(model, folder / "w.safetensors", classes=json.dumps(CLASSES))
    random = np.random.RandomState(0)
    pixels = Image.fromarray(random.randint(0, 255, (5, 8, 3), dtype=np.uint8)).resize((64, 40))
    pixels.save(folder / "rgb.png")
    pixels.convert("L").save(folder / "grey.jpg")
    pixels.convert("CMYK").save(folder / "print.JPEG")
    (folder / "cut.png").write_bytes((folder / "rgb.png").read_bytes()[:200])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("no image\nat all")
    return folder


def run(arguments, capsys):
    """Run the program as from the command line: exit status, lines of stdout, lines of stderr."""
    try:
        run_program(lambda: main([str(a) for a in arguments]))
        status = 0
    except SystemExit as end:
        status = end.code
    out, err = capsys.readouterr()
    return status, out.splitlines(), err.splitlines()


def test_the_table_holds_the_models_probabilities(model, folder, capsys):
    images = [folder / name for name in ("rgb.png", "grey.jpg", "print.JPEG")]
    status, out, err = run([folder / "w.safetensors", *images, "--device", "cpu"], capsys)
    assert (status, err) == (0, []) and out[0].split() == ["image", "rank", "class", "probability"]
    expected = []
    for path in images:
        with Image.open(path) as image, torch.no_grad():
            probabilities = model(transforms_for(model)(image)[None])[0].softmax(-1)
        for rank, label in enumerate(probabilities.argsort(descending=True).tolist(), start=1):
            expected.append([str(path), str(rank), CLASSES[label], f"{100 * probabilities[label]:.2f}", "%"])
    assert [shlex.split(line) for line in out[1:]] == expected  # names with spaces stand in quotation marks
    assert len({len(line) for line in out[1:]}) == 1  # columns stand under each other


@pytest.mark.parametrize(("top", "rows"), [(1, 1), (10, 3)])
def test_top(folder, capsys, top, rows):
    status, out, _ = run([folder / "w.safetensors", "--top", top, folder / "rgb.png"], capsys)
    assert status == 0 and len(out) == 1 + rows


def test_another_resolution(model, folder, capsys):
    status, out, _ = run([folder / "w.safetensors", "--image-size", 32, folder / "rgb.png"], capsys)
    larger = model_from_weights(folder / "w.safetensors", image_size=32).eval()
    with Image.open(folder / "rgb.png") as image, torch.no_grad():
        pixels = transforms_for(larger)(image)[None]
        probabilities = model(pixels)[0].softmax(-1)
    assert status == 0 and pixels.shape == (1, 3, 32, 32)
    assert [line.split()[-2] for line in out[1:]] == [f"{100 * p:.2f}" for p in probabilities.sort(descending=True).values]
    status, out, err = run([folder / "w.safetensors", "--image-size", 30, folder / "rgb.png"], capsys)
    assert status == 2 and out == [] and "30×30 pixels cannot be cut into patches" in err[0]


def test_without_names_classes_have_numbers(folder, tmp_path, capsys):
    state, metadata = load_weights(folder / "w.safetensors")
    del metadata["classes"]
    save_file(state, tmp_path / "nameless.safetensors", metadata=metadata)
    _, out, _ = run([tmp_path / "nameless.safetensors", folder / "rgb.png"], capsys)
    assert sorted(shlex.split(line)[2] for line in out[1:]) == ["class 0", "class 1", "class 2"]


def test_bad_images_cost_a_line_each_and_nothing_else(folder, capsys):
    (folder / "link.jpg").symlink_to("nothing.jpg")
    bad = [folder / "cut.png", folder / "empty.png", folder / "text.jpg", folder / "nowhere.jpg", folder / "link.jpg"]
    arguments = [folder / "w.safetensors", bad[0], folder / "rgb.png", *bad[1:], folder / "grey.jpg", "--top", 1]
    status, out, err = run(arguments, capsys)
    assert status == 2
    assert [line.split()[0] for line in out[1:]] == [str(folder / "rgb.png"), str(folder / "grey.jpg")]
    assert len(err) == 5
    said = ["is truncated or damaged", "is empty", "is no image", "No such file", "is a link to a file that does not exist"]
    for line, path, words in zip(err, bad, said, strict=True):
        assert line.startswith("error: ") and str(path) in line and words in line
    (folder / "link.jpg").unlink()


def test_folders_are_searched_and_the_csv_has_the_table(model, folder, tmp_path, capsys):
    """Images of one name in two folders, one of them named twice; the probabilities are those of the model."""
    photos = tmp_path / "my photos"
    for name in ("iris/1.png", "rose/deep/1.png", "rose/notes.txt", "rose/.hidden.png"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "rgb.png", photos / name)
    table = tmp_path / "table.csv"
    arguments = [folder / "w.safetensors", photos, photos / "iris" / ".." / "iris" / "1.png", "--csv", table, "--top", 2]
    status, out, err = run(arguments, capsys)
    images = [str(photos / name) for name in ("iris/1.png", "rose/deep/1.png")]
    assert (status, err, out[-1]) == (0, [], f"table: {table}")
    assert [shlex.split(line)[0] for line in out[1:-1]] == [images[0], images[0], images[1], images[1]]
    with Image.open(folder / "rgb.png") as image, torch.no_grad():
        best = model(transforms_for(model)(image)[None])[0].softmax(-1).sort(descending=True)
    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["rank"]) for row in rows] == [(image, rank) for image in images for rank in "12"]
    assert [row["class"] for row in rows] == 2 * [CLASSES[label] for label in best.indices[:2].tolist()]
    torch.testing.assert_close(torch.tensor([float(row["probability"]) for row in rows]), best.values[:2].repeat(2))


def test_logits_that_are_not_finite_are_said_to_be(folder, tmp_path, capsys):
    state, metadata = load_weights(folder / "w.safetensors")
    state["head.bias"][1] = torch.inf
    save_file(state, tmp_path / "diverged.safetensors", metadata=metadata)
    status, out, err = run([tmp_path / "diverged.safetensors", folder / "rgb.png", "--csv", tmp_path / "table.csv"], capsys)
    assert (status, len(err), len(out)) == (2, 1, 2) and "rgb.png are not finite; use weights from before" in err[0]
    assert (tmp_path / "table.csv").read_text(encoding="utf-8").split() == ["image,rank,class,probability"]


@pytest.mark.slow
def test_figures_are_whole_and_named_by_the_paths_of_their_images(folder, tmp_path, capsys, monkeypatch):
    """Images of one name in several folders and formats, below the current folder and elsewhere; also in a later call."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    images = ["a.png", "b/a.png", "b/a.gif", "../$x_$ 雏菊/a.png"]
    for name in images:
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        Image.open(folder / "rgb.png").save(name)
    before, open_figures = [Path(image).read_bytes() for image in images], plt.get_fignums()
    options = ["--explain", "--out", "figures", "--top", 1]
    status, out, err = run([folder / "w.safetensors", *images[1:], *options], capsys)
    outside = (tmp_path / "$x_$ 雏菊").relative_to(tmp_path.anchor)
    names = ["figures/b/a.png.png", "figures/b/a.gif.png", f"figures/{outside}/a.png.png"]
    assert (status, err) == (0, []) and out[-3:] == [f"explained: {name}" for name in names]
    first = Path(names[0]).read_bytes()
    assert run([folder / "w.safetensors", images[0], *options], capsys)[1][-1] == "explained: figures/a.png.png"
    for name in [*names, "figures/a.png.png"]:
        drawn = plt.imread(name)
        assert min(drawn.shape[:2]) > 400 and drawn[..., :3].std() > 0.05
    assert Path(names[0]).read_bytes() == first and [Path(image).read_bytes() for image in images] == before
    assert plt.get_fignums() == open_figures  # none is left open


def test_no_figure_replaces_an_image(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "a.png.png"):
        shutil.copy(folder / "rgb.png", name)
    status, out, err = run([folder / "w.safetensors", ".", "--explain", "--out", "."], capsys)
    assert (status, out, len(err)) == (2, [], 1)
    assert f"a figure would replace the image {tmp_path / 'a.png.png'}; use another folder with --out" in err[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_mini", "spvit_mini", "anchored_mini", "window_mini", "rpb_mini"])
def test_every_kind_of_prior_is_drawn_or_left_out(name, folder, tmp_path, capsys):
    options = {"attention_options": {"size": 2}, "odd_block_options": {}} if name == "window_mini" else {}
    save_weights(create_model(name, image_size=16, depth=1, dim=16, heads=2, **options), tmp_path / "w.safetensors")
    arguments = [tmp_path / "w.safetensors", folder / "rgb.png", "--explain", "--out", tmp_path / "new" / "folder"]
    assert run(arguments, capsys)[0] == 0
    height, width = plt.imread(next((tmp_path / "new" / "folder").rglob("rgb.png.png"))).shape[:2]
    assert (height < width / 2) == (name in ("vit_mini", "window_mini"))  # without a row of priors


def test_the_most_choose_priors_in_the_order_of_the_layers():
    model = create_model("spvit_mini", depth=3, dim=16, heads=2, image_size=16)
    with torch.no_grad():
        for layer, head, size in ((0, 1, 0.3), (2, 0, 0.5), (1, 1, 0.4)):
            model.blocks[layer].attention.spatial.w2[head] = size
    assert [prior.title for prior in choose_priors(model, 3)] == ["layer 0, head 1", "layer 1, head 1", "layer 2, head 0"]
    assert all(prior.multiplies for prior in choose_priors(model))


def test_what_position_alone_would_attend_to_with_its_gate(model):
    first, second = choose_priors(model)
    assert (first.title, second.title) == ("layer 0, head 0, gate 0.73", "layer 0, head 1, gate 0.73")
    table = model.blocks[0].attention.spatial.table((4, 6)).detach()[0]
    torch.testing.assert_close(first.table, (table.exp() / table.exp().sum()))
    shared = create_model("rpb_mini", image_size=16, depth=1, sharing="block")
    assert [prior.title for prior in choose_priors(shared)] == ["layer 0, all heads"]


@pytest.mark.slow
def test_a_run_folder_has_the_names_of_its_classes(tmp_path, folder, capsys):
    recipe = get_recipe("spvit_mini_compass6").override(
        {"model.depth": 1, "model.dim": 16, "data.train_images": 100, "data.val_images": 20, "batch_size": 50,
         "duration": "2 steps", "device": "cpu"}
    )  # fmt: skip
    train(recipe, run_dir=tmp_path / "run", progress=False)
    status, out, _ = run([tmp_path / "run", folder / "rgb.png", "--top", 8], capsys)
    assert status == 0 and {line.split()[2] for line in out[1:]} == {"N", "NE", "E", "SE", "S", "SW", "W", "NW"}


def test_mistakes(folder, tmp_path, capsys):
    weights, image = folder / "w.safetensors", folder / "rgb.png"
    (tmp_path / "file").write_text("")
    (tmp_path / "no images").mkdir()
    save_file(load_file(weights), tmp_path / "bare.safetensors")
    save_weights(create_model("vit_mini", depth=1), tmp_path / "short.safetensors", classes='["a", "b"]')
    for arguments, words in (
        ([image, image], "is an image; expected RUN_OR_WEIGHTS before the images"),
        (["--top", "3"], "RUN_OR_WEIGHTS comes before the options"),
        ([weights], "no image is named"),
        ([weights, "--explain"], "no image is named"),
        ([weights, image, "--top", "0"], "--top is 0"),
        ([weights, image, "--top", "many"], "--top"),
        ([weights, image, "--csv", tmp_path / "table.txt"], "expected the name of a .csv file in an existing folder"),
        ([weights, image, "--csv", tmp_path / "no" / "table.csv"], "expected the name of a .csv file in an existing folder"),
        ([weights, tmp_path / "no images"], "no images holds no images; expected files such as .jpg, .jpeg, .png, .webp"),
        ([weights, image, "--tops", "1"], "no option --tops. Did you mean --top"),
        ([weights, image, "--device", "abacus"], "expected auto, cpu, cuda, cuda:1 or mps"),
        ([tmp_path / "nowhere", image], "expected a run folder or a weights file"),
        ([tmp_path, image], "contains no best.safetensors"),
        ([tmp_path / "bare.safetensors", image], "does not name its model"),
        ([tmp_path / "short.safetensors", image], "names 2 classes, but its model has 10"),
        ([weights, image, "--explain", "--out", tmp_path / "file"], "cannot write figures into"),
    ):
        status, out, err = run(arguments, capsys)
        assert status == 2 and out == [] and len(err) == 1 and err[0].startswith("error: ") and words in err[0], arguments


def test_help(capsys):
    for arguments in (["--help"], ["run", "--help"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        out = capsys.readouterr().out
        assert not end.value.code and ("a.jpg --explain" in out) == (len(arguments) == 1)
        assert all(option in out for option in ("--explain", "--out", "--top", "--device", "--import", "--seed"))


def test_a_cnn_predicts_and_says_that_it_has_nothing_to_explain_with(folder, tmp_path, capsys):
    save_weights(create_model("cnn_mini", image_size=30, depth=2, dim=16), tmp_path / "w.safetensors")
    status, out, err = run([tmp_path / "w.safetensors", folder / "rgb.png", "--top", 2], capsys)
    assert (status, len(out), err) == (0, 3, [])
    arguments = [tmp_path / "w.safetensors", folder / "rgb.png", "--explain", "--out", tmp_path / "pictures"]
    status, out, err = run(arguments, capsys)
    assert (status, out, len(err)) == (2, [], 1) and "cnn_mini is a CNN: it has no attention maps" in err[0]
    assert not (tmp_path / "pictures").exists()
