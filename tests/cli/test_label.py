"""`python -m spvit_mini label`: maps that are the teacher's own words, the same after any interruption, and clear errors."""

import json
import os
import signal

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms.v2 import functional

from spvit_mini import create_model, save_weights
from spvit_mini.cli.label import best_classes, main
from spvit_mini.cli.program import run_program
from spvit_mini.cli.teachers import load_teacher
from spvit_mini.data import token_labels
from spvit_mini.data.image_folders import scan_class_folders
from spvit_mini.data.token_labels import TokenLabels, TokenLabelWriter

CLASSES = ["iris", "lily", "rose"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def noise(path, seed, size=(24, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, (*size, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def tree(tmp_path):
    """Make a tree of 7 training images, of several shapes; one name has dots and lies deeper."""
    for seed, name in enumerate(("iris/1", "iris/2", "iris/in/a.b.c", "lily/1", "lily/2", "rose/1", "rose/2")):
        noise(tmp_path / "flowers" / "train" / f"{name}.png", seed, size=(24 + seed, 30 - 2 * seed))
    for name in CLASSES:
        noise(tmp_path / "flowers" / "val" / name / "1.png", 9)
    return tmp_path


@pytest.fixture
def weights(tmp_path):
    """Make the weights of a teacher that averages its patches."""

    def make(name="vit_mini", classes=CLASSES, **options):
        torch.manual_seed(1)
        options = {"image_size": (16, 24), "depth": 2, "dim": 16, "heads": 2} | options
        model = create_model(name, num_classes=len(classes), **options).eval()
        save_weights(model, tmp_path / f"{name}.safetensors", classes=json.dumps(classes))
        return tmp_path / f"{name}.safetensors", model

    return make


def run(tree, capsys, *arguments, out="labels", name="flowers"):
    """Run the program as from the command line: exit status, stdout, stderr."""
    where = ["--data.root", tree, "--data.name", name, "--device", "cpu", "--batch-size", 3]
    try:
        run_program(lambda: main([str(a) for a in [*arguments, *where, *(["--out", tree / out] if out else [])]]))
        status = 0
    except SystemExit as end:
        status = end.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def refused(tree, capsys, *arguments, **options):
    """Run the program, which must refuse in one line, and give that line."""
    status, _, err = run(tree, capsys, *arguments, **options)
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    return err


def maps(tree, out="labels", part="train", classes=None):
    listing = scan_class_folders(tree / "flowers" / part, on_corrupt_image="error")
    return listing, TokenLabels(tree / out, listing)


def squeezed(listing, index, size, preprocessing):
    image = functional.pil_to_tensor(Image.open(listing.path(index)).convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC))
    mean, std = (torch.tensor(v)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
    return (image / 255 - mean) / std


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("folders", ["érable", "e\u0301rable"])
@pytest.mark.parametrize("names", ["érable", "e\u0301rable"])
def test_classes_are_found_by_name_in_any_form_and_behind_a_byte_order_mark(tree, weights, capsys, mark, folders, names):
    """The teacher has the classes in another order; the first line of a list by a Windows editor has the mark."""
    for part in ("train", "val"):
        (tree / "flowers" / part / "rose").rename(tree / "flowers" / part / folders)
    path, model = weights(classes=["1", "2", "3"])
    (tree / "names.txt").write_text(f"{mark}{names}\r\niris\r\n\r\nlily\r\n", encoding="utf-8", newline="")
    status, out, err = run(tree, capsys, "--model", path, "--class-names", tree / "names.txt")
    assert (status, err) == (0, "")
    listing, read = maps(tree)
    assert read.info.classes == listing.classes == ["iris", "lily", "érable"]
    with torch.no_grad():
        whole = model(squeezed(listing, 0, (16, 24), model.preprocessing)[None])[0]
    scores, classes = read[0]
    logits = torch.zeros(4, 6, 3).scatter_(-1, classes.long(), scores.float())
    torch.testing.assert_close(logits.mean((0, 1)), whole[[1, 2, 0]], atol=2e-3, rtol=0)


# --- what a teacher says


def test_patches_that_are_averaged_say_what_they_add_to_the_answer(tree, weights, capsys):
    path, model = weights()
    status, out, err = run(tree, capsys, "--model", path)
    assert (status, err) == (0, "") and "4×6 cells, 3 of 3 classes" in out and "new     7 maps" in out
    listing, read = maps(tree)
    assert (read.info.grid, read.info.top, read.info.classes) == ((4, 6), 3, CLASSES)
    right = 0
    for index in range(7):
        scores, classes = read[index]
        logits = torch.zeros(4, 6, 3).scatter_(-1, classes.long(), scores.float())
        with torch.no_grad():
            whole = model(squeezed(listing, index, (16, 24), model.preprocessing)[None])[0]
        torch.testing.assert_close(logits.mean((0, 1)), whole, atol=2e-3, rtol=0)  # float16 rounds
        assert (scores.diff(dim=-1) <= 0).all() and logits.std((0, 1)).min() > 0.01
        right += int(whole.argmax()) == listing.labels[index]
    assert f"the folder's for {100 * right / 7:.1f} % of them" in out


def test_a_dense_head_is_asked_itself(tree, weights, capsys):
    path, model = weights("lvvit_s", patch=8, image_size=16)
    assert run(tree, capsys, "--model", path, "--image-size", 32, "--split", "val", "--top", 2)[0] == 0
    listing, read = maps(tree, part="val")
    with torch.no_grad():
        dense = model(squeezed(listing, 1, (32, 32), model.preprocessing)[None], dense=True)[1].view(4, 4, 3)
    scores, classes = read[1]
    assert torch.equal(classes.long(), dense.topk(2).indices)
    # Of three classes one is skipped; so the score of another is its logit above that one's.
    expected = dense.topk(3).values
    torch.testing.assert_close(scores.float(), expected[..., :2] - expected[..., 2:], atol=2e-3, rtol=1e-3)


def test_a_class_token_s_head_is_not_trusted_silently(tree, weights, capsys):
    path, model = weights("deit_tiny", patch=8, image_size=16)
    status, _, err = run(tree, capsys, "--model", path)
    assert status == 0 and err.startswith("note    deit_tiny reads a class token, and its head was never trained")
    listing, read = maps(tree)
    with torch.no_grad():
        tokens = model.forward_features(squeezed(listing, 4, (16, 16), model.preprocessing)[None])
    scores, classes = read[4]
    logits = torch.zeros(2, 2, 3).scatter_(-1, classes.long(), scores.float())
    torch.testing.assert_close(logits, model.head(tokens[0, 1:]).view(2, 2, 3).detach(), atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", ["regnet_x_400mf", "swin_t", "convnext_tiny"])
@pytest.mark.slow
def test_cells_of_torchvision_s_cnns_add_up_to_their_answer(tree, tmp_path, name):
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, num_classes=3).eval()
    torch.save({"model": model.state_dict()}, tmp_path / "weights.pth")
    teacher = load_teacher(f"torchvision:{name}", weights=tmp_path / "weights.pth", image_size=96)
    assert teacher.preprocessing.image_size == (96, 96) and teacher.preprocessing.mean == (0.485, 0.456, 0.406)
    images, features = torch.randn(2, 3, 96, 64), []
    model.avgpool.register_forward_pre_hook(lambda _, given: features.append(given[0]))
    with torch.no_grad():
        cells, whole = teacher.cells(images), model(images)
    assert cells.shape == (2, 3, 2, 3)
    if name != "convnext_tiny":
        linear = getattr(model, "fc", None) or model.head
        torch.testing.assert_close(cells[1, 2, 0], linear(features[0][1, :, 2, 0]), atol=1e-4, rtol=1e-4)
    if name == "convnext_tiny":  # which has a norm in between: only a cell alone is exact
        images = torch.randn(2, 3, 32, 32)
        cells, whole = teacher.cells(images), model(images)
    torch.testing.assert_close(cells.mean((1, 2)), whole, atol=1e-4, rtol=1e-4)
    assert cells.shape[1] == 1 or cells.std((1, 2)).min() > 1e-3


@pytest.mark.parametrize("top", [1, 3, 9])
def test_scores_keep_the_probabilities_whatever_constant_a_teacher_adds(top):
    logits = 3 * torch.randn(4, 5, 9) - 20
    scores, classes = best_classes(logits, top)
    dense = torch.zeros_like(logits).scatter_(-1, classes, scores)
    listed = torch.zeros_like(logits, dtype=torch.bool).scatter_(-1, classes, True)
    said, meant = dense.softmax(-1), logits.softmax(-1)
    torch.testing.assert_close(said[listed], meant[listed])
    if top < 9:
        left = (1 - (meant * listed).sum(-1, keepdim=True)) / (9 - top)
        torch.testing.assert_close(said[~listed], left.expand_as(said)[~listed])


def test_classes_are_found_by_name(tree, weights, capsys):
    """A teacher that knows more, in another order: what it says of the data's classes is kept, and nothing else."""
    path, model = weights(classes=["rose", "tulip", "lily", "iris"])
    assert run(tree, capsys, "--model", path)[0] == 0
    listing, read = maps(tree)
    with torch.no_grad():
        whole = model(squeezed(listing, 0, (16, 24), model.preprocessing)[None])[0][[3, 2, 0]]
    scores, classes = read[0]
    logits = torch.zeros(4, 6, 3).scatter_(-1, classes.long(), scores.float())
    torch.testing.assert_close(logits.mean((0, 1)), whole, atol=2e-3, rtol=0)


# --- stopped, and gone on


def killed(work, monkeypatch, *, call, place):
    """Run `work` in a process of its own that is killed at a call of a function; tell whether it was."""
    child = os.fork()
    if child == 0:
        calls, original = [], getattr(*place)

        def die(*arguments, **options):
            calls.append(None)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        monkeypatch.setattr(*place, die)
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(
    "place",
    [(TokenLabelWriter, "write"), (TokenLabelWriter, "commit"), (token_labels.os, "fsync"), (token_labels.os, "replace")],
    ids=["write", "commit", "fsync", "replace"],
)
def test_killed_anywhere_it_ends_the_same(tree, weights, capsys, monkeypatch, place):
    path, _ = weights()
    (tree / "flowers" / "train" / "lily" / "1.png").write_bytes(b"no image")
    assert run(tree, capsys, "--model", path, out="whole")[0] == 0
    arguments = ["--model", path, "--data.root", tree, "--data.name", "flowers", "--device", "cpu", "--batch-size", 3]
    arguments = [str(a) for a in [*arguments, "--out", tree / "labels"]]
    kills = [killed(lambda: main(arguments), monkeypatch, call=call, place=place) for call in (1, 1, 2, 1, 2, 2, 2)]
    assert kills[0]
    status, out, err = run(tree, capsys, "--model", path)
    assert status == 0 and f"skipped: {tree / 'flowers' / 'train' / 'lily' / '1.png'} is no image\n" == err
    for file in ("labels.json", "images.npy", "status.npy", "maps.npy"):
        assert (tree / "labels" / file).read_bytes() == (tree / "whole" / file).read_bytes()
    assert sorted(p.name for p in (tree / "labels").iterdir()) == sorted(p.name for p in (tree / "whole").iterdir())


def test_what_is_done_is_not_done_again(tree, weights, capsys):
    path, _ = weights()
    run(tree, capsys, "--model", path)
    times = {file.name: file.stat().st_mtime_ns for file in (tree / "labels").iterdir()}
    status, out, _ = run(tree, capsys, "--model", path)
    assert status == 0 and "7 of them labelled before" in out and "new " not in out
    assert times == {file.name: file.stat().st_mtime_ns for file in (tree / "labels").iterdir()}


def test_bad_images_are_named_left_out_and_tried_again(tree, weights, capsys):
    path, _ = weights()
    bad = [tree / "flowers" / "train" / name for name in ("iris/2.png", "rose/1.png")]
    good = [file.read_bytes() for file in bad]
    bad[0].write_bytes(good[0][:100])
    bad[1].write_bytes(b"")
    status, out, err = run(tree, capsys, "--model", path, "--data.workers", 2)
    assert status == 0 and err.count("skipped") == 2
    assert f"skipped: {bad[0]} is truncated or damaged" in err and f"skipped: {bad[1]} is empty" in err
    assert "new     5 maps" in out and "lacks   2 images, named above" in out
    listing = scan_class_folders(tree / "flowers" / "train", on_corrupt_image="skip")
    assert [listing.path(index) for index in TokenLabels(tree / "labels", listing).unreadable] == list(map(str, bad))
    for path_of_image, content in zip(bad, good, strict=True):
        path_of_image.write_bytes(content)
    status, out, err = run(tree, capsys, "--model", path)
    assert status == 0 and "new     2 maps" in out and "lacks" not in out and err == ""
    assert len(TokenLabels(tree / "labels", listing).unreadable) == 0


# --- the original authors' archives


def archive(tree, count, *, top=5, grid=(3, 3), seed=0):
    """Write an archive as their generator does, and give what is in it: {path of the image: (scores, classes)}."""
    random, content = torch.Generator().manual_seed(seed), {}
    for image in sorted((tree / "flowers" / "train").rglob("*.png")):
        logits = torch.randn(*grid, count, generator=random) * 5
        value, indices = logits.topk(top)
        folder = tree / "archive" / image.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        stacked = torch.stack([value.half(), indices.half()]).permute(0, 3, 1, 2)
        torch.save(stacked, folder / f"{image.name.split('.')[0]}.pt")
        content[str(image)] = value.half(), indices
    return content


def test_an_archive_is_taken_over_as_it_is(tree, capsys):
    content = archive(tree, 3, top=2)
    status, out, err = run(tree, capsys, "--archive", tree / "archive")
    assert (status, err) == (0, "") and "by the archive archive: 3×3 cells, 2 of 3 classes" in out
    listing, read = maps(tree)
    for index in range(7):
        scores, classes = content[listing.path(index)]
        assert torch.equal(read[index][0], scores) and torch.equal(read[index][1].long(), classes)


def test_of_an_archive_of_more_classes_the_data_s_are_kept(tree, capsys):
    content = archive(tree, 6, top=4)
    assert "has class 5, but the data have 3 classes; name the archive's" in refused(tree, capsys, "--archive", tree / "archive")
    names = ["rose", "oak", "elm", "iris", "fir", "lily"]
    (tree / "names.txt").write_text("\n".join(names) + "\n")
    assert run(tree, capsys, "--archive", tree / "archive", "--class-names", tree / "names.txt", out="other")[0] == 0
    listing, read = maps(tree, out="other")
    for index in range(7):
        scores, classes = (part.float() for part in read[index])
        theirs = torch.zeros(3, 3, 6).scatter_add_(-1, content[listing.path(index)][1], content[listing.path(index)][0].float())
        own = torch.zeros(3, 3, 3).scatter_add_(-1, classes.long(), scores)
        assert torch.equal(own, theirs[..., [3, 5, 0]])


def test_maps_that_are_missing_or_damaged_are_named(tree, capsys):
    archive(tree, 3, top=2)
    folder = tree / "archive"
    (folder / "iris" / "2.pt").unlink()
    (folder / "lily" / "1.pt").write_bytes((folder / "lily" / "1.pt").read_bytes()[:300])
    torch.save({"a": 1}, folder / "lily" / "2.pt")
    torch.save(os.system, folder / "rose" / "1.pt")  # code
    status, out, err = run(tree, capsys, "--archive", folder)
    assert status == 0 and err.count("skipped") == err.count("\n") == 4 and "new     3 maps" in out
    for name, words in (("iris/2", "has no map"), ("lily/1", "damaged"), ("lily/2", "does not hold"), ("rose/1", "damaged")):
        assert any(f"{name}.png" in line and words in line for line in err.splitlines()), (name, err)
    torch.save(torch.zeros(2, 2, 4, 3), folder / "iris" / "2.pt")
    line = refused(tree, capsys, "--archive", folder)
    assert "2.pt has (rows, columns, top) = (4, 3, 2); expected (3, 3, 2)" in line


# --- what is refused


@pytest.mark.slow
def test_mistakes(tree, weights, capsys):
    path, _ = weights()
    names = tree / "names.txt"
    names.write_text("a\nb\n")
    torch.save({"fc.weight": torch.zeros(3, 4), "fc.bias": torch.zeros(3)}, tree / "short.pth")

    def said(*arguments, **options):
        return refused(tree, capsys, *arguments, **options)

    assert "expected either --model with a teacher or --archive" in said()
    assert "expected either --model with a teacher or --archive" in said("--model", path, "--archive", tree)
    assert "--out is missing; expected a folder" in said("--model", path, out="")
    assert "--top is 0; expected an integer from 1" in said("--model", path, "--top", 0)
    assert "--image-size is 0; expected an integer from 1" in said("--model", path, "--image-size", 0)
    assert "data.workers is -1; expected an integer from 0" in said("--model", path, "--data.workers", -1)
    assert "no dataset 'flower'" in said("--model", path, name="flower") and not (tree / "labels").exists()
    assert "expected a run folder or a weights file" in said("--model", tree / "nowhere")
    assert "there is no file" in said("--model", "torchvision:resnet18", "--weights", tree / "nowhere.pth")
    assert "torchvision:resnet18 needs --weights FILE" in said("--model", "torchvision:resnet18")
    assert "no classifier 'resnet19'. Did you mean resnet18" in said("--model", "torchvision:resnet19", "--weights", path)
    assert "short.pth does not fit torchvision:resnet18: it lacks conv1" in said(
        "--model", "torchvision:resnet18", "--weights", tree / "short.pth"
    )
    assert "so that it gives no logits of a cell; use a ResNet" in said(
        "--model", "torchvision:mobilenet_v2", "--weights", tree / "short.pth"
    )
    model = torchvision.models.get_model("swin_t", num_classes=3)
    torch.save(model.state_dict(), tree / "swin.pth")
    assert "fails at 2×2 px (" in said("--model", "torchvision:swin_t", "--weights", tree / "swin.pth", "--image-size", 2)
    assert "--weights is for torchvision:NAME" in said("--model", path, "--weights", path)
    assert "has 3 classes, but --class-names has 2 names" in said("--model", path, "--class-names", names)
    assert "cannot read the class names" in said("--model", path, "--class-names", tree)
    other = weights(classes=["iris", "lilly", "rose"])[0]
    assert "lacks the class 'lily' of the dataset. Did you mean lilly?" in said("--model", other)
    assert "no folder" in said("--archive", tree / "nowhere")
    assert "has no map of any image; expected" in said("--archive", tree / "flowers")
    assert "Did you mean --image-size" in said("--model", path, "--image-sice", 3)


def test_labels_of_two_teachers_are_not_mixed(tree, weights, capsys):
    path, _ = weights()
    assert run(tree, capsys, "--model", path)[0] == 0
    before, first = (tree / "labels" / "maps.npy").read_bytes(), path.read_bytes()
    assert "holds labels of another kind (teacher: vit_mini" in refused(tree, capsys, "--model", path, "--image-size", 32)
    other = weights(depth=1)[0]
    assert "holds labels of another kind (teacher: vit_mini" in refused(tree, capsys, "--model", other)
    noise(tree / "flowers" / "train" / "rose" / "3.png", 3)
    path.write_bytes(first)
    assert "holds the labels of other images" in refused(tree, capsys, "--model", path)
    assert (tree / "labels" / "maps.npy").read_bytes() == before


def test_a_full_disk_is_one_line_and_what_was_done_stays(tree, weights, capsys, monkeypatch):
    path, _ = weights()
    original, calls = TokenLabelWriter.commit, []

    def full(self, **options):
        calls.append(None)
        if len(calls) == 2:
            monkeypatch.setattr(token_labels.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
        return original(self, **options)

    monkeypatch.setattr(TokenLabelWriter, "commit", full)
    assert "cannot write labels to" in (line := refused(tree, capsys, "--model", path)) and "No space left" in line
    monkeypatch.undo()
    status, out, _ = run(tree, capsys, "--model", path)
    assert status == 0 and "3 of them labelled before" in out and "new     4 maps" in out


def test_help_says_what_there_is(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0
    for words in ("--archive", "--class-names", "--data.workers", "torchvision:NAME", "--token-labels.folder OUT"):
        assert words in said
