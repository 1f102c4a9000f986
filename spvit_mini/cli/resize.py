"""Write a downsized copy of a dataset in an ImageFolder directory, so that large images are decoded once and not in each epoch.

    python -m spvit_mini resize data/flowers17-256 data/flowers17-80 --size 80
    python -m spvit_mini resize /photos/tree data/tree --size 256 --on-corrupt-image skip
    python -m spvit_mini resize /photos/tree data/tree --size 256 --format ppm

The shorter side becomes --size pixels and the aspect ratio stays; a smaller image is copied unchanged. Folders, names, classes
and splits stay. JPEG files stay JPEG files, all others become PNG files. With --format ppm all become uncompressed files, which
need no decoding (with --data.backend tensor), lose nothing and are about six times as large as JPEG files. Pixels are read as in
training: always RGB, EXIF rotation not applied. Choose a size slightly larger than the training resolution, for random crops.

If the program is interrupted, or the source has changed, the same command resumes: it skips the copies of images that have not
changed since, and removes the copies of images that are gone. Files that it has not written are never replaced or removed.
"""

import itertools
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Annotated, Literal

from PIL import Image
from tqdm import tqdm
from tyro.conf import Positional

from ..data.image_folders import ANNOTATIONS, EXTENSIONS, list_images
from ..data.images import CorruptImageError, read_image
from ..errors import UserError
from ..fields import Pixels, Range, Workers
from ..files import atomic_write, write_text
from ..training.progress import count_cores
from .arguments import Program

PROGRAM = Program("python -m spvit_mini resize", __doc__)
RECORD = "resized.json"  # in the folder of the copy: its source, options and files
SPLITS = ("val", "test")  # that may have annotations
JPEG = (".jpg", ".jpeg")
SAME_SUFFIX = (*JPEG, ".png")  # files with these suffixes keep their names
CLOCK = 2.0  # seconds: the coarsest resolution of modification times on a file system


@dataclass(frozen=True)
class Arguments:
    """Source, copy, and the size of the copy."""

    folders: Positional[tuple[Path, ...]] = ()
    """The ImageFolder directory, and the folder for its copy."""
    size: Pixels = 256
    """Shorter side of the copies, in pixels."""
    quality: Annotated[int, Range(1, 100)] = 95
    """JPEG quality, 1 to 100."""
    format: Literal["keep", "ppm"] = "keep"
    """keep: JPEG files stay JPEG, others become PNG; ppm: uncompressed, the fastest to read (--data.backend tensor)."""
    on_corrupt_image: Literal["error", "skip"] = "error"
    """What to do with a corrupt image file: error stops and names it; skip names it and leaves it out."""
    workers: Workers = 0
    """Number of threads; 0: one per processor core."""


def main(argv: list[str]) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    arguments = PROGRAM.parse(argv, Arguments())
    if len(arguments.folders) != 2:
        raise UserError(f"the number of folders is {len(arguments.folders)}; expected two: {PROGRAM} FOLDER COPY --size 256")
    source, copy = arguments.folders
    check_folders(source, copy)
    copies = list_copies(source, copy, suffix=".ppm" if arguments.format == "ppm" else None)
    gone = write_record(source, copy, arguments, copies)

    counts: Counter[str] = Counter()
    corrupt: list[str] = []
    with (
        closing(tqdm(total=len(copies), desc=str(copy), unit=" images", disable=None)) as bar,
        closing(write_copies(copies, arguments)) as results,
    ):
        for path, result in results:
            if isinstance(result, CorruptImageError):
                if arguments.on_corrupt_image == "error":
                    raise UserError(f"{path} {result}; replace or remove it, or use --on-corrupt-image skip")
                bar.write(f"skipped: {path} {result}", file=sys.stderr)
                corrupt.append(str(path))
            else:
                counts[result] += 1
            bar.update()
    copy_annotations(source, copy)
    images = list_images(copy)
    size, foreign = sum(size for _, size in images), [path for path, _ in images if Path(path) not in copies]
    print(
        f"{copy}: {counts.total():,} images of {size / 1e6:,.1f} MB, {counts['resized']:,} resized now, "
        f"{counts['copied']:,} copied unchanged, {counts['there']:,} there already"
    )
    if gone:
        print(f"{len(gone):,} files were removed, because their images left {source}, {gone[0]} first")
    if foreign:
        print(f"{len(foreign):,} images are of no image in {source} and were not written now, {foreign[0]} first; they are kept")
    if corrupt:
        print(f"{len(corrupt)} corrupt image files were skipped, {sorted(corrupt)[0]} first")
    return 0


def check_folders(source: Path, copy: Path) -> None:
    """Raise UserError unless the source is a folder and the copy is outside it."""
    if not source.is_dir():
        raise UserError(f"{source} is not a folder; expected an ImageFolder directory, such as data/NAME")
    there, here = source.resolve(), copy.resolve()
    if here == there or there in here.parents:
        raise UserError(f"{copy} is inside {source}; use a folder outside it for the copy")
    if here in there.parents:
        raise UserError(f"{copy} holds {source}; use another folder for the copy")
    if copy.exists() and not copy.is_dir():
        raise UserError(f"{copy} is a file; expected a folder for the copy")


def list_copies(source: Path, copy: Path, *, suffix: str | None) -> dict[Path, Path]:
    """List the copies of all images of a directory, with another suffix if one is given: path of the copy → image.

    Raises UserError if there are no images, or if two images would get the same name.
    """
    images = [Path(path) for path, _ in list_images(source)]
    if not images:
        raise UserError(f"{source} holds no images ({', '.join(EXTENSIONS[:4])}, …); expected {source}/{{train,val}}/CLASS/*.jpg")
    sources: dict[Path, Path] = {}
    for path in images:
        name = copy / path.relative_to(source)
        if suffix or name.suffix.lower() not in SAME_SUFFIX:
            name = name.with_suffix(suffix or ".png")
        if name in sources:
            raise UserError(f"{sources[name]} and {path} would both become {name}; rename one of them")
        sources[name] = path
    return sources


def write_record(source: Path, copy: Path, arguments: Arguments, images: Iterable[Path]) -> list[str]:
    """Create the folder of a copy with its record, or check that it holds the same copy; remove what has left the source.

    The record lists the files of the copy before they are written: only these are ever replaced or removed. Returns the names
    of those that were removed. Raises UserError for another copy, and for a file in the place of an image.
    """
    options = {name: getattr(arguments, name) for name in ("size", "quality", "format")}
    wanted, record = {"source": str(source.resolve()), **options}, copy / RECORD
    annotations = [copy / split / ANNOTATIONS for split in SPLITS if (source / split / ANNOTATIONS).is_file()]
    names = [str(path.relative_to(copy)) for path in (*images, *annotations)]
    try:
        if not copy.is_dir() or not any(copy.iterdir()):
            copy.mkdir(parents=True, exist_ok=True)
            write_text(record, json.dumps(wanted | {"files": names}, indent=1) + "\n")
        earlier = {"format": "keep"} | json.loads(record.read_text(encoding="utf-8-sig"))  # early records have no format
        before = set(map(str, earlier.get("files", names)))  # nor files
    except FileNotFoundError:
        raise UserError(f"{copy} holds files, but no {RECORD} of a copy; use a new folder") from None
    except (ValueError, TypeError):
        raise UserError(f"{record} cannot be read; remove {copy}, or use another folder") from None
    except OSError as error:
        raise UserError(f"cannot write into {copy}: {error.strerror}; use another folder") from None
    differ = [f"{name} {earlier.get(name)}, not {value}" for name, value in wanted.items() if earlier.get(name) != value]
    if differ:
        raise UserError(f"{copy} was written with {', '.join(differ)}; use another folder for this copy, or remove that one")
    if foreign := next((name for name in names if name not in before and (copy / name).exists()), None):
        raise UserError(f"{copy / foreign} was not written by this program, but would be replaced; move it elsewhere")
    gone = [name for name in sorted(before - set(names)) if remove_copy(copy, name)]
    if before != set(names) or "files" not in earlier:
        write_text(record, json.dumps(wanted | {"files": names}, indent=1) + "\n")
    return gone


def remove_copy(copy: Path, name: str) -> bool:
    """Remove a file of a copy, and its folders if they are empty then; returns whether it was there."""
    path, folder = copy / name, copy.resolve()
    parent = path.parent.resolve()
    if not parent.is_relative_to(folder) or not parent.is_dir():
        return False
    was_there = path.is_file()
    for file in (path, path.with_name(f"{path.name}.tmp")):  # the second of a program that was killed
        if file.is_file():
            file.unlink()
    while parent != folder and not any(parent.iterdir()):
        parent.rmdir()
        parent = parent.parent
    return was_there


def write_copies(copies: dict[Path, Path], arguments: Arguments) -> Generator[tuple[Path, str | CorruptImageError]]:
    """Write copies in threads, in any order (Pillow releases Python's lock), and yield (image, result) for each.

    Closing the iterator starts no further copies.
    """

    def work(item: tuple[Path, Path]) -> tuple[Path, str | CorruptImageError]:
        copy, source = item
        try:
            return source, resize(source, copy, size=arguments.size, quality=arguments.quality)
        except CorruptImageError as reason:
            if arguments.on_corrupt_image == "skip":
                copy.unlink(missing_ok=True)  # of the image before it was damaged
            return source, reason

    workers = arguments.workers or count_cores()
    remaining, pool = iter(copies.items()), ThreadPool(workers)
    try:
        while chunk := list(itertools.islice(remaining, 1000 * workers)):  # a million waiting tasks would fill the memory
            yield from pool.imap_unordered(work, chunk)
    finally:
        pool.terminate()
        pool.join()  # a thread finishes its current file, or removes it


def resize(source: Path, copy: Path, *, size: int, quality: int) -> str:
    """Write the copy of one image, with the modification time of the source.

    Returns "there" if the copy exists already, "copied" if the file is copied unchanged, else "resized". Raises
    CorruptImageError as `read_image` does, and UserError if a file cannot be read or written.
    """
    try:
        status = os.stat(source)
        if copy.exists() and abs(copy.stat().st_mtime - status.st_mtime) < CLOCK:
            return "there"
    except OSError as error:
        read_image(source)  # names a link to no file as such
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from None
    image = read_image(source)
    same = min(image.size) <= size and source.suffix == copy.suffix
    if min(image.size) > size:
        image = image.resize(scale_sides(image.size, size), Image.Resampling.BICUBIC)
    image.info.clear()  # a colour profile is of the pixels in the file
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {copy.parent}: {error.strerror}") from None
    with atomic_write(copy) as temporary:
        if same:
            shutil.copyfile(source, temporary)
        elif copy.suffix.lower() in JPEG:
            # No chroma subsampling, because it would halve the resolution of colours in a small image.
            image.save(temporary, "JPEG", quality=quality, subsampling=0, optimize=True)
        else:
            image.save(temporary, "PPM" if copy.suffix == ".ppm" else "PNG")
        os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
    return "copied" if same else "resized"


def scale_sides(sides: tuple[int, int], size: int) -> tuple[int, int]:
    """Compute width and height of an image whose shorter side becomes `size`; the longer side is rounded."""
    width, height = (size if side == min(sides) else round(side * size / min(sides)) for side in sides)
    return width, height


def copy_annotations(source: Path, copy: Path) -> None:
    """Copy the files with the classes of Tiny ImageNet's validation images."""
    for split in SPLITS:
        if (source / split / ANNOTATIONS).is_file() and (copy / split).is_dir():
            with atomic_write(copy / split / ANNOTATIONS) as temporary:
                shutil.copyfile(source / split / ANNOTATIONS, temporary)
