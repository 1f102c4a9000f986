"""Token labels on disk: what a teacher sees in each part of each image (Jiang et al. 2021, "All tokens matter").

The image, whole and squeezed to the teacher's frame, is cut into a grid of cells; of each cell the best few classes are
kept, with a score. A folder holds the maps of one part of one set:

    labels.json    {"format": …, "teacher": …, "classes": […], "grid": [rows, columns], "top": …, "images": …}
    images.npy     (images,) of bytes: the paths, relative to the folder of the part ("rose/001.jpg"), in order of bytes
    status.npy     (images,) of uint8: 0 no map yet, 1 there is one, 2 there can be none: the image, or what was to be
                   imported for it, cannot be read
    maps.npy       (images,) of records: scores (rows, columns, top) of float16, then classes (rows, columns, top), places
                   in the list of classes, of int16 (int32 above 32,767 classes); best first

So a map is found by its image's path, never by a position. 1,281,167 images at 18 × 18 cells of 5 classes are 8.3 GB,
which nobody holds in memory: readers map the file, and all processes of a machine share the pages.

A score is a logit; classes that are not listed have the score 0. This package's own labels are shifted so that this is
what the unlisted classes have in the mean: with m of them, softmax over listed scores and m zeros gives the listed
classes exactly the probabilities that the teacher gave them, whatever constant it adds to its logits. (The original's are
the logits as they are, for which 0 is a guess.)

Everything is laid out before the first map is written, and labels.json comes last, so a folder with it is whole; a map is
on the disk before its status says so. A writer that was stopped at any moment goes on where it was.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, near
from .images import Listing

FORMAT = "spvit_mini token labels 1"
MISSING, DONE, BAD = range(3)


class View(NamedTuple):
    """Say what a teacher sees in an image, and which part of the image a crop shows. Batched, each part has a B in front.

    Attributes:
        scores: (rows, columns, top), float16, of the whole image.
        classes: (rows, columns, top), int16 or int32.
        box: (4,), float32: top, left, bottom and right of the crop, as parts of the image's height and width.
        mirrored: whether the crop was then mirrored, left to right.
    """

    scores: Tensor
    classes: Tensor
    box: Tensor
    mirrored: bool | Tensor


@dataclass(frozen=True)
class About:
    """Describe a folder of token labels.

    Attributes:
        teacher: who made them, and how.
        classes: names of the classes.
        grid: rows and columns of cells.
        top: how many classes a cell has.
    """

    teacher: str
    classes: list[str]
    grid: tuple[int, int]
    top: int

    @property
    def record(self) -> np.dtype:
        """Lay out the map of one image."""
        shape = (*self.grid, self.top)
        return np.dtype([("scores", "<f2", shape), ("classes", "<i2" if len(self.classes) < 2**15 else "<i4", shape)])


class LabelWriter:
    """Write token labels into a new folder, or go on with one.

    Args:
        folder: where they go.
        about: what they are. Those that are there must be the same.
        paths: (n,) of bytes, in order, relative to the part's folder.

    Raises UserError if the folder holds other labels or other things, or cannot be written.
    """

    def __init__(self, folder: Path, about: About, paths: np.ndarray) -> None:
        self.folder, self.about = Path(folder), about
        try:
            if not (self.folder / "labels.json").exists():
                self._lay_out(paths)
            self._check_same(paths)
            self._status_file = open(self.folder / "status.npy", "r+b")  # noqa: SIM115
            self._maps_file = open(self.folder / "maps.npy", "r+b")  # noqa: SIM115
        except OSError as error:
            raise self._unwritable(error) from None
        status, maps = (_open(self.folder, name) for name in ("status", "maps"))
        self.status = np.array(status)
        self._status_at, self._maps_at = status.offset, maps.offset

    def _lay_out(self, paths: np.ndarray) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        ours = {"labels.json.tmp", "images.npy", "status.npy", "maps.npy"}  # of a start that was stopped
        other = sorted(entry.name for entry in self.folder.iterdir() if entry.name not in ours)
        if other:
            raise UserError(f"{self.folder} holds other things ({other[0]}); name a new folder for the labels")
        np.save(self.folder / "images.npy", paths)
        np.save(self.folder / "status.npy", np.full(len(paths), MISSING, dtype=np.uint8))
        # Its whole length at once, of zeros that take no room on the disk before they are written over.
        mode, place = "w+", self.folder / "maps.npy"
        np.lib.format.open_memmap(place, mode=mode, dtype=self.about.record, shape=(len(paths),))
        temporary = self.folder / "labels.json.tmp"
        said = {"format": FORMAT, **asdict(self.about), "images": len(paths)}
        temporary.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, self.folder / "labels.json")

    def _check_same(self, paths: np.ndarray) -> None:
        there = read_about(self.folder)
        for name, value in asdict(self.about).items():
            before = asdict(there)[name]
            if before != value:
                if name == "classes":
                    before, value = f"{len(before)} classes", f"{len(value)}, or others"
                raise UserError(
                    f"{self.folder} holds labels of another kind ({name}: {before}, not {value}); name a new folder, "
                    "or give the options that they were begun with"
                )
        if not np.array_equal(_open(self.folder, "images"), paths):
            raise UserError(f"{self.folder} holds the labels of other images; name a new folder, or give the same data")

    def write(self, place: int, scores: np.ndarray, classes: np.ndarray) -> None:
        """Write the map of an image. It counts only once `commit` was called."""
        record = np.empty((), dtype=self.about.record)
        record["scores"], record["classes"] = scores, classes
        try:
            self._maps_file.seek(self._maps_at + place * record.nbytes)
            self._maps_file.write(record.tobytes())
        except OSError as error:
            raise self._unwritable(error) from None

    def commit(self, *, done: list[int], bad: list[int] = ()) -> None:
        """Bring what was written to the disk, and then the word that it is there, or that there can be none."""
        self.status[done], self.status[list(bad)] = DONE, BAD
        try:
            self._maps_file.flush()
            os.fsync(self._maps_file.fileno())
            for place in [*done, *bad]:
                self._status_file.seek(self._status_at + place)
                self._status_file.write(self.status[place].tobytes())
            self._status_file.flush()
        except OSError as error:
            raise self._unwritable(error) from None

    def close(self) -> None:
        """Close the files."""
        self._maps_file.close()
        self._status_file.close()

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"cannot write the labels in {self.folder} ({error.strerror}); make room, or name another folder")


class TokenLabels:
    """Read the token labels of a listing's images, by their position in it.

    Worker processes share the file's pages, however they were started. Raises UserError for a folder that holds no whole
    labels, other classes than the listing's, or no map of one of its images.

    Attributes:
        about: what the folder says of itself.
        bad: (m,), the images that can have no map.
    """

    def __init__(self, folder: Path, listing: Listing) -> None:
        self.folder, self.about = Path(folder), read_about(folder)
        self._check_classes(listing.classes)
        images, status = (_open(self.folder, name) for name in ("images", "status"))
        self._maps = _open(self.folder, "maps")
        if self._maps.dtype != self.about.record or not len(images) == len(status) == len(self._maps):
            raise UserError(f"the files in {self.folder} don't belong together; copy the folder again")
        self.places = np.searchsorted(images, listing.paths)  # (n,)
        found = images[np.minimum(self.places, len(images) - 1)] == listing.paths
        self._refuse(~found, listing, "has no map of", "make labels of these images in a new folder")
        status = status[self.places]
        self._refuse(status == MISSING, listing, "is not finished: it lacks", "go on with the same command that made it")
        self.bad = np.flatnonzero(status == BAD)

    def _check_classes(self, classes: list[str]) -> None:
        there = self.about.classes
        if len(there) != len(classes):
            raise UserError(
                f"{self.folder} has labels of {len(there)} classes, but the data have {len(classes)}; make labels for these"
            )
        for label, (theirs, name) in enumerate(zip(there, classes, strict=True)):
            if theirs != name:
                raise UserError(
                    f"{self.folder} calls class {label} {theirs!r}, the data call it {name!r}.{near(name, there)} "
                    "Make labels for these data"
                )

    def _refuse(self, without: np.ndarray, listing: Listing, what: str, cure: str) -> None:
        if without.any():
            path = os.fsdecode(listing.paths[without.argmax()])
            more = f" ({without.sum()} of {len(listing)} images)" if without.sum() > 1 else ""
            raise UserError(f"{self.folder} {what} {path}{more}; {cure}: python -m spvit_mini label")

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Give the scores and the classes of an image's cells, (rows, columns, top) each."""
        record = self._maps[self.places[index]]
        scores, classes = (torch.from_numpy(np.array(record[name])) for name in ("scores", "classes"))
        if not (scores.isfinite().all() and classes.min() >= 0 and classes.max() < len(self.about.classes)):
            raise UserError(f"map {self.places[index]} in {self.folder / 'maps.npy'} is damaged; copy the folder again")
        return scores, classes

    def __getstate__(self) -> dict[str, Any]:
        # A mapped file would be sent to another process as 8 GB of bytes.
        return {**self.__dict__, "_maps": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._maps = _open(self.folder, "maps")


def read_about(folder: Path) -> About:
    """Read what a folder of token labels says of itself. Raises UserError if it is none."""
    path = Path(folder) / "labels.json"
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        kind = said["format"]
        about = About(said["teacher"], said["classes"], tuple(said["grid"]), said["top"])
    except OSError as error:
        made = "python -m spvit_mini label makes them"
        raise UserError(f"{folder} holds no token labels ({path.name}: {error.strerror}); {made}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not describe token labels ({error}); copy the folder again") from None
    if kind != FORMAT:
        raise UserError(f"{path} is of format {kind!r}, not {FORMAT!r}; make the labels again")
    return about


def _open(folder: Path, name: str) -> np.memmap:
    """Map one of the arrays of a folder of labels. Raises UserError if it is missing or cut off."""
    path = folder / f"{name}.npy"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; copy the folder again") from None
    except (ValueError, EOFError) as error:
        raise UserError(f"{path} is cut off or damaged ({error}); copy the folder again") from None
