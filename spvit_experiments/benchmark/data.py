"""The input pipeline: the cost of an image on one CPU core until it reaches the model, with the published augmentation, by stage.

Sides: torchvision's transforms of Pillow images, as in its reference scripts; timm's; ours with the backends pil ("ours, plain")
and tensor ("ours, fast"). All crop, mirror, vary (RandAugment, two operations of magnitude 9 of 10 with probability ½ each),
normalise and erase. All except timm draw the same random numbers, and so do the same to each image; timm has its own operations,
and interpolates where it rotates. Files: of full size, 466 × 390 pixels and 108 KB on average as in ImageNet, and downsized by
`python -m spvit_mini resize`.

    python -m spvit_experiments benchmark data
    python -m spvit_experiments benchmark data --folder data/imagenet/val

"whole" ends with a batch in main memory, as from a worker process; the tensor backend gives bytes. "whole, and the device's
part" adds what is done on the device that --device names.
"""

import dataclasses
import importlib
import io
import itertools
import random
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from spvit_mini.cli import resize
from spvit_mini.data import AugmentOptions, Key, Preprocessing, TrainTransform
from spvit_mini.data.augment import TensorTrainTransform
from spvit_mini.data.device_cache import CachedImages
from spvit_mini.data.device_transform import DeviceTransform, PartialBatch, collate
from spvit_mini.data.image_folders import list_images
from spvit_mini.data.images import InMemoryImages, read_image, read_image_tensor
from spvit_mini.errors import UserError
from spvit_mini.fields import Count, Natural, Pixels

from .measurements import Measurements
from .timing import CommonOptions, Comparison, Side, check_equal, choose_device, has_timm, run_comparisons

AUGMENT = AugmentOptions(
    flip=True, crop="resized", crop_scale=(0.08, 1.0), randaugment=(2, 27), randaugment_prob=0.5, random_erasing_prob=0.25
)
SMALL = AugmentOptions(flip=True, crop="shift", randaugment=(2, 9))  # CIFAR's recipe
FULL, JPEG, RAW = "full size", "small copies, JPEG", "small copies, uncompressed"
MIXED, MEMORY = "one beside the other", "32 px, in memory"
READ, CROP, LOOK, INPUT = "read and decode", "crop and resize", "flip and RandAugment", "normalise and erase"
COLLATE, WHOLE, MOVED = "collate", "whole", "whole, and the device's part"
TORCHVISION, TIMM, PLAIN, FAST = "torchvision, Pillow", "timm", "ours, plain", "ours, fast"
KILOBYTES, SIDES = 108, (466, 390)  # of ImageNet's files, on average


@dataclass(frozen=True)
class Options(CommonOptions):
    """Time the input pipeline."""

    threads: Natural = 1
    """CPU threads; 0: one, so that results are images per core."""
    folder: Path | None = None
    """Folder with images at any depth. None: synthetic images of the size of ImageNet's files."""
    batch_size: Count = 32
    """Images per step."""
    size: Pixels = 224
    """Side of the model's input in pixels."""
    small: Pixels = 256
    """Shorter side of the downsized images in pixels."""


@dataclass
class Pipeline:
    """A pipeline: a function for each stage of an image, for a batch, and for its way to the device."""

    read: Callable[[str], Any]
    crop: Callable[[Any], Any]
    look: Callable[[Any], Any]
    to_input: Callable[[Any], Any]
    collate: Callable[[list], list] = default_collate
    to_device: Callable[[Any, torch.device], Tensor] = lambda images, device: images.to(device)
    seeds: itertools.count = field(default_factory=itertools.count)

    def batch(self, paths: list[str]) -> Any:
        """Make a batch of images, as in a worker process."""
        images = [self.to_input(self.look(self.crop(self.read(path)))) for path in paths]
        return self.collate([(image, 0) for image in images])[0]

    def seed_step(self, step: Callable[[], Any]) -> Callable[[], Any]:
        """Seed a step differently each time, but equally in all pipelines."""

        def seeded_step() -> Any:
            seed = next(self.seeds)
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
            return step()

        return seeded_step

    def stages(self, paths: list[str]) -> dict[str, Callable[[], Any]]:
        """Make a step of each stage; its input is computed beforehand."""
        parts = {READ: self.read, CROP: self.crop, LOOK: self.look, INPUT: self.to_input}
        items, steps = list(paths), {}
        torch.manual_seed(0)
        for name, part in parts.items():
            steps[name] = self.seed_step(lambda part=part, items=items: [part(item) for item in items] and None)
            items = [part(item) for item in items]
        steps[COLLATE] = lambda: self.collate([(item, 0) for item in items])
        return steps


def open_rgb(path: str) -> Image.Image:
    """Read an image as torchvision's image folders and timm do."""
    with open(path, "rb") as file:
        return Image.open(file).convert("RGB")


def torchvision_pipeline(preprocessing: Preprocessing, augment: AugmentOptions = AUGMENT) -> Pipeline:
    """Make torchvision's pipeline of Pillow images, as in its reference scripts."""
    operations, magnitude = augment.randaugment
    one = v2.RandAugment(1, magnitude, fill=[round(255 * value) for value in preprocessing.mean])
    one = v2.RandomApply([one], p=augment.randaugment_prob) if augment.randaugment_prob < 1 else one
    crop = v2.RandomResizedCrop(
        preprocessing.image_size, augment.crop_scale, interpolation=InterpolationMode.BICUBIC, antialias=True
    )
    steps = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(preprocessing.mean, preprocessing.std)]
    if augment.random_erasing_prob:
        steps.append(v2.RandomErasing(augment.random_erasing_prob, value="random"))
    return Pipeline(open_rgb, crop, v2.Compose([v2.RandomHorizontalFlip(), *[one] * operations]), v2.Compose(steps))


def timm_pipeline(preprocessing: Preprocessing, augment: AugmentOptions = AUGMENT) -> Pipeline:
    """Make timm's pipeline, as in its training script with DeiT's options.

    Its RandAugment has a fixed magnitude, as ours; with mstd 0.5 it can ask for 0 bits, which newer Pillows refuse.
    """
    if not has_timm():
        raise UserError("timm is not installed. Install it: pip install timm")
    transform = importlib.import_module("timm.data").create_transform(
        preprocessing.image_size[0], is_training=True, interpolation="bicubic", color_jitter=None, scale=augment.crop_scale,
        mean=preprocessing.mean, std=preprocessing.std, hflip=0.5 * augment.flip,
        re_prob=augment.random_erasing_prob, re_mode="pixel",
        auto_augment="rand-m9-inc1" if augment.randaugment[0] else None,
    )  # fmt: skip
    names = [type(step).__name__ for step in transform.transforms]
    first = names.index("MaybeToTensor")
    crop, *look = transform.transforms[:first]
    return Pipeline(open_rgb, crop, v2.Compose(look or [v2.Identity()]), v2.Compose(transform.transforms[first:]))


def pil_pipeline(preprocessing: Preprocessing, augment: AugmentOptions = AUGMENT) -> Pipeline:
    """Make our pipeline with the backend pil."""
    transform = TrainTransform(augment, preprocessing)

    def crop(image: Image.Image) -> tuple[Image.Image, bool]:
        image, _, is_flipped = transform.draw_crop(image)
        return image, is_flipped

    def look(item: tuple[Image.Image, bool]) -> Image.Image:
        image, is_flipped = item
        return transform.apply_operations(functional.horizontal_flip(image) if is_flipped else image)

    def to_input(image: Image.Image) -> Tensor:
        image = transform.normalize(image)
        return transform.erase(image) if transform.erase else image

    return Pipeline(read_image, crop, look, to_input)


def tensor_pipeline(preprocessing: Preprocessing, augment: AugmentOptions = AUGMENT) -> Pipeline:
    """Make our pipeline with the backend tensor; the device normalises, and does most of erasing."""
    transform = TensorTrainTransform(augment, preprocessing)

    def crop(image: Tensor) -> tuple[Tensor, bool]:
        image, _, is_flipped = transform.draw_crop(image)
        return image, is_flipped

    def look(item: tuple[Tensor, bool]) -> tuple[Tensor, bool]:
        return transform.flip_and_apply_operations(*item)

    def to_input(item: tuple[Tensor, bool]) -> PartialBatch:
        return transform.draw_erasing(*item)

    return Pipeline(read_image_tensor, crop, look, to_input, collate, to_device=DeviceTransform(preprocessing))


PIPELINES = {TORCHVISION: torchvision_pipeline, TIMM: timm_pipeline, PLAIN: pil_pipeline, FAST: tensor_pipeline}


def build_pipelines(preprocessing: Preprocessing, augment: AugmentOptions = AUGMENT) -> dict[str, Pipeline]:
    """Build all pipelines, timm's if it is installed."""
    return {name: make(preprocessing, augment) for name, make in PIPELINES.items() if name != TIMM or has_timm()}


def check_pipelines(paths: list[str], preprocessing: Preprocessing) -> None:
    """Check that our pipelines give the same as torchvision's for the same random numbers.

    The backend pil is equal within 1e-6. The backend tensor resizes with torch's filter: 99 % of all values are within one
    level of Pillow's before RandAugment, and 90 % after it, because equalising turns one level into many.
    """
    for augment, least in ((dataclasses.replace(AUGMENT, randaugment=(0, 0)), 0.99), (AUGMENT, 0.9)):
        batches = {}
        for name, pipeline in build_pipelines(preprocessing, augment).items():
            if name != TIMM:
                batch = pipeline.seed_step(lambda pipeline=pipeline: pipeline.batch(paths))()
                batches[name] = pipeline.to_device(batch, torch.device("cpu"))
        check_equal({name: batches[name] for name in (TORCHVISION, PLAIN)}, rtol=0, atol=1e-6)
        level = 1.01 / 255 / min(preprocessing.std)
        share = ((batches[FAST] - batches[PLAIN]).abs() <= level).float().mean().item()
        if share < least:
            raise AssertionError(f"{FAST} is not {PLAIN}: only {share:.1%} of all values are within one level")


def make_photograph(seed: int) -> bytes:
    """Make a JPEG file of the size of ImageNet's: noise with the spectrum of natural images."""
    generator = np.random.RandomState(seed)
    width, height = (round(side * generator.uniform(0.8, 1.2)) for side in SIDES)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    spectrum = np.fft.fft2(generator.normal(size=(3, height, width))) / np.maximum(np.hypot(rows, columns), 1 / width) ** 1.2
    noise = np.fft.ifft2(spectrum).real
    pixels = 128 + 50 * noise / noise.std(axis=(1, 2), keepdims=True)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
    target = KILOBYTES * 1000 * width * height / (SIDES[0] * SIDES[1])
    for quality in range(95, 40, -3):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if file.tell() <= target:
            break
    return file.getvalue()


def make_files(options: Options, folder: Path) -> dict[str, list[str]]:
    """Write the images and their downsized copies; returns the paths by kind."""
    full = folder / "full"
    full.mkdir()
    if options.folder is None:
        contents = [make_photograph(seed) for seed in range(options.batch_size)]
    else:
        paths = [path for path, _ in list_images(options.folder)] if options.folder.is_dir() else []
        if len(paths) < (count := options.batch_size):
            raise UserError(f"{options.folder} has {len(paths)} images; expected at least {count}. Use a smaller --batch-size.")
        contents = [Path(path).read_bytes() for path in paths[:: len(paths) // count][:count]]
    for number, content in enumerate(contents):
        (full / f"{number:04}.jpg").write_bytes(content)
    kinds = {FULL: sorted(map(str, full.iterdir()))}
    for name, ending in ((JPEG, ".jpg"), (RAW, ".ppm")):
        copies = [folder / ending[1:] / Path(path).with_suffix(ending).name for path in kinds[FULL]]
        for path, copy in zip(kinds[FULL], copies, strict=True):
            resize.resize(Path(path), copy, size=options.small, quality=resize.Arguments.quality)
        kinds[name] = list(map(str, copies))
    return kinds


def in_memory(options: Options) -> dict[str, Side]:
    """Build the sides of a dataset like CIFAR: Pillow images one by one, the backend pil, and the cache on the device."""
    device, count = choose_device(options), 4 * options.batch_size
    generator = np.random.RandomState(0)
    pixels = torch.from_numpy(generator.randint(0, 256, (count, 3, 32, 32), dtype=np.uint8))
    source = InMemoryImages(pixels, torch.zeros(count, dtype=torch.int64), ["a"])
    preprocessing = Preprocessing((32, 32))
    common = torchvision_pipeline(preprocessing, SMALL)
    shift = v2.RandomCrop(32, padding=4, padding_mode="reflect")
    pil_transform, cached = TrainTransform(SMALL, preprocessing), CachedImages(source, SMALL, preprocessing, seed=0)
    arrays, epochs = source.images.permute(0, 2, 3, 1).contiguous().numpy(), itertools.count()

    def one_by_one() -> Tensor:
        images = [common.to_input(common.look(shift(Image.fromarray(array)))) for array in arrays]
        return default_collate(images).to(device)

    def together() -> Tensor:
        epoch = next(epochs)
        return cached.to_device(cached.draw_params([Key(epoch, index) for index in range(count)]), device)

    def with_pil() -> Tensor:
        return default_collate([pil_transform(image) for image in source.images]).to(device)

    steps = {TORCHVISION: one_by_one, PLAIN: with_pil, FAST: together}
    return {name: Side(step, images=count, memory=False) for name, step in steps.items()}


def list_comparisons(options: Options, kinds: dict[str, list[str]], device: torch.device) -> list[Comparison]:
    """List the comparisons: each stage for each kind of files, wholes, and downsized beside full-size files."""
    preprocessing = Preprocessing((options.size, options.size))

    def stage(name: str, paths: list[str]) -> dict[str, Side]:
        steps = {key: pipeline.stages(paths)[name] for key, pipeline in build_pipelines(preprocessing).items()}
        return {key: Side(step, images=len(paths), memory=False) for key, step in steps.items()}

    def whole(paths: list[str], *, moved: bool) -> dict[str, Side]:
        sides = {}
        for name, pipeline in build_pipelines(preprocessing).items():
            def step(pipeline=pipeline) -> Any:
                batch = pipeline.batch(paths)
                return pipeline.to_device(batch, device) if moved else batch

            sides[name] = Side(pipeline.seed_step(step), images=len(paths), memory=False)
        return sides

    def beside_full(*, moved: bool) -> dict[str, Side]:
        common = {f"torchvision, {kind}": whole(kinds[kind], moved=moved)[TORCHVISION] for kind in (FULL, JPEG)}
        return common | {f"ours, fast, {kind}": whole(kinds[kind], moved=moved)[FAST] for kind in kinds}

    cases = [(kind, name, lambda kind=kind, moved=name == MOVED: whole(kinds[kind], moved=moved))
             for kind in kinds for name in (WHOLE, MOVED)]  # fmt: skip
    cases += [(MIXED, name, lambda moved=name == MOVED: beside_full(moved=moved))
              for name in (WHOLE, MOVED)]  # fmt: skip
    cases += [(kind, name, lambda kind=kind, name=name: stage(name, kinds[kind]))
              for kind in kinds for name in (READ, CROP, LOOK, INPUT, COLLATE)]  # fmt: skip
    cases.append((MEMORY, MOVED, lambda: in_memory(options)))
    sizes = {"size": options.size, "batch": options.batch_size, "pictures": options.folder.name if options.folder else "made"}
    return [Comparison({"files": files, "stage": name, **sizes}, build) for files, name, build in cases]


PROMISES = (  # least ratio of images per core, second side over first side, in the comparison MIXED, WHOLE
    (f"torchvision, {FULL}", f"ours, fast, {FULL}", 1.5),
    (f"torchvision, {FULL}", f"ours, fast, {RAW}", 2.5),
    (f"torchvision, {JPEG}", f"ours, fast, {RAW}", 2.5),
)


def judge_promises(measurements: Measurements, comparisons: list[Comparison]) -> list[tuple[str, float, bool]]:
    """List the promises as (text, measured ratio, whether it holds); none if they were not measured."""
    (case,) = (c.case for c in comparisons if c.case["files"] == MIXED and c.case["stage"] == WHOLE)
    times = {row["side"]: float(row["ratio"]) for row in measurements.select([case])}
    ratios = [(f"{ours}: {least} × {common}", times[common] / times[ours], least) for common, ours, least in PROMISES if times]
    return [(text, ratio, ratio >= least) for text, ratio, least in ratios]


def main(options: Options) -> int:
    """Run this part of the benchmark; returns the exit status."""
    if options.quick:
        options = dataclasses.replace(options, batch_size=4, size=64, small=80, rounds=min(options.rounds, 3))
    threads = torch.get_num_threads()
    options = dataclasses.replace(options, threads=options.threads or 1)
    device = choose_device(options)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        kinds = make_files(options, Path(folder))
        check_pipelines(kinds[FULL], Preprocessing((options.size, options.size)))
        comparisons = list_comparisons(options, kinds, device)
        measurements = run_comparisons("benchmark_data", comparisons, options, title="Input", draw=False)
    torch.set_num_threads(threads)
    for text, ratio, holds in judge_promises(measurements, comparisons):
        print(f"{'holds' if holds else 'DOES NOT HOLD':<14} {ratio:6.2f} ×   {text}")
    return 0
