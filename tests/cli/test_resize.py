"""`python -m spvit_mini resize`: the pixels of a small copy, what stays, what goes on, and one clear line for mistakes."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from spvit_mini.cli import resize
from spvit_mini.cli.program import run_program
from spvit_mini.cli.resize import main, scale_sides
from spvit_mini.data import DataOptions, load_data
from spvit_mini.data.images import read_image


def photograph(width: int, height: int, *, mode: str = "RGB") -> Image.Image:
    """Make something smooth with a different colour at each place."""
    y, x = np.mgrid[0:1:height * 1j, 0:1:width * 1j]
    pixels = 255 * np.stack([x, y, 0.5 + 0.4 * np.sin(9 * x) * np.cos(7 * y)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


@pytest.fixture
def tree(tmp_path):
    """An image tree with large and small images, in several modes and formats."""
    images = {
        "train/rose/wide.jpg": photograph(90, 60),
        "train/rose/deep/tall.JPEG": photograph(41, 123),
        "train/lily/grey.jpg": photograph(64, 64, mode="L"),
        "train/lily/ink.jpg": photograph(70, 50, mode="CMYK"),
        "train/lily/clear.png": photograph(60, 80, mode="RGBA"),
        "train/lily/palette.gif": photograph(50, 50, mode="P"),
        "val/rose/small.jpg": photograph(30, 20),
        "val/lily/just.bmp": photograph(32, 32),
    }
    for name, image in images.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "tree" / name, **({"quality": 95} if name.lower().endswith(("jpg", "jpeg")) else {}))
    return tmp_path / "tree"


def run(capsys, *arguments) -> tuple[str, str]:
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr()


def fails(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as end:
        run_program(lambda: main([str(argument) for argument in arguments]))
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    return line


def files(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_folders_names_and_shapes(tree, tmp_path, capsys):
    out, _ = run(capsys, tree, tmp_path / "copy", "--size", 32)
    sizes = {
        "train/rose/wide.jpg": (48, 32), "train/rose/deep/tall.JPEG": (32, 96), "train/lily/grey.jpg": (32, 32),
        "train/lily/ink.jpg": (45, 32), "train/lily/clear.png": (32, 43), "train/lily/palette.png": (32, 32),
        "val/rose/small.jpg": (30, 20), "val/lily/just.png": (32, 32),
    }  # fmt: skip
    assert files(tmp_path / "copy").keys() == {*sizes, "resized.json"}
    for name, size in sizes.items():
        with Image.open(tmp_path / "copy" / name) as image:
            assert (image.size, image.mode) == (size, "RGB"), name
            assert image.format == ("PNG" if name.endswith("png") else "JPEG")
    total = sum(len(content) for name, content in files(tmp_path / "copy").items() if name != "resized.json")
    expected = f"8 images of {total / 1e6:.1f} MB, 7 resized now, 1 copied unchanged, 0 there already"
    assert out == f"{tmp_path / 'copy'}: {expected}\n"
    assert (tmp_path / "copy/val/rose/small.jpg").read_bytes() == (tree / "val/rose/small.jpg").read_bytes()


def test_the_pixels_are_those_that_training_would_see(tree, tmp_path, capsys):
    """Against torch's own antialiased cubic interpolation of what `read_image` reads."""
    run(capsys, tree, tmp_path / "copy", "--size", 32, "--quality", 100)
    for name, most, mean in (("lily/clear.png", 1.0, 0.5), ("rose/wide.jpg", 6.0, 1.0), ("lily/ink.jpg", 6.0, 1.0)):
        name = f"train/{name}"
        read = torch.from_numpy(np.array(read_image(tree / name))).permute(2, 0, 1)[None].double()
        found = torch.from_numpy(np.array(Image.open(tmp_path / "copy" / name))).permute(2, 0, 1).double()
        expected = F.interpolate(read, size=found.shape[-2:], mode="bicubic", antialias=True)[0].clamp(0, 255)
        assert (found - expected).abs().max() <= most, name
        assert (found - expected).abs().mean() < mean, name


def test_classes_parts_and_labels_stay(tree, tmp_path, capsys):
    run(capsys, tree, tmp_path / "copy", "--size", 32)
    before, after = (load_data(DataOptions(name=name, root=tmp_path, image_size=16), seed=0) for name in ("tree", "copy"))
    assert before.classes == after.classes == ["lily", "rose"]
    for part in ("train", "val"):
        one, other = (getattr(data, part) for data in (before, after))
        assert [label for _, label in one] == [label for _, label in other]
        for (image, _), (copy, _) in zip(one, other, strict=True):
            assert (image - copy).abs().mean() < 0.1  # in standard deviations


def test_a_rotation_mark_turns_nothing_and_a_colour_profile_is_left_out(tmp_path, capsys):
    (tmp_path / "tree" / "train" / "a").mkdir(parents=True)
    path, exif = tmp_path / "tree" / "train" / "a" / "turned.jpg", Image.Exif()
    exif[0x0112] = 6
    photograph(80, 40).save(path, exif=exif, icc_profile=b"a profile", quality=95)
    run(capsys, tmp_path / "tree", tmp_path / "copy", "--size", 20)
    with Image.open(tmp_path / "copy" / "train" / "a" / "turned.jpg") as copy:
        assert copy.size == (40, 20) and 0x0112 not in copy.getexif() and "icc_profile" not in copy.info
        left, right = np.array(copy)[:, 2, 0].mean(), np.array(copy)[:, -3, 0].mean()
    assert left < 30 and right > 220  # red grows to the right, as in the file


def test_quality_decides_how_much_is_kept(tree, tmp_path, capsys):
    for quality in (20, 95):
        run(capsys, tree, tmp_path / f"{quality}", "--size", 32, "--quality", quality)
    coarse, fine = ((tmp_path / quality / "train/rose/wide.jpg") for quality in ("20", "95"))
    assert coarse.stat().st_size < 0.7 * fine.stat().st_size
    assert (tmp_path / "20/train/lily/clear.png").read_bytes() == (tmp_path / "95/train/lily/clear.png").read_bytes()


def test_the_same_command_goes_on_and_makes_anew_what_has_changed(tree, tmp_path, capsys):
    copy = tmp_path / "copy"
    run(capsys, tree, copy, "--size", 32)
    whole = files(copy)
    (copy / "train/rose/wide.jpg").unlink()
    (copy / "train/lily/ink.jpg.tmp").write_bytes(b"half of it")  # as a kill leaves it
    kept = copy / "train/lily/grey.jpg"
    kept.write_bytes(b"seen to be left")
    os.utime(kept, ns=(0, (tree / "train/lily/grey.jpg").stat().st_mtime_ns))
    photograph(64, 64).rotate(90).save(tree / "train/lily/clear.png")
    os.utime(tree / "train/lily/clear.png", (2e9, 2e9))
    out, _ = run(capsys, tree, copy, "--size", 32)
    assert "2 resized now, 0 copied unchanged, 6 there already" in out
    again = files(copy)
    assert again["train/rose/wide.jpg"] == whole["train/rose/wide.jpg"] and again["train/lily/grey.jpg"] == b"seen to be left"
    assert again["train/lily/clear.png"] != whole["train/lily/clear.png"]
    record = json.loads(again["resized.json"])
    assert set(record.pop("files")) == whole.keys() - {"resized.json"}
    assert record == {"source": str(tree.resolve()), "size": 32, "quality": 95, "format": "keep"}


@pytest.mark.parametrize("form", ["keep", "ppm"])
def test_the_copy_mirrors_the_source_and_other_files_stay(tree, tmp_path, capsys, form):
    """An image that is gone, a whole class, a name with another suffix, an image that is damaged now; and files of others."""
    copy, suffix = tmp_path / "copy", "ppm" if form == "ppm" else "png"
    options = ("--size", 32, "--format", form)
    run(capsys, tree, copy, *options)
    before = files(copy)
    own = {"train/lily/own.png": b"mine", "train/rose/notes.txt": b"mine", "train/tulip/own.jpg": b"mine"}
    for name, content in own.items():
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_bytes(content)
    (copy / "val/lily" / f"just.{suffix}.tmp").write_bytes(b"half of it")  # as a kill leaves it
    shutil.rmtree(tree / "val/lily")
    (tree / "train/rose/deep/tall.JPEG").unlink()
    (tree / "train/lily/palette.gif").rename(tree / "train/lily/renamed.gif")
    (tree / "train/lily/ink.jpg").write_bytes(b"no image")
    os.utime(tree / "train/lily/ink.jpg", (2e9, 2e9))
    ink = "train/lily/ink." + ("ppm" if form == "ppm" else "jpg")
    tall = "train/rose/deep/tall." + ("ppm" if form == "ppm" else "JPEG")
    out, _ = run(capsys, tree, copy, *options, "--on-corrupt-image", "skip")
    palette, renamed, just = f"train/lily/palette.{suffix}", f"train/lily/renamed.{suffix}", f"val/lily/just.{suffix}"
    assert "3 files were removed, because their images left" in out and f"{palette} first" in out
    assert f"2 images are of no image in {tree}" in out and f"{copy / 'train/lily/own.png'} first; they are kept" in out
    after = files(copy)
    assert after.keys() == before.keys() - {palette, ink, tall, just} | {renamed} | own.keys()
    assert after[renamed] == before[palette] and all(after[name] == content for name, content in own.items())
    assert not (copy / "val/lily").exists() and not (copy / "train/rose/deep").exists()
    photograph(64, 64).save(tree / "train/lily/own.png")
    assert f"{copy / 'train/lily/own.'}" in (line := fails(capsys, tree, copy, *options)) or form == "ppm"
    assert form == "ppm" or "was not written by this program, but would be replaced; move it elsewhere" in line
    assert files(copy)["train/lily/own.png"] == b"mine"


@pytest.mark.parametrize("names", [["../mine.jpg"], ["/{folder}/mine.jpg"], ["train/out/mine.jpg"]])
def test_a_record_cannot_name_files_outside_the_copy(tree, tmp_path, capsys, names):
    """A record may come with a downloaded copy."""
    copy, mine = tmp_path / "copy", tmp_path / "mine.jpg"
    run(capsys, tree, copy, "--size", 32)
    mine.write_bytes(b"mine")
    (copy / "train/out").symlink_to(tmp_path)
    record = json.loads((copy / "resized.json").read_text())
    record["files"] += [name.format(folder=tmp_path) for name in names]
    (copy / "resized.json").write_text(json.dumps(record))
    assert "removed" not in run(capsys, tree, copy, "--size", 32)[0]
    assert mine.read_bytes() == b"mine"


@pytest.mark.parametrize("text", ["[]", "3", '{"files": 3}', "{", "null", '"text"'])
def test_a_damaged_record_is_one_line(tree, tmp_path, capsys, text):
    copy = tmp_path / "copy"
    run(capsys, tree, copy, "--size", 32)
    (copy / "resized.json").write_text(text)
    assert "resized.json cannot be read; remove" in fails(capsys, tree, copy, "--size", 32)


def test_a_write_that_fails_leaves_no_half_a_file(tree, tmp_path, capsys, monkeypatch):
    save = Image.Image.save

    def half(self, path, *arguments, **options):
        save(self, path, *arguments, **options)
        os.truncate(path, 100)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", half)
    line = fails(capsys, tree, tmp_path / "copy", "--size", 32, "--workers", 1)
    assert "could not be written (No space left on device)" in line
    assert files(tmp_path / "copy").keys() == {"resized.json"}
    monkeypatch.undo()
    assert "7 resized now" in run(capsys, tree, tmp_path / "copy", "--size", 32)[0]


@pytest.mark.parametrize("content", [b"", b"no image", None, "a link"])
def test_a_bad_file_stops_or_is_named_and_left_out(tree, tmp_path, capsys, content):
    bad = tree / "train/rose/bad.jpg"
    if content == "a link":
        bad.symlink_to("nothing.jpg")
    else:
        bad.write_bytes((tree / "train/rose/wide.jpg").read_bytes()[:700] if content is None else content)
    reason = {b"": "is empty", b"no image": "is no image", None: "is truncated or damaged", "a link": "is a link to a"}[content]
    line = fails(capsys, tree, tmp_path / "copy", "--size", 32)
    assert line.startswith(f"error: {bad} {reason}") and line.endswith("replace or remove it, or use --on-corrupt-image skip")
    out, err = run(capsys, tree, tmp_path / "copy", "--size", 32, "--on-corrupt-image", "skip")
    assert err.count("skipped: ") == 1 and f"skipped: {bad} {reason}" in err
    assert out.splitlines()[1] == f"1 corrupt image files were skipped, {bad} first" and ": 8 images of" in out
    assert not (tmp_path / "copy/train/rose/bad.jpg").exists()


def test_tiny_imagenet_s_annotations_come_along(tmp_path, capsys):
    (tmp_path / "tree/train/n1/images").mkdir(parents=True)
    (tmp_path / "tree/val/images").mkdir(parents=True)
    photograph(64, 64).save(tmp_path / "tree/train/n1/images/0.JPEG")
    photograph(64, 64).save(tmp_path / "tree/val/images/val_0.JPEG")
    (tmp_path / "tree/val/val_annotations.txt").write_text("val_0.JPEG\tn1\t0\t0\t9\t9\n")
    run(capsys, tmp_path / "tree", tmp_path / "copy", "--size", 48)
    data = load_data(DataOptions(name="copy", root=tmp_path, image_size=32), seed=0)
    assert (len(data.train), len(data.val), data.classes) == (1, 1, ["n1"])


def test_what_is_refused(tree, tmp_path, capsys):
    copy = tmp_path / "copy"
    assert "the number of folders is 1; expected two" in fails(capsys, tree)
    assert "is not a folder" in fails(capsys, tmp_path / "nowhere", copy)
    assert "is inside" in fails(capsys, tree, tree / "small") and not (tree / "small").exists()
    assert "is inside" in fails(capsys, tree, tree)
    (tmp_path / "link").symlink_to(tree)
    assert "is inside" in fails(capsys, tree, tmp_path / "link" / "small")
    assert "holds" in fails(capsys, tree, tmp_path)
    (tmp_path / "file").touch()
    assert "is a file" in fails(capsys, tree, tmp_path / "file")
    for options in (("--size", 0), ("--quality", 101), ("--quality", 0), ("--workers", -1)):
        assert f"{options[0]} is {options[1]}; expected an integer from" in fails(capsys, tree, copy, *options)
    (tmp_path / "empty").mkdir()
    assert "holds no images" in fails(capsys, tmp_path / "empty", copy)
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "thesis.txt").write_text("mine")
    assert "holds files, but no resized.json of a copy" in fails(capsys, tree, tmp_path / "others")
    assert not copy.exists() and files(tmp_path / "others") == {"thesis.txt": b"mine"}
    run(capsys, tree, copy, "--size", 32)
    before = files(copy)
    assert "was written with size 32, not 40;" in fails(capsys, tree, copy, "--size", 40)
    shutil.copytree(tree, tmp_path / "other")
    assert f"was written with source {tree.resolve()}, not" in fails(capsys, tmp_path / "other", copy, "--size", 32)
    (copy / "resized.json").write_text("{")
    assert "cannot be read; remove" in fails(capsys, tree, copy, "--size", 32)
    assert files(copy) == {**before, "resized.json": b"{"}


def test_two_images_that_would_become_one_are_refused(tree, tmp_path, capsys):
    photograph(40, 40).save(tree / "train/lily/palette.png")
    assert "would both become" in fails(capsys, tree, tmp_path / "copy") and not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("sides", "size", "expected"),
    [((90, 60), 32, (48, 32)), ((41, 123), 32, (32, 96)), ((7, 7), 3, (3, 3)), ((3, 299), 2, (2, 199))],
)
def test_sides_by_hand(sides, size, expected):
    assert scale_sides(sides, size) == expected


def test_help_without_arguments(capsys):
    with pytest.raises(SystemExit) as end:
        main([])
    out = capsys.readouterr().out
    assert not end.value.code and out.startswith(resize.__doc__.strip()) and "--on-corrupt-image {error,skip}" in out


def test_uncompressed_copies_hold_the_pixels_before_any_jpeg(tree, tmp_path, capsys):
    run(capsys, tree, tmp_path / "copy", "--size", 32, "--format", "ppm")
    names = sorted(name for name in files(tmp_path / "copy") if name != "resized.json")
    assert len(names) == 8 and all(name.endswith(".ppm") for name in names)
    for name, source in (("train/rose/wide.ppm", "train/rose/wide.jpg"), ("val/rose/small.ppm", "val/rose/small.jpg")):
        image = read_image(tree / source)
        if min(image.size) > 32:
            image = image.resize((48, 32), Image.Resampling.BICUBIC)
        assert (tmp_path / "copy" / name).stat().st_size - 3 * image.width * image.height < 20  # a header, and no more
        assert np.array_equal(np.array(read_image(tmp_path / "copy" / name)), np.array(image))
    assert "8 there already" in run(capsys, tree, tmp_path / "copy", "--size", 32, "--format", "ppm")[0]
    assert "was written with format ppm, not keep" in fails(capsys, tree, tmp_path / "copy", "--size", 32)


def test_a_copy_that_was_begun_before_there_were_formats_goes_on(tree, tmp_path, capsys):
    run(capsys, tree, tmp_path / "copy", "--size", 32)
    record = tmp_path / "copy" / "resized.json"
    made = json.loads(record.read_text())
    del made["format"]
    record.write_text(json.dumps(made))
    assert "8 there already" in run(capsys, tree, tmp_path / "copy", "--size", 32)[0]
