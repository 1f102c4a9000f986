"""Natural images on disk: reading, detecting corrupt files, and skipping them."""

import logging
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torch.utils.data import DataLoader

from spvit_mini.data.image_folders import ImageFolder, list_classes, scan_class_folders
from spvit_mini.data.images import CorruptImageError, ImageFiles, InMemoryImages, read_image, read_image_tensor
from spvit_mini.errors import UserError

GOOD = ("RGB", "L", "CMYK", "P", "1", "LA")


def mean_colours(files: ImageFiles) -> list[list[float]]:
    return [np.asarray(files[index][0]).mean(axis=(0, 1)).tolist() for index in range(len(files))]


# --- one file


def test_a_whole_image_is_read_as_pillow_reads_it(make_image_folder):
    path = make_image_folder("set", {"a": 1}, val={}) / "train" / "a" / "000.jpg"
    image = read_image(path)
    assert image.mode == "RGB" and image.size == (24, 16)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(Image.open(path)))


@pytest.mark.parametrize("mode", GOOD)
def test_greyscale_cmyk_and_palette_are_converted(mode, tmp_path):
    path = tmp_path / ("image.jpg" if mode in ("RGB", "L", "CMYK") else "image.png")
    Image.new("RGB", (20, 10), (255, 255, 255)).convert(mode).save(path)
    image = read_image(path)
    assert image.mode == "RGB" and np.asarray(image).shape == (10, 20, 3)
    assert np.asarray(image).min() >= 254


def test_the_name_of_a_file_does_not_decide_what_it_is(tmp_path):
    Image.new("RGB", (20, 10), (1, 2, 3)).save(tmp_path / "image.png")
    shutil.move(tmp_path / "image.png", tmp_path / "image.jpg")
    assert np.asarray(read_image(tmp_path / "image.jpg"))[0, 0].tolist() == [1, 2, 3]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_corrupt_files_are_detected_and_named_as_what_they_are(corrupt_file):
    path, reason = corrupt_file
    with pytest.raises(CorruptImageError) as caught:
        read_image(path)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("limit", "scale"), [(4000, 2), (1700, 4), (1000, 4), (300, 8)])
@pytest.mark.parametrize("read", [read_image, read_image_tensor])
def test_a_jpeg_above_pillows_limit_is_read_at_a_fraction_of_its_size(read, limit, scale, tmp_path, monkeypatch):
    """The limit is lowered to between 1 and 64 times the size: Pillow warns up to twice the limit, and refuses above it."""
    rows, columns = np.mgrid[:96, :128]
    pixels = np.stack([rows, columns, rows + columns], -1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.jpg", quality=100, subsampling=0)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    image = read(tmp_path / "image.jpg")
    image = image.permute(1, 2, 0).numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    means = pixels.astype(float).reshape(96 // scale, scale, 128 // scale, scale, 3).mean((1, 3))
    assert image.shape == means.shape
    np.testing.assert_allclose(image, means, atol=3)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("name", "limit"), [("a.png", 4000), ("a.png", 1000), ("progressive.jpg", 1000), ("tiny.jpg", 100)])
def test_other_images_above_pillows_limit_are_refused_with_the_reason(name, limit, tmp_path, monkeypatch):
    options = {"progressive": True} if name == "progressive.jpg" else {}
    Image.new("RGB", (100, 80)).save(tmp_path / name, **options)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(CorruptImageError, match=f"has more than {limit:,} pixels, Pillow's limit .* save it smaller, or as a"):
        read_image(tmp_path / name)


def test_sixteen_bits_and_the_first_picture_of_an_animation(tmp_path):
    values = (np.arange(600).reshape(20, 30) * 100).astype(np.uint16)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(np.asarray(read_image(tmp_path / name))[..., 0], values >> 8)
    pictures = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    pictures[0].save(tmp_path / "moving.gif", save_all=True, append_images=pictures[1:])
    assert np.asarray(read_image(tmp_path / "moving.gif"))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(CorruptImageError, match="is a pipe; expected a file"):
        read_image(tmp_path / "pipe.jpg")


def test_pillow_is_not_set_to_accept_truncated_files():
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_truncated_jpeg_is_corrupt_or_has_all_its_pixels(tmp_path):
    random = np.random.RandomState(0)
    path = tmp_path / "image.jpg"
    Image.fromarray(random.randint(0, 256, size=(48, 40, 3), dtype=np.uint8)).save(path, quality=90)
    whole, content = np.asarray(read_image(path)), path.read_bytes()
    bad = 0
    for length in [*random.randint(0, len(content), size=60), len(content) - 1, len(content) - 2, len(content) - 3]:
        path.write_bytes(content[:length])
        try:
            np.testing.assert_array_equal(np.asarray(read_image(path)), whole)
        except CorruptImageError:
            bad += 1
    assert bad >= 60


def test_an_error_of_the_file_system_is_no_corrupt_image(tmp_path):
    with pytest.raises(UserError, match="cannot read .*nowhere.jpg: No such file"):
        read_image(tmp_path / "nowhere.jpg")


# --- scanning


def test_a_scan_lists_images_by_class_and_name(make_image_folder):
    folder = make_image_folder("set", {"dog": 2, "cat": 3, "Ant": 1}, val={}) / "train"
    (folder / "cat" / "inner").mkdir()
    shutil.copy(folder / "cat" / "000.jpg", folder / "cat" / "inner" / "UPPER.JPEG")
    for name in ("notes.txt", ".hidden.jpg", "Thumbs.db"):
        (folder / "cat" / name).write_text("no image")
    (folder / ".cache").mkdir()
    listing = scan_class_folders(folder, on_corrupt_image="error")
    assert listing.classes == ["Ant", "cat", "dog"]
    assert listing.labels.tolist() == [0, 1, 1, 1, 1, 2, 2]
    paths = [listing.path(index) for index in range(len(listing))]
    names = [
        "Ant/000.jpg",
        "cat/000.jpg",
        "cat/001.jpg",
        "cat/002.jpg",
        "cat/inner/UPPER.JPEG",
        "dog/000.jpg",
        "dog/001.jpg",
    ]
    assert paths == [str(folder / name) for name in names]


def test_links_are_followed(make_image_folder, tmp_path):
    folder = make_image_folder("set", {"cat": 2, "dog": 1}, val={}) / "train"
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    (chosen / "cat").symlink_to(folder / "cat")
    listing = scan_class_folders(chosen, on_corrupt_image="error")
    assert [listing.path(0), listing.path(1)] == [f"{chosen}/cat/000.jpg", f"{chosen}/cat/001.jpg"]


@pytest.mark.parametrize("target", ["nowhere.jpg", "002.jpg"])
def test_a_link_to_no_file_is_a_corrupt_image(target, make_image_folder, caplog):
    """Also a link to itself."""
    folder = make_image_folder("set", {"cat": 2, "dog": 1}, val={}) / "train"
    link = folder / "cat" / "002.jpg"
    link.symlink_to(target)
    with pytest.raises(UserError, match="cat/002.jpg is a link to a file that does not exist; replace it, or skip"):
        scan_class_folders(folder, on_corrupt_image="error")
    listing = scan_class_folders(folder, on_corrupt_image="skip")
    assert len(listing) == 4 and ImageFiles(listing).load(2)[1] == 3
    assert caplog.messages == [f"skipped: {link} is a link to a file that does not exist"]
    with pytest.raises(CorruptImageError, match="is a link to a file that does not exist"):
        read_image(link)


def test_names_in_any_script_are_found(make_image_folder):
    folder = make_image_folder("Blüten 花", {"Gänseblümchen 雏菊": 2}, val={}) / "train"
    files = ImageFiles(scan_class_folders(folder, on_corrupt_image="error"))
    assert files.classes == ["Gänseblümchen 雏菊"] and files[1][0].size == (24, 16)


def test_a_class_is_the_same_in_composed_and_in_decomposed_characters(make_image_folder):
    """Training images from one system, validation images from another. The order of labels is that of composed names."""
    composed, decomposed = "érable", "e\u0301rable"
    folder = make_image_folder("set", {decomposed: 2, "ziest": 1, "fichte": 1}, val={composed: 1, "ziest": 1})
    train = ImageFolder("set", folder).list_files(train=True, on_corrupt_image="error")
    val = ImageFolder("set", folder).list_files(train=False, on_corrupt_image="error")
    assert train.classes == val.classes == ["fichte", "ziest", composed]
    assert train.labels.tolist() == [0, 1, 2, 2] and val.labels.tolist() == [1, 2]
    assert all(image.size == (24, 16) for listing in (train, val) for image, _ in ImageFiles(listing))
    (folder / "val" / decomposed).mkdir()
    with pytest.raises(UserError, match=f"val has two folders called {composed}, in other Unicode characters; merge them"):
        list_classes(folder / "val")


def test_a_split_may_lack_classes_but_not_have_others(make_image_folder, caplog):
    folder = make_image_folder("set", {"cat": 1}, val={}) / "train"
    assert scan_class_folders(folder, on_corrupt_image="error", classes=["ant", "cat", "dog"]).labels.tolist() == [1]
    assert "lacks 2 of 3 classes, ant first" in caplog.text
    with pytest.raises(UserError, match="has a class 'cat' that the training images don't have. Did you mean cats?"):
        scan_class_folders(folder, on_corrupt_image="error", classes=["cats", "dogs"])


def test_a_folder_without_classes_and_a_class_without_images_are_refused(make_image_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty has no class folders; expected"):
        scan_class_folders(tmp_path / "empty", on_corrupt_image="skip")
    folder = make_image_folder("set", {"cat": 1, "dog": 0, "eel": 0}, val={}) / "train"
    (folder / "dog" / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=r"class folder .*dog holds no images \(nor do 1 more\); add images"):
        scan_class_folders(folder, on_corrupt_image="skip")
    with pytest.raises(UserError, match="cannot read .*nowhere: No such file"):
        scan_class_folders(tmp_path / "nowhere", on_corrupt_image="skip")


def test_the_scan_detects_empty_files(make_image_folder, caplog):
    folder = make_image_folder("set", {"cat": 3, "dog": 3}, val={}) / "train"
    for name in ("cat/001.jpg", "dog/002.jpg"):
        (folder / name).write_bytes(b"")
    with pytest.raises(UserError) as caught:
        scan_class_folders(folder, on_corrupt_image="error")
    assert f"{folder}/cat/001.jpg is empty (as are 1 more files); replace it" in str(caught.value)
    assert "--data.on-corrupt-image skip" in str(caught.value)
    listing = scan_class_folders(folder, on_corrupt_image="skip")
    assert len(listing) == 6 and not caplog.records  # each keeps its place in the order of the images until it is read
    left = ImageFiles(listing).drop_corrupt()
    assert len(left) == 4 and left.skipped_files == [f"{folder}/cat/001.jpg", f"{folder}/dog/002.jpg"]
    assert sorted(caplog.messages) == [f"skipped: {path} is empty" for path in left.skipped_files]
    for path in folder.glob("dog/*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="dog holds no images"):
        scan_class_folders(folder, on_corrupt_image="skip")


# --- reading, with corrupt files


@pytest.fixture
def damaged(make_image_folder):
    """Return the folder of ten images, of which numbers 3, 4 and 9 are corrupt."""
    folder = make_image_folder("set", {"a": 5, "b": 5}, val={}) / "train"
    for name in ("a/003.jpg", "a/004.jpg", "b/004.jpg"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_file_is_an_error_in_one_line_from_any_process(damaged, error_of, workers):
    files = ImageFiles(scan_class_folders(damaged, on_corrupt_image="error"))
    assert files[2][1] == 0
    said = error_of(DataLoader(files, batch_size=2, num_workers=workers, collate_fn=list))
    assert said.startswith(f"{damaged}/a/003.jpg is truncated or damaged (") and "\n" not in said
    assert said.endswith("; replace it, or skip such files with --data.on-corrupt-image skip")
    for _ in range(2):  # however often it is asked for
        with pytest.raises(UserError, match="a/003.jpg is truncated"):
            files[3]


def test_the_next_readable_image_replaces_a_skipped_one(damaged, caplog):
    files = ImageFiles(scan_class_folders(damaged, on_corrupt_image="skip"))
    expected = [0, 1, 2, 5, 5, 5, 6, 7, 8, 0]  # 9 is the last, so that the first follows
    good = {index: np.asarray(read_image(files.files.path(index))) for index in set(expected)}
    for _ in range(2):
        for index, instead in enumerate(expected):
            image, label = files[index]
            np.testing.assert_array_equal(np.asarray(image), good[instead])
            assert label == (0 if instead < 5 else 1)
    bad = [f"{damaged}/{name}" for name in ("a/003.jpg", "a/004.jpg", "b/004.jpg")]
    assert files.skipped_files == bad
    messages = [record.getMessage() for record in caplog.records]
    assert [message.split(" is ")[0] for message in messages] == [f"skipped: {path}" for path in bad]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_files_that_worker_processes_skip_are_counted_here(damaged):
    files = ImageFiles(scan_class_folders(damaged, on_corrupt_image="skip"))
    loader = DataLoader(files, batch_size=2, num_workers=2, collate_fn=list)
    labels = [label for batch in loader for _, label in batch]
    assert labels == [0, 0, 0, 1, 1, 1, 1, 1, 1, 0]
    assert files.skipped_files == [f"{damaged}/{name}" for name in ("a/003.jpg", "a/004.jpg", "b/004.jpg")]


@pytest.mark.slow
def test_skipped_files_are_counted_from_processes_that_share_nothing(damaged):
    files = ImageFiles(scan_class_folders(damaged, on_corrupt_image="skip"))
    loader = DataLoader(files, batch_size=5, num_workers=1, collate_fn=list, multiprocessing_context="spawn")
    assert len(list(loader)) == 2
    assert len(files.skipped_files) == 3


def test_drop_corrupt_selects_each_readable_image_once(damaged, caplog):
    (damaged / "b" / "000.jpg").write_bytes(b"")
    files = ImageFiles(scan_class_folders(damaged, on_corrupt_image="skip")).drop_corrupt()
    names = ["a/000.jpg", "a/001.jpg", "a/002.jpg", "b/001.jpg", "b/002.jpg", "b/003.jpg"]
    assert [files.files.path(index) for index in range(len(files))] == [str(damaged / name) for name in names]
    assert files.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert mean_colours(files) == [np.asarray(read_image(damaged / name)).mean(axis=(0, 1)).tolist() for name in names]
    left_out = {f"{damaged}/{name}" for name in ("a/003.jpg", "a/004.jpg", "b/000.jpg", "b/004.jpg")}
    assert set(files.skipped_files) == left_out and len(caplog.records) == 4


def test_a_folder_without_readable_images_is_refused(make_image_folder):
    folder = make_image_folder("set", {"a": 2}, val={}) / "train"
    for path in folder.glob("a/*"):
        path.write_bytes(b"no image")
    files = ImageFiles(scan_class_folders(folder, on_corrupt_image="skip"))
    for failing in (lambda: files[0], files.drop_corrupt, lambda: InMemoryImages.read(files.files, side=32, train=True)):
        with pytest.raises(UserError, match="none of the 2 images in .* can be read"):
            failing()


def test_selected_files(make_image_folder):
    files = ImageFiles(scan_class_folders(make_image_folder("set", {"a": 3, "b": 3}, val={}) / "train", on_corrupt_image="error"))
    part = files.select(torch.tensor([4, 1]))
    assert part.labels.tolist() == [1, 0] and len(files) == 6
    assert mean_colours(part) == [mean_colours(files)[index] for index in (4, 1)]


# --- decoded in memory


def test_small_images_are_decoded_once(make_image_folder):
    folder = make_image_folder("set", {"a": 2, "b": 3}, val={}, width=32, height=32) / "train"
    listing = scan_class_folders(folder, on_corrupt_image="error")
    held = InMemoryImages.read(listing, side=32, train=False)
    assert held.images.shape == (5, 3, 32, 32) and held.images.dtype == torch.uint8 and held.classes == ["a", "b"]
    for index in range(5):
        image, label = held[index]
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), np.asarray(Image.open(listing.path(index))))
        assert label == (0 if index < 2 else 1)
    part = held.select(torch.tensor([4, 0]))
    assert part.labels.tolist() == [1, 0] and torch.equal(part.images, held.images[[4, 0]])


def test_corrupt_small_images_are_skipped_or_an_error(make_image_folder, caplog):
    folder = make_image_folder("set", {"a": 2, "b": 3}, val={}, width=32, height=32) / "train"
    whole = InMemoryImages.read(scan_class_folders(folder, on_corrupt_image="error"), side=32, train=False)
    for name in ("a/000.jpg", "b/001.jpg"):
        (folder / name).write_bytes(b"no image")
    with pytest.raises(UserError, match=r"a/000.jpg is no image; replace it"):
        InMemoryImages.read(scan_class_folders(folder, on_corrupt_image="error"), side=32, train=False)
    held = InMemoryImages.read(scan_class_folders(folder, on_corrupt_image="skip"), side=32, train=False)
    assert torch.equal(held.images, whole.images[[1, 2, 4]]) and held.labels.tolist() == [0, 1, 1]
    assert list(held.skipped_files) == [f"{folder}/a/000.jpg", f"{folder}/b/001.jpg"] and len(caplog.records) == 2
    trained = InMemoryImages.read(scan_class_folders(folder, on_corrupt_image="skip"), side=32, train=True)
    assert torch.equal(trained.images, whole.images[[1, 1, 2, 4, 4]]) and trained.labels.tolist() == [0, 0, 1, 1, 1]


def test_an_image_of_another_size_is_refused(make_image_folder):
    listing = scan_class_folders(make_image_folder("set", {"a": 1}, val={}) / "train", on_corrupt_image="skip")
    with pytest.raises(UserError, match="000.jpg has 24 × 16 pixels; expected 32 × 32"):
        InMemoryImages.read(listing, side=32, train=False)
