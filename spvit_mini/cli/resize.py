"""Make a small copy of an image tree: large photographs are decoded once, and not in each epoch anew.

    python -m spvit_mini resize data/flowers17-256 data/flowers17-80 --size 80
    python -m spvit_mini resize /photos/tree data/tree --size 256 --on-bad-image skip
    python -m spvit_mini resize /photos/tree data/tree --size 256 --format ppm

The shorter side becomes --size, the shape stays; what is no larger is copied as it is. Folders and names stay too, and so
do classes and parts. JPEG files stay JPEG files, all others become PNG files; with --format ppm all become uncompressed
files, which need no decoding (with --data.backend tensor), lose nothing more, and take some six times the space of JPEG
files. Pixels are read as training reads them: always RGB, rotation marks (EXIF) not applied. Take a size a little over the
one trained at, so that crops can vary.

Stopped, the same command goes on: it leaves the copies that are there of images that have not changed since.
"""

import itertools
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Annotated, Literal

import tyro
from PIL import Image
from tqdm import tqdm

from ..data.image_folders import ANNOTATIONS
from ..data.images import ENDINGS, BadImage, images_below, read_image
from ..errors import UserError
from ..training.checkpoint import replacing
from ..training.progress import cores
from .arguments import parse
from .program import run_program

PROGRAM = "python -m spvit_mini resize"
RECORD = "resized.json"  # in the copy's folder: what it is a copy of
JPEG = (".jpg", ".jpeg")
KEPT = (*JPEG, ".png")  # files of these endings keep their names
CLOCK = 2.0  # seconds to which every file system knows when a file was changed


@dataclass(frozen=True)
class Arguments:
    """What to copy, where to, and how large."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """The image tree, and the folder for its copy."""
    size: int = 256
    """The shorter side of the copies, in pixels."""
    quality: int = 95
    """JPEG quality, 1 to 100."""
    format: Literal["keep", "ppm"] = "keep"
    """keep: JPEG files stay such, others become PNG; ppm: uncompressed, for the fastest reading (--data.backend tensor)."""
    on_corrupt_image: Literal["error", "skip"] = "error"
    """What a file does that is broken or no image: error stops with its name; skip names it, and leaves it out."""
    workers: int = 0
    """Images that are worked on at a time; 0: one for each processor core."""


def main(argv: list[str] | None = None) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        print(__doc__.strip())
        return 0
    arguments = parse(argv, default=Arguments(), prog=PROGRAM, description="Make a small copy of an image tree.")
    if len(arguments.folders) != 2:
        raise UserError(f"two folders are needed, not {len(arguments.folders)}: {PROGRAM} TREE COPY --size 256")
    if arguments.size < 1 or not 1 <= arguments.quality <= 100 or arguments.workers < 0:
        raise UserError("--size is at least 1 pixel, --quality lies between 1 and 100, and --workers is at least 0")
    source, copy = arguments.folders
    check_folders(source, copy)
    jobs = jobs_of(source, copy, suffix=".ppm" if arguments.format == "ppm" else None)
    begin(source, copy, arguments)

    done, bad = Counter(), []
    with (
        closing(tqdm(total=len(jobs), desc=str(copy), unit=" images", disable=None)) as bar,
        closing(in_parallel(jobs, arguments, workers=arguments.workers or cores())) as results,
    ):
        for job, result in results:
            if isinstance(result, BadImage):
                if arguments.on_corrupt_image == "error":
                    cure = "replace it or remove it, or leave out such files with --on-bad-image skip"
                    raise UserError(f"{job.source} {result}; {cure}")
                bar.write(f"skipped: {job.source} {result}", file=sys.stderr)
                bad.append(str(job.source))
            else:
                done[result] += 1
            bar.update()
    copy_annotations(source, copy)
    size = sum(size for _, size in images_below(copy))
    print(
        f"{copy}: {done.total():,} images of {size / 1e6:,.1f} MB, {done['resized']:,} resized now, "
        f"{done['copied']:,} copied as they are, {done['left']:,} there already"
    )
    if bad:
        print(f"{len(bad)} bad image files were left out, {sorted(bad)[0]} first")
    return 0


@dataclass(frozen=True)
class Job:
    """An image and its copy."""

    source: Path
    copy: Path


def check_folders(source: Path, copy: Path) -> None:
    """Raise UserError unless there is a tree to copy, and its copy lies elsewhere."""
    if not source.is_dir():
        raise UserError(f"{source} is not a folder; name an image tree, such as data/NAME")
    there, here = source.resolve(), copy.resolve()
    if here == there or there in here.parents:
        raise UserError(f"{copy} lies inside {source}, and would become a part of it; name a folder elsewhere")
    if here in there.parents:
        raise UserError(f"{copy} holds {source}; name a folder of its own for the copy")
    if copy.exists() and not copy.is_dir():
        raise UserError(f"{copy} is a file; name a folder for the copy")


def jobs_of(source: Path, copy: Path, *, suffix: str | None) -> list[Job]:
    """List all images of a tree with the names of their copies, which end with `suffix` if there is one.

    Raises UserError if there is none, and if two would become one file.
    """
    try:
        found = [Path(path) for path, _ in images_below(source)]
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from None
    if not found:
        raise UserError(f"{source} holds no images ({', '.join(ENDINGS[:4])}, …); expected {source}/{{train,val}}/CLASS/*.jpg")
    taken: dict[Path, Path] = {}
    for path in found:
        name = copy / path.relative_to(source)
        if suffix or name.suffix.lower() not in KEPT:
            name = name.with_suffix(suffix or ".png")
        if name in taken:
            raise UserError(f"{taken[name]} and {path} would both become {name}; rename one of them")
        taken[name] = path
    return [Job(path, name) for name, path in taken.items()]


def begin(source: Path, copy: Path, arguments: Arguments) -> None:
    """Make the folder of a copy, or see that what is there is the same copy, begun before. Raises UserError if not."""
    wanted = {"source": str(source.resolve()), "size": arguments.size, "quality": arguments.quality}
    wanted["format"] = arguments.format
    record = copy / RECORD
    try:
        if not copy.is_dir() or not any(copy.iterdir()):
            copy.mkdir(parents=True, exist_ok=True)
            with replacing(record) as temporary:
                temporary.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
        made = {"format": "keep"} | json.loads(record.read_text(encoding="utf-8"))  # once there was no other
    except FileNotFoundError:
        raise UserError(f"{copy} holds files of others (no {RECORD} says what it is a copy of); name a new folder") from None
    except json.JSONDecodeError:
        raise UserError(f"{record} cannot be read; remove {copy}, or name another folder") from None
    except OSError as error:
        raise UserError(f"cannot write into {copy}: {error.strerror}; name another folder") from None
    differ = [f"{name} {made.get(name)}, not {value}" for name, value in wanted.items() if made.get(name) != value]
    if differ:
        raise UserError(f"{copy} was made with {', '.join(differ)}; name another folder for this copy, or remove that one")


def in_parallel(jobs: list[Job], arguments: Arguments, *, workers: int) -> Iterator[tuple[Job, str | BadImage]]:
    """Do all jobs, several at a time, in any order; closed early, it begins no more. Pillow works outside Python's lock."""

    def work(job: Job) -> tuple[Job, str | BadImage]:
        try:
            return job, resize(job.source, job.copy, size=arguments.size, quality=arguments.quality)
        except BadImage as reason:
            return job, reason

    remaining = iter(jobs)
    pool = ThreadPool(workers)
    try:
        while some := list(itertools.islice(remaining, 1000 * workers)):  # a million waiting at once would fill the memory
            yield from pool.imap_unordered(work, some)
    finally:
        pool.terminate()
        pool.join()  # who is in the middle of a file finishes it, or clears it away


def resize(source: Path, copy: Path, *, size: int, quality: int) -> str:
    """Write the copy of one image, with the time of the source's last change; says what was done.

    Returns "left" for a copy that is there already, "copied" for the file as it is, "resized". Raises BadImage as
    `read_image` does, UserError if a file cannot be read or written.
    """
    try:
        status = os.stat(source)
        if copy.exists() and abs(copy.stat().st_mtime - status.st_mtime) < CLOCK:
            return "left"
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from None
    image = read_image(source)
    same = min(image.size) <= size and source.suffix == copy.suffix
    if min(image.size) > size:
        image = image.resize(shrunk(image.size, size), Image.Resampling.BICUBIC)
    image.info.clear()  # a colour profile was made for the pixels as they stood in the file
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {copy.parent}: {error.strerror}") from None
    with replacing(copy) as temporary:
        if same:
            shutil.copyfile(source, temporary)
        elif copy.suffix.lower() in JPEG:
            # No subsampling: it would halve the resolution of colours, and there are few pixels left.
            image.save(temporary, "JPEG", quality=quality, subsampling=0, optimize=True)
        else:
            image.save(temporary, "PPM" if copy.suffix == ".ppm" else "PNG")
        os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
    return "copied" if same else "resized"


def shrunk(sides: tuple[int, int], size: int) -> tuple[int, int]:
    """Compute width and height of an image whose shorter side becomes `size`; the longer one is rounded."""
    short = min(sides)
    return tuple(size if side == short else round(side * size / short) for side in sides)


def copy_annotations(source: Path, copy: Path) -> None:
    """Take along what says of Tiny ImageNet's validation images what they show."""
    for part in ("val", "test"):
        if (source / part / ANNOTATIONS).is_file() and (copy / part).is_dir():
            with replacing(copy / part / ANNOTATIONS) as temporary:
                shutil.copyfile(source / part / ANNOTATIONS, temporary)


if __name__ == "__main__":
    run_program(main)
