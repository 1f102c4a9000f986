"""Datasets by name that are more than a folder of that name: both ImageNet-100, and Tiny ImageNet as it is distributed."""

import logging
import shutil
from pathlib import Path

import pytest
import torch

from spvit_mini.data import DataOptions, load_data
from spvit_mini.data.image_folders import IMAGENET_SUBSETS, find_image_folder, read_subset_classes
from spvit_mini.data.images import read_image
from spvit_mini.errors import UserError

ROOT = Path(__file__).parents[2]


def test_the_lists_travel_with_the_package():
    declared = (ROOT / "pyproject.toml").read_text()
    assert '"spvit_mini.data" = ["*.txt"]' in declared
    assert all(path.suffix == ".txt" and path.parent == ROOT / "spvit_mini/data" for path in IMAGENET_SUBSETS.values())


def test_the_lists_are_a_hundred_classes_each_and_not_the_same():
    cmc, first = read_subset_classes("imagenet100"), read_subset_classes("imagenet100_first")
    for names in (cmc, first):
        assert len(set(names)) == 100 and names == sorted(names)
        assert all(len(name) == 9 and name[0] == "n" and name[1:].isdigit() for name in names)
    assert len(set(cmc) & set(first)) == 8
    # The file keeps the original's order, of which these are known.
    lines = IMAGENET_SUBSETS["imagenet100"].read_text().split()
    own = [line for line in lines if line in cmc]
    assert own[:3] == ["n02869837", "n01749939", "n02488291"] and own[-1] == "n02090622"
    # Tench to goose, in ImageNet's order: its classes 0, 1, 50 and 99.
    assert [first[i] for i in (0, 1, 50, 99)] == ["n01440764", "n01443537", "n01698640", "n01855672"]


def test_the_first_hundred_are_those_of_all_thousand(real_images):
    folder = real_images("imagenet-samples-1000") / "imagenet-samples-1000" / "val"
    thousand = sorted(path.name for path in folder.iterdir())
    assert len(thousand) == 1000
    assert read_subset_classes("imagenet100_first") == thousand[:100]
    assert set(read_subset_classes("imagenet100")) < set(thousand)


@pytest.fixture
def imagenet(make_image_folder):
    """Return the root of a small ImageNet: the classes of both lists and two more, one image per class and split."""
    classes = {*read_subset_classes("imagenet100"), *read_subset_classes("imagenet100_first"), "n00000001", "n99999999"}
    ones = dict.fromkeys(sorted(classes), 1)
    return make_image_folder("imagenet", ones | {"n01440764": 10}, val=ones, width=8, height=8).parent


@pytest.mark.parametrize("name", ["imagenet100", "imagenet100_first"])
def test_a_subset_of_imagenet_needs_no_directory(name, imagenet, caplog):
    data = load_data(DataOptions(name=name, root=imagenet, image_size=8), seed=0)
    assert data.name == name and data.classes == read_subset_classes(name)
    assert len(data.val) == 100 and len(data.train) == (100 if name == "imagenet100" else 109)
    for part, folder in ((data.train, "train"), (data.val, "val")):
        listing = part.source.files
        folders = [Path(listing.path(i)).parent.name for i in range(len(part))]
        assert [data.classes[label] for label in part.labels] == folders
        assert listing.folder == imagenet / "imagenet" / folder
    assert caplog.records == []


def test_a_fraction_of_each_class_of_a_subset(imagenet):
    data = load_data(DataOptions(name="imagenet100_first", root=imagenet, image_size=8, fraction=0.3), seed=0)
    assert data.train.labels.bincount().tolist() == [3] + [1] * 99 and len(data.val) == 100


def test_imagenet_has_all_classes_of_its_directory(imagenet):
    assert len(load_data(DataOptions(name="imagenet", root=imagenet, image_size=8), seed=0).classes) == 194


def test_a_directory_of_that_name_has_precedence_and_its_other_classes_are_logged(imagenet, make_image_folder, caplog):
    make_image_folder("imagenet100", {"cat": 1, "dog": 1}, val={"cat": 1, "dog": 1})
    with caplog.at_level(logging.WARNING):
        files = find_image_folder("imagenet100", imagenet).list_files(train=True, on_corrupt_image="error")
    assert files.classes == ["cat", "dog"]
    assert "imagenet100 has other classes than imagenet100 in the literature" in caplog.text
    caplog.clear()
    ones = dict.fromkeys(read_subset_classes("imagenet100_first"), 1)
    make_image_folder("imagenet100_first", ones, val=ones, width=8, height=8)
    assert find_image_folder("imagenet100_first", imagenet).folder == imagenet / "imagenet100_first"
    assert caplog.text == ""


def test_a_subset_of_an_imagenet_that_lacks_classes_is_refused(imagenet):
    for wnid in ("n01440764", "n01443537"):
        shutil.rmtree(imagenet / "imagenet" / "val" / wnid)
    with pytest.raises(UserError, match="val lacks 2 of the 100 classes of imagenet100_first, n01440764 first"):
        load_data(DataOptions(name="imagenet100_first", root=imagenet), seed=0)
    assert len(load_data(DataOptions(name="imagenet100", root=imagenet, image_size=8), seed=0).val) == 100


@pytest.mark.parametrize(
    ("name", "looked"),
    [
        ("imagenet", ["{root}/imagenet is not a folder"]),
        ("imagenet100", ["{root}/imagenet100", "{root}/imagenet,"]),
        ("imagenet100_first", ["{root}/imagenet100_first", "{root}/imagenet,"]),
        ("tiny_imagenet", ["{root}/tiny_imagenet", "{root}/tiny-imagenet-200"]),
        ("folder", ["{root} is not a folder"]),
    ],
)
def test_a_missing_dataset_is_named_with_the_searched_folders(name, looked, tmp_path):
    root = tmp_path / "nowhere"
    with pytest.raises(UserError, match=f"no dataset '{name}'.*Put an ImageFolder directory there.*data/README.md") as error:
        load_data(DataOptions(name=name, root=root), seed=0)
    assert all(place.format(root=root) in str(error.value) for place in looked)


# --- Tiny ImageNet


@pytest.fixture
def tiny(make_image_folder):
    """Return a Tiny ImageNet as distributed, with three classes, and {name of a validation image: its class}."""
    classes = ["n01443537", "n01629819", "n07734744"]
    tree = make_image_folder("tiny-imagenet-200", dict.fromkeys(classes, 4), val=dict.fromkeys(classes, 2))
    for wnid in classes:
        folder = tree / "train" / wnid
        (folder / "images").mkdir()
        for image in folder.glob("*.jpg"):
            image.rename(folder / "images" / f"{wnid}_{image.stem}.JPEG")
        (folder / f"{wnid}_boxes.txt").write_text(f"{wnid}_000.JPEG\t0\t10\t63\t58\n")
    # In the order of numbers, classes are mixed, as in the original.
    (tree / "val" / "images").mkdir()
    truth = {}
    for copy in range(2):
        for wnid in reversed(classes):
            name = f"val_{len(truth)}.JPEG"
            (tree / "val" / wnid / f"{copy:03}.jpg").rename(tree / "val" / "images" / name)
            truth[name] = wnid
    for wnid in classes:
        (tree / "val" / wnid).rmdir()
    lines = [f"{name}\t{wnid}\t0\t32\t44\t62\n" for name, wnid in truth.items()]
    (tree / "val" / "val_annotations.txt").write_text("".join(lines))
    (tree / "test" / "images").mkdir(parents=True)
    shutil.copy(tree / "val" / "images" / "val_0.JPEG", tree / "test" / "images" / "test_0.JPEG")
    return tree, truth


def labelled(data) -> dict[str, str]:
    listing = data.val.source.files
    return {Path(listing.path(i)).name: data.classes[int(label)] for i, label in enumerate(data.val.labels)}


def shown(data) -> dict[str, torch.Tensor]:
    return dict(zip(labelled(data), [image for image, _ in data.val], strict=True))


@pytest.mark.parametrize("name", ["tiny_imagenet", "tiny-imagenet-200"])
def test_tiny_imagenet_as_distributed(name, tiny):
    tree, truth = tiny
    data = load_data(DataOptions(name=name, root=tree.parent, image_size=16), seed=0)
    assert data.classes == sorted(set(truth.values())) and len(data.train) == 12
    assert data.train.labels.bincount().tolist() == [4, 4, 4]
    assert labelled(data) == truth
    for index in range(6):
        path = tree / "val" / "images" / f"val_{index}.JPEG"
        assert data.val.source[index][0].tobytes() == read_image(path).tobytes()


def test_tiny_imagenet_with_its_validation_images_in_class_folders(tiny):
    tree, truth = tiny
    before = shown(load_data(DataOptions(name="tiny_imagenet", root=tree.parent, image_size=16), seed=0))
    for name, wnid in truth.items():
        (tree / "val" / wnid).mkdir(exist_ok=True)
        (tree / "val" / "images" / name).rename(tree / "val" / wnid / name)
    (tree / "val" / "images").rmdir()  # the annotations stay, as after a sorting by hand
    tree.rename(tree.with_name("tiny_imagenet"))
    data = load_data(DataOptions(name="tiny_imagenet", root=tree.parent, image_size=16), seed=0)
    after = shown(data)
    assert labelled(data) == truth and before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in truth)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("val_0.JPEG\tn09999999\t0\t0\t1\t1", "line 7 .* names no class of the training images"),
        ("val_0.JPEG", "line 7 .* names no class"),
        ("val_9.JPEG\tn01443537\t0\t0\t1\t1", "line 7 .* names val_9.JPEG, which is not in .*images"),
    ],
)
def test_annotations_that_are_wrong_are_named_by_line(line, says, tiny):
    tree, _ = tiny
    with (tree / "val" / "val_annotations.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=says):
        load_data(DataOptions(name="tiny_imagenet", root=tree.parent), seed=0)


def test_annotations_without_a_line_are_refused(tiny):
    (tiny[0] / "val" / "val_annotations.txt").write_text("\n")
    with pytest.raises(UserError, match="names no image"):
        load_data(DataOptions(name="tiny_imagenet", root=tiny[0].parent), seed=0)


def test_an_empty_file_among_annotated_images_is_an_error_or_skipped(tiny):
    tree, truth = tiny
    (tree / "val" / "images" / "val_2.JPEG").write_bytes(b"")
    options = DataOptions(name="tiny_imagenet", root=tree.parent, image_size=16)
    with pytest.raises(UserError, match="val_2.JPEG is empty"):
        load_data(options, seed=0)
    data = load_data(DataOptions(**{**vars(options), "on_corrupt_image": "skip"}), seed=0)
    del truth["val_2.JPEG"]
    assert labelled(data) == truth
    assert [Path(path).name for path in data.skipped_files] == ["val_2.JPEG"]
