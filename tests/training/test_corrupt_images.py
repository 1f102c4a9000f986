"""Two thousand images, three in a hundred broken: the run ends, each broken file is named once, none is learned from."""

import io
import os
import random
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from spvit_mini.data import DataOptions, TrainBatches, load_data

SIDE, COUNT, BROKEN = 16, 2000, 60


def coloured(number: int) -> Image.Image:
    """Make an image whose colour is its number, in steps of 16 that JPEG keeps apart: three digits to the base 13."""
    digits = [16 * (number // 13**i % 13) + 24 for i in range(3)]
    return Image.new("RGB", (SIDE, SIDE), tuple(digits))


def number_of(image: torch.Tensor) -> int:
    """Read the number of an image (3, height, width) in 0..1 back."""
    digits = ((image.mean((1, 2)) * 255 - 24) / 16).round().long().tolist()
    return sum(digit * 13**i for i, digit in enumerate(digits))


def as_jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


def huge_header() -> bytes:
    """Write the beginning of a PNG that claims to be 50,000 pixels wide and high."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def broken(kind: int, whole: bytes, draw: random.Random) -> bytes:
    """Break an image file in one of five ways."""
    return [
        whole[: draw.randrange(30, len(whole) * 3 // 4)],
        b"",
        b"This is a text, whatever its name says.\n",
        as_jpeg(Image.new("RGB", (1, 1))),
        huge_header(),
    ][kind]


@pytest.fixture(scope="module")
def tree(tmp_path_factory, request):
    """Make the tree of images, and say which numbers of the training part are broken."""
    root, draw = tmp_path_factory.mktemp("images"), random.Random(request.config.getoption("--seed"))
    bad = sorted(draw.sample(range(COUNT), BROKEN))
    for number in range(COUNT):
        folder = root / "tree" / "train" / f"class{number % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        image = coloured(number)
        if number % 50 == 7:  # odd, but good: ink colours and grey
            image = Image.fromarray(255 - np.asarray(image)).convert("L") if number % 100 == 7 else image.convert("CMYK")
        data = as_jpeg(image)
        if number in bad:
            data = broken(bad.index(number) % 5, as_jpeg(coloured(number)), draw)
        (folder / f"{number:04}.jpg").write_bytes(data)
    for label in range(4):
        folder = root / "tree" / "val" / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(5):
            coloured(number).save(folder / f"{number}.png")
    return root, [root / "tree" / "train" / f"class{n % 4}" / f"{n:04}.jpg" for n in bad]


@pytest.mark.slow
def test_the_run_ends_and_names_each_broken_file_once(tree, tmp_path):
    root, bad = tree
    command = [sys.executable, "-m", "spvit_mini", "train", "vit_mini_cifar10", "--run-dir", str(tmp_path / "run")]
    options = {
        "data.name": "tree", "data.root": root, "data.image-size": SIDE, "data.on-corrupt-image": "skip", "data.workers": 2,
        "model.depth": 1, "model.dim": 16, "model.heads": 2, "duration": "2 epochs", "optim.warmup": "0 steps",
        "batch-size": 50, "device": "cpu",
    }  # fmt: skip
    command += [text for name, value in options.items() for text in (f"--{name}", str(value))]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "step 80/80" in said and f"{BROKEN} corrupt image files were skipped" in said
    skipped = [line for line in said.splitlines() if line.startswith("skipped: ")]
    # The first file of all that is broken is named once more, in the last line.
    assert sorted(path for line in skipped for path in map(str, bad) if path in line) == sorted(map(str, bad))
    assert len(skipped) == BROKEN


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_none_is_learned_from(tree, workers, request):
    """Each broken one's place is taken by the next good image, with the label of that one."""
    root, bad = tree
    seed = request.config.getoption("--seed")
    data = load_data(DataOptions("tree", root=root, image_size=SIDE, on_corrupt_image="skip"), seed=seed)
    order = iter(TrainBatches(len(data.train), 4, seed))
    batches = [next(order) for _ in range(len(data.train) // 4)]
    mean, std = (torch.tensor(v)[:, None, None] for v in (data.preprocessing.mean, data.preprocessing.std))
    seen = []
    for images, labels in DataLoader(data.train, batch_sampler=batches, num_workers=workers):
        for image, label in zip(images, labels.tolist(), strict=True):
            pixels = image * std + mean
            if pixels.std(0).max() > 0.02:  # a colour, so not one of the grey ones
                number = number_of(pixels)
                assert number % 4 == label
                seen.append(number)
    assert set(map(str, bad)) == set(data.skipped_files)
    numbers = {int(path.stem) for path in bad}
    assert not numbers & set(seen)
    grey = {n for n in range(COUNT) if n % 100 == 7}
    even = {n for n in range(COUNT) if len({n // 13**i % 13 for i in range(3)}) == 1}  # a colour that is a grey
    assert set(seen) == set(range(COUNT)) - numbers - grey - even
