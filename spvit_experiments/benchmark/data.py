"""The input: what an image costs a processor core on its way to the model, with the published augmentation, stage by stage.

Sides: torchvision's transforms of Pillow images, as in its reference scripts; timm's; our plain way and our fast one. All cut
out, mirror, vary (RandAugment, two operations of magnitude 9 of 10 with chance ½ each), normalise and erase. All but timm draw
the same numbers, and so do the same to each image; timm has operations of its own, and interpolates where it turns an image.
Files: of full size, 466 × 390 pixels and 108 KB on average, as ImageNet's are, and small copies by `spvit_mini.cli.resize`.

    python -m spvit_experiments benchmark data
    python -m spvit_experiments benchmark data --folder data/imagenet/val

"whole" ends with a batch in the main memory, as a worker process hands it over; on the fast way that is one of bytes.
"whole, and the device's part" is with what is then still to be done, on the device that --device names.
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
from spvit_mini.data import AugmentOptions, Preprocessing, training_transform
from spvit_mini.data.device_cache import Kept
from spvit_mini.data.images import Pixels, images_below, read_image, read_pixels
from spvit_mini.data.sampler import Key
from spvit_mini.data.tensor_backend import Begun, Finish, Unfinished, collate
from spvit_mini.errors import UserError

from .timing import Comparison, Record, Side, choose_device, has_timm, run, same
from .timing import Options as Common

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
class Options(Common):
    """Time the input pipeline."""

    threads: int = 1
    """Threads on a CPU; 0 and 1: one, so that what is measured is images per core."""
    folder: Path | None = None
    """A folder with photographs at any depth. Default: made ones, of the size of ImageNet's files."""
    batch: int = 32
    """Images a step."""
    size: int = 224
    """Side of the model's input in pixels."""
    small: int = 256
    """The shorter side of the small copies."""


@dataclass
class Way:
    """A pipeline: what each stage makes of an image, the last of a batch; the others' work is `collate` and a copy."""

    read: Callable[[str], Any]
    crop: Callable[[Any], Any]
    look: Callable[[Any], Any]
    to_input: Callable[[Any], Any]
    collate: Callable[[list], list] = default_collate
    arrive: Callable[[Any, torch.device], Tensor] = lambda images, device: images.to(device)
    seeds: itertools.count = field(default_factory=itertools.count)

    def batch(self, paths: list[str]) -> Any:
        """Make a batch of images: as a worker process hands it over."""
        images = [self.to_input(self.look(self.crop(self.read(path)))) for path in paths]
        return self.collate([(image, 0) for image in images])[0]

    def seeded(self, step: Callable[[], Any]) -> Callable[[], Any]:
        """Give a step other draws each time it is made, but the same as on all other ways."""

        def drawn() -> Any:
            seed = next(self.seeds)
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
            return step()

        return drawn

    def stages(self, paths: list[str]) -> dict[str, Callable[[], Any]]:
        """Give each stage as a step of its own; what goes into it is made beforehand."""
        parts = {READ: self.read, CROP: self.crop, LOOK: self.look, INPUT: self.to_input}
        given, steps = list(paths), {}
        torch.manual_seed(0)
        for name, part in parts.items():
            steps[name] = self.seeded(lambda part=part, given=given: [part(one) for one in given] and None)
            given = [part(one) for one in given]
        steps[COLLATE] = lambda: self.collate([(one, 0) for one in given])
        return steps


def open_rgb(path: str) -> Image.Image:
    """Read an image as torchvision's image folders and timm do."""
    with open(path, "rb") as file:
        return Image.open(file).convert("RGB")


def torchvision_way(preprocessing: Preprocessing, augment: AugmentOptions = AUGMENT) -> Way:
    """Make the common pipeline of Pillow images: the transforms of torchvision's reference scripts."""
    operations, magnitude = augment.randaugment
    one = v2.RandAugment(1, magnitude, fill=[round(255 * value) for value in preprocessing.mean])
    one = v2.RandomApply([one], p=augment.randaugment_prob) if augment.randaugment_prob < 1 else one
    crop = v2.RandomResizedCrop(
        preprocessing.image_size, augment.crop_scale, interpolation=InterpolationMode.BICUBIC, antialias=True
    )
    steps = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(preprocessing.mean, preprocessing.std)]
    if augment.random_erasing_prob:
        steps.append(v2.RandomErasing(augment.random_erasing_prob, value="random"))
    return Way(open_rgb, crop, v2.Compose([v2.RandomHorizontalFlip(), *[one] * operations]), v2.Compose(steps))


def timm_way(preprocessing: Preprocessing, augment: AugmentOptions = AUGMENT) -> Way:
    """Make timm's pipeline, as its training script does with DeiT's options.

    Its RandAugment has a fixed level, as ours; with mstd 0.5 it can ask for 0 bits, which newer Pillows refuse.
    """
    if not has_timm():
        raise UserError("timm is not there: pip install timm")
    transform = importlib.import_module("timm.data").create_transform(
        preprocessing.image_size[0], is_training=True, interpolation="bicubic", color_jitter=None, scale=augment.crop_scale,
        mean=preprocessing.mean, std=preprocessing.std, hflip=0.5 * augment.flip, re_prob=augment.random_erasing_prob, re_mode="pixel",
        auto_augment="rand-m9-inc1" if augment.randaugment[0] else None,
    )  # fmt: skip
    names = [type(step).__name__ for step in transform.transforms]
    first = names.index("MaybeToTensor")
    crop, *look = transform.transforms[:first]
    return Way(open_rgb, crop, v2.Compose(look or [v2.Identity()]), v2.Compose(transform.transforms[first:]))


def plain_way(preprocessing: Preprocessing, augment: AugmentOptions = AUGMENT) -> Way:
    """Make our plain pipeline, in stages."""
    varied = training_transform(augment, preprocessing)

    def crop(image: Image.Image) -> tuple[Image.Image, bool]:
        image, _, mirrored = varied.framed(image)
        return image, mirrored

    def look(item: tuple[Image.Image, bool]) -> Image.Image:
        image, mirrored = item
        return varied.looked(functional.horizontal_flip(image) if mirrored else image)

    def to_input(image: Image.Image) -> Tensor:
        image = varied.to_input(image)
        return varied.erasing(image) if varied.erasing else image

    return Way(read_image, crop, look, to_input)


def fast_way(preprocessing: Preprocessing, augment: AugmentOptions = AUGMENT) -> Way:
    """Make our fast pipeline, in stages; normalising and most of erasing are the device's part."""
    begun = training_transform(augment, preprocessing, kind=Begun)

    def crop(image: Tensor) -> tuple[Tensor, bool]:
        image, _, mirrored = begun.framed(image)
        return image, mirrored

    def look(item: tuple[Tensor, bool]) -> tuple[Tensor, bool]:
        return begun.turned(*item)

    def to_input(item: tuple[Tensor, bool]) -> Unfinished:
        return begun.unfinished(*item)

    return Way(read_pixels, crop, look, to_input, collate, arrive=Finish(preprocessing))


MODES = {TORCHVISION: torchvision_way, TIMM: timm_way, PLAIN: plain_way, FAST: fast_way}


def ways(preprocessing: Preprocessing, augment: AugmentOptions = AUGMENT) -> dict[str, Way]:
    """Make all pipelines, timm's if it is installed."""
    return {name: make(preprocessing, augment) for name, make in MODES.items() if name != TIMM or has_timm()}


def check(paths: list[str], preprocessing: Preprocessing) -> None:
    """Check that torchvision's way, and our two, make the same of the same draws.

    The plain way to the last bit. The fast way resizes by torch's filter: but for a hundredth of all values within one level
    of Pillow's, compared before RandAugment, whose equalising makes many levels of one; behind it, most of them.
    """
    for augment, least in ((dataclasses.replace(AUGMENT, randaugment=(0, 0)), 0.99), (AUGMENT, 0.9)):
        made = ways(preprocessing, augment)
        made.pop(TIMM, None)
        found = {name: way.arrive(way.seeded(lambda way=way: way.batch(paths))(), torch.device("cpu"))
                 for name, way in made.items()}  # fmt: skip
        same({name: found[name] for name in (TORCHVISION, PLAIN)}, rtol=0, atol=1e-6)
        level = 1.01 / 255 / min(preprocessing.std)
        near = ((found[FAST] - found[PLAIN]).abs() <= level).float().mean().item()
        if near < least:
            raise AssertionError(f"{FAST} is not {PLAIN}: only {near:.1%} of all values are within one level")


def photograph(seed: int) -> bytes:
    """Make a JPEG file of the size of ImageNet's: noise that is the stronger the coarser it is, as in photographs."""
    draw = np.random.RandomState(seed)
    width, height = (round(side * draw.uniform(0.8, 1.2)) for side in SIDES)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    spectrum = np.fft.fft2(draw.normal(size=(3, height, width))) / np.maximum(np.hypot(rows, columns), 1 / width) ** 1.2
    noise = np.fft.ifft2(spectrum).real
    pixels = 128 + 50 * noise / noise.std(axis=(1, 2), keepdims=True)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
    wanted = KILOBYTES * 1000 * width * height / (SIDES[0] * SIDES[1])
    for quality in range(95, 40, -3):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if file.tell() <= wanted:
            break
    return file.getvalue()


def make_files(options: Options, folder: Path) -> dict[str, list[str]]:
    """Lay out the photographs and their small copies; gives the paths of each kind."""
    full = folder / "full"
    full.mkdir()
    if options.folder is None:
        contents = [photograph(seed) for seed in range(options.batch)]
    else:
        paths = [path for path, _ in images_below(options.folder)] if options.folder.is_dir() else []
        if len(paths) < options.batch:
            raise UserError(f"{options.folder} has {len(paths)} images, but a batch takes {options.batch}; see --folder, --batch-size")
        contents = [Path(path).read_bytes() for path in paths[:: len(paths) // options.batch][: options.batch]]
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
    """Build the sides of a set as small as CIFAR: Pillow images one by one, our plain way, and what stays on the device."""
    device, count = choose_device(options), 4 * options.batch
    draw = np.random.RandomState(0)
    source = Pixels(
        torch.from_numpy(draw.randint(0, 256, (count, 3, 32, 32), dtype=np.uint8)), torch.zeros(count, dtype=torch.int64), ["a"]
    )
    preprocessing = Preprocessing((32, 32))
    common = torchvision_way(preprocessing, SMALL)
    shift = v2.RandomCrop(32, padding=4, padding_mode="reflect")
    plain, kept = training_transform(SMALL, preprocessing), Kept(source, SMALL, preprocessing, seed=0)
    arrays, epochs = source.images.permute(0, 2, 3, 1).contiguous().numpy(), itertools.count()

    def one_by_one() -> Tensor:
        images = [common.to_input(common.look(shift(Image.fromarray(array)))) for array in arrays]
        return default_collate(images).to(device)

    def together() -> Tensor:
        epoch = next(epochs)
        return kept.finish(kept.drawn([Key(epoch, index) for index in range(count)]), device)

    steps = {TORCHVISION: one_by_one, PLAIN: lambda: default_collate([plain(image) for image in source.images]).to(device),
             FAST: together}  # fmt: skip
    return {name: Side(step, images=count, memory=False) for name, step in steps.items()}


def comparisons(options: Options, kinds: dict[str, list[str]], device: torch.device) -> list[Comparison]:
    """List what is compared: each stage for each kind of files, wholes, and small copies beside full-size files."""
    preprocessing = Preprocessing((options.size, options.size))

    def stage(name: str, paths: list[str]) -> dict[str, Side]:
        steps = {key: way.stages(paths)[name] for key, way in ways(preprocessing).items()}
        return {key: Side(step, images=len(paths), memory=False) for key, step in steps.items()}

    def whole(paths: list[str], *, moved: bool) -> dict[str, Side]:
        found = {}
        for name, way in ways(preprocessing).items():
            def step(way=way) -> Any:
                batch = way.batch(paths)
                return way.arrive(batch, device) if moved else batch

            found[name] = Side(way.seeded(step), images=len(paths), memory=False)
        return found

    def beside_full(*, moved: bool) -> dict[str, Side]:
        common = {f"torchvision, {kind}": whole(kinds[kind], moved=moved)[TORCHVISION] for kind in (FULL, JPEG)}
        return common | {f"ours, fast, {kind}": whole(kinds[kind], moved=moved)[FAST] for kind in kinds}

    asked = [(kind, name, lambda kind=kind, moved=name == MOVED: whole(kinds[kind], moved=moved))
             for kind in kinds for name in (WHOLE, MOVED)]  # fmt: skip
    asked += [(MIXED, name, lambda moved=name == MOVED: beside_full(moved=moved))
              for name in (WHOLE, MOVED)]  # fmt: skip
    asked += [(kind, name, lambda kind=kind, name=name: stage(name, kinds[kind]))
              for kind in kinds for name in (READ, CROP, LOOK, INPUT, COLLATE)]  # fmt: skip
    asked.append((MEMORY, MOVED, lambda: in_memory(options)))
    sizes = {"size": options.size, "batch": options.batch, "pictures": options.folder.name if options.folder else "made"}
    return [Comparison({"files": files, "stage": name, **sizes}, build) for files, name, build in asked]


PROMISES = (  # images per core of the second side, as a multiple of the first's, in the comparison MIXED, WHOLE
    (f"torchvision, {FULL}", f"ours, fast, {FULL}", 1.5),
    (f"torchvision, {FULL}", f"ours, fast, {RAW}", 2.5),
    (f"torchvision, {JPEG}", f"ours, fast, {RAW}", 2.5),
)


def verdicts(record: Record, asked: list[Comparison]) -> list[dict[str, Any]]:
    """Set what is promised beside what was measured: dictionaries of says, found, holds; none if it was not measured."""
    (case,) = (c.case for c in asked if c.case["files"] == MIXED and c.case["stage"] == WHOLE)
    ratios = {row["side"]: float(row["ratio"]) for row in record.of([case])}
    lines = []
    for common, ours, least in PROMISES if ratios else ():
        found = ratios[common] / ratios[ours]
        lines.append({"says": f"{ours}: {least} × {common}", "found": found, "holds": found >= least})
    return lines


def main(options: Options) -> int:
    """Run this part of the benchmark; returns the exit status."""
    if options.batch < 1 or options.size < 1 or options.small < 1:
        raise UserError("--batch-size, --size and --small must be at least 1")
    if options.quick:
        options = dataclasses.replace(options, batch=4, size=64, small=80, rounds=min(options.rounds, 3))
    threads = torch.get_num_threads()
    options = dataclasses.replace(options, threads=options.threads or 1)
    device = choose_device(options)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        kinds = make_files(options, Path(folder))
        check(kinds[FULL], Preprocessing((options.size, options.size)))
        asked = comparisons(options, kinds, device)
        record = run("benchmark_data", asked, options, title="Input", draw=False)
    torch.set_num_threads(threads)
    for line in verdicts(record, asked):
        print(f"{'holds' if line['holds'] else 'DOES NOT HOLD':<14} {line['found']:6.2f} ×   {line['says']}")
    return 0
