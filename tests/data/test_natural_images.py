"""Natural images, some of them corrupt, through the loader as training uses it."""

import shutil
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from spvit_mini.data import AugmentOptions, DataOptions, TrainBatches, load_data

pytestmark = pytest.mark.slow


@pytest.fixture
def flowers(real_images, tmp_path):
    """Return the options of a copy of the flowers, at 64 px, whose files a test may damage."""
    shutil.copytree(real_images("flowers17-256") / "flowers17-256", tmp_path / "flowers17")
    return DataOptions(name="flowers17", root=tmp_path, image_size=64, on_corrupt_image="skip")


def test_flowers_are_read_as_they_are(flowers):
    data = load_data(flowers, seed=0)
    assert len(data.classes) == 17 and data.classes[:2] == ["bluebell", "buttercup"]
    assert torch.bincount(data.train.labels).tolist() == [40] * 17
    assert torch.bincount(data.val.labels).tolist() == [12] * 17
    images = torch.stack([data.val[index][0] for index in range(len(data.val))])
    # Natural images, normalised by the statistics of natural images.
    assert images.mean().abs() < 0.5 and 0.7 < images.std() < 1.4
    assert data.skipped_files == []


def test_three_percent_of_corrupt_files_are_reported_once_each_and_never_loaded(flowers, error_of):
    files = sorted((flowers.root / "flowers17" / "train").glob("*/*.jpg"))
    random = np.random.RandomState(0)
    corrupt = [files[index] for index in random.choice(len(files), size=21, replace=False)]
    for number, path in enumerate(corrupt):
        content = path.read_bytes()
        if number % 3 == 0:
            path.write_bytes(content[: random.randint(1, len(content) * 9 // 10)])
        elif number % 3 == 1:
            path.write_bytes(b"" if number % 2 else b"text\n" * 30)
        else:
            Image.new("RGB", (1, 1)).save(path)
    odd = [path for path in files if path not in corrupt][:4]
    for path, mode in zip(odd, ("CMYK", "L", "CMYK", "L"), strict=True):
        Image.open(path).convert(mode).save(path)

    data = load_data(flowers, AugmentOptions(flip=True, crop="resized"), seed=0)
    batches = TrainBatches(len(data.train), 32, 0)
    loader = DataLoader(data.train, batch_sampler=batches, num_workers=2)
    seen = 0
    for images, labels in islice(loader, 2 * batches.steps_per_epoch):
        assert images.shape == (32, 3, 64, 64) and images.isfinite().all() and labels.max() < 17
        seen += len(labels)
    empty = sum(path.stat().st_size == 0 for path in corrupt)
    assert empty == 4 and len(data.train) == 680 and seen == 2 * 21 * 32
    assert sorted(data.skipped_files) == sorted(str(path) for path in corrupt)

    strict = DataOptions(**{**vars(flowers), "on_corrupt_image": "error"})
    for path in corrupt:
        if path.stat().st_size == 0:
            path.unlink()
    whole = load_data(strict, seed=0).train
    said = error_of(DataLoader(whole, batch_sampler=TrainBatches(len(whole), 32, 0), num_workers=2))
    assert said.split()[0] in map(str, corrupt) and "\n" not in said
