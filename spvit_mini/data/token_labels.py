"""Token labels on disk: what a teacher sees in each cell of each image (Jiang et al. 2021, "All tokens matter").

The whole image, resized to the teacher's input without keeping its aspect ratio, is divided into a grid of cells; the top
classes of each cell are stored with a score. A folder contains the maps of one split of a dataset:

    labels.json    {"format": …, "teacher": …, "classes": […], "grid": [rows, columns], "top": …, "images": …}
    images.npy     (images,) of bytes: paths relative to the folder of the split ("rose/001.jpg"), sorted by bytes
    status.npy     (images,) of uint8: 0 no map yet, 1 stored, 2 impossible: the image, or its map to import, is unreadable
    maps.npy       (images,) of records: scores (rows, columns, top) of float16, then classes (rows, columns, top), indices
                   into the list of classes, of int16 (int32 above 32,767 classes); highest score first

A map is found by the path of its image, never by a position. 1,281,167 images with 18 × 18 cells of 5 classes need 8.3 GB,
more than most machines can hold in memory: readers map the file, and all processes of a machine share its pages.

A score is a logit; unlisted classes have the score 0. Labels of this package are shifted so that 0 is the mean of the unlisted
classes (in the sense of logsumexp): with m of them, softmax over the listed scores and m zeros gives the listed classes exactly
the teacher's probabilities, whatever constant the teacher adds to its logits. (The original labels are unshifted logits.)

All files have their final size before the first map is written, and labels.json is written last: a folder that contains it is
complete. A map is on disk before its status says so. A writer that was stopped at any moment continues where it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, near
from ..files import compose, digest, write_text
from .image_folders import ImageFileList

FORMAT = "spvit_mini token labels 1"
MISSING, DONE, UNREADABLE = range(3)


class TokenLabelView(NamedTuple):
    """Hold the token labels of an image and the box of it that a crop shows; a batch has B in front."""

    scores: Tensor  # (rows, columns, top), float16, of the whole image
    classes: Tensor  # (rows, columns, top), int16 or int32
    box: Tensor  # (4,), float32: top, left, bottom and right of the crop, as fractions of the image's height and width
    is_flipped: Tensor  # (), bool, whether the crop was then flipped horizontally


@dataclass(frozen=True)
class TokenLabelInfo:
    """Describe a folder of token labels."""

    teacher: str  # the teacher and its input
    classes: list[str]  # names of the classes
    grid: tuple[int, int]  # rows and columns of cells
    top: int  # number of classes per cell

    @property
    def record_dtype(self) -> np.dtype:
        """Return the dtype of the map of one image."""
        shape = (*self.grid, self.top)
        return np.dtype([("scores", "<f2", shape), ("classes", "<i2" if len(self.classes) < 2**15 else "<i4", shape)])


class TokenLabelWriter:
    """Write token labels into a new folder, or continue an unfinished one.

    Args:
        folder: the folder of the labels.
        info: its description. An existing folder must have the same.
        paths: (n,) of bytes, sorted, relative to the folder of the split.

    Raises UserError if the folder holds other labels or other files, or cannot be written.
    """

    def __init__(self, folder: Path, info: TokenLabelInfo, paths: np.ndarray) -> None:
        self.folder, self.info = Path(folder), info
        try:
            if not (self.folder / "labels.json").exists():
                self._create_files(paths)
            self._check_same(paths)
            self._status_file = open(self.folder / "status.npy", "r+b")  # noqa: SIM115
            self._maps_file = open(self.folder / "maps.npy", "r+b")  # noqa: SIM115
        except OSError as error:
            raise self._write_error(error) from None
        status, maps = (_open_array(self.folder, name) for name in ("status", "maps"))
        self.status = np.array(status)
        self._status_offset, self._maps_offset = status.offset, maps.offset

    def _create_files(self, paths: np.ndarray) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        own = {"labels.json.tmp", "images.npy", "status.npy", "maps.npy"}  # of a writer that was stopped here
        other = sorted(entry.name for entry in self.folder.iterdir() if entry.name not in own)
        if other:
            raise UserError(f"{self.folder} contains other files ({other[0]}); choose a new folder for the labels")
        np.save(self.folder / "images.npy", paths)
        np.save(self.folder / "status.npy", np.full(len(paths), MISSING, dtype=np.uint8))
        # The full length at once: zeros occupy no disk space until they are overwritten.
        np.lib.format.open_memmap(self.folder / "maps.npy", mode="w+", dtype=self.info.record_dtype, shape=(len(paths),))
        content = {"format": FORMAT, **asdict(self.info), "images": len(paths)}
        write_text(self.folder / "labels.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def _check_same(self, paths: np.ndarray) -> None:
        existing = asdict(read_info(self.folder))
        for name, new in asdict(self.info).items():
            old = existing[name]
            if old != new:
                if name == "classes":
                    old, new = f"{len(old)} classes", f"{len(new)}, or others"
                raise UserError(
                    f"{self.folder} holds labels of another kind ({name}: {old}, not {new}); choose a new folder, "
                    "or use the options of the first command"
                )
        if not np.array_equal(_open_array(self.folder, "images"), paths):
            raise UserError(f"{self.folder} holds the labels of other images; choose a new folder, or use the same data")

    def write(self, index: int, scores: np.ndarray, classes: np.ndarray) -> None:
        """Write the map of an image. It counts after the next `commit`."""
        record = np.empty((), dtype=self.info.record_dtype)
        record["scores"], record["classes"] = scores, classes
        try:
            self._maps_file.seek(self._maps_offset + index * record.nbytes)
            self._maps_file.write(record.tobytes())
        except OSError as error:
            raise self._write_error(error) from None

    def commit(self, *, done: list[int], unreadable: Sequence[int] = ()) -> None:
        """Flush the maps to disk, then the status of the images whose map is stored (done) or impossible (unreadable)."""
        self.status[done], self.status[list(unreadable)] = DONE, UNREADABLE
        try:
            self._maps_file.flush()
            os.fsync(self._maps_file.fileno())
            for index in [*done, *unreadable]:
                self._status_file.seek(self._status_offset + index)
                self._status_file.write(self.status[index].tobytes())
            self._status_file.flush()
        except OSError as error:
            raise self._write_error(error) from None

    def close(self) -> None:
        """Close the files."""
        self._maps_file.close()
        self._status_file.close()

    def _write_error(self, error: OSError) -> UserError:
        return UserError(f"cannot write labels to {self.folder} ({error.strerror}); free disk space, or choose another folder")


class TokenLabels:
    """Read the token labels of a list of image files, by index into the list.

    Worker processes share the pages of the file, however they were started. Raises UserError for a folder without complete
    labels, for other classes than those of the list, and if an image has no map.

    Attributes:
        info: the description of the folder.
        unreadable: (m,), indices of the images that have no map because it is impossible.
    """

    def __init__(self, folder: Path, files: ImageFileList) -> None:
        self.folder, self.info = Path(folder), read_info(folder)
        self._check_classes(files.classes)
        images, status = (_open_array(self.folder, name) for name in ("images", "status"))
        self._maps = _open_array(self.folder, "maps")
        if self._maps.dtype != self.info.record_dtype or not len(images) == len(status) == len(self._maps):
            raise UserError(f"the files in {self.folder} don't belong together; copy the folder again")
        labelled, wanted = _compose_paths(images), _compose_paths(files.paths)
        order = np.argsort(labelled, kind="stable")
        self._rows = order[np.searchsorted(labelled, wanted, sorter=order).clip(max=len(images) - 1)]  # (n,), of each image's map
        has_map = labelled[self._rows] == wanted
        self._check_all(has_map, files, "has no map of", "label these images into a new folder")
        own_status = status[self._rows]
        self._check_all(own_status != MISSING, files, "is not finished: it lacks", "continue with the command that created it")
        self.unreadable = np.flatnonzero(own_status == UNREADABLE)

    def _check_classes(self, classes: list[str]) -> None:
        own = self.info.classes
        if len(own) != len(classes):
            raise UserError(f"{self.folder} has labels of {len(own)} classes, but the data have {len(classes)}; label these data")
        for label, (theirs, name) in enumerate(zip(own, classes, strict=True)):
            if theirs != name:
                hint = near(name, own)
                raise UserError(f"class {label} is {theirs!r} in {self.folder}, but {name!r} in the data.{hint} Label these data")

    def _check_all(self, has_map: np.ndarray, files: ImageFileList, problem: str, fix: str) -> None:
        if not has_map.all():
            path, count = os.fsdecode(files.paths[has_map.argmin()]), (~has_map).sum()
            more = f" ({count} of {len(files)} images)" if count > 1 else ""
            raise UserError(f"{self.folder} {problem} {path}{more}; {fix}: python -m spvit_mini label")

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the scores and the classes of the cells of an image, (rows, columns, top) each."""
        row = self._rows[index]
        scores, classes = (torch.from_numpy(np.array(self._maps[row][name])) for name in ("scores", "classes"))
        if not (scores.isfinite().all() and classes.min() >= 0 and classes.max() < len(self.info.classes)):
            raise UserError(f"map {row} in {self.folder / 'maps.npy'} is damaged; copy the folder again")
        return scores, classes

    def __getstate__(self) -> dict[str, Any]:
        # Pickle would send a mapped file to another process as 8 GB of bytes.
        return {**self.__dict__, "_maps": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._maps = _open_array(self.folder, "maps")


def read_info(folder: Path) -> TokenLabelInfo:
    """Read the description of a folder of token labels. Raises UserError if it is none."""
    path = Path(folder) / "labels.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        kind = content["format"]
        info = TokenLabelInfo(content["teacher"], list(map(compose, content["classes"])), tuple(content["grid"]), content["top"])
    except OSError as error:
        fix = "create them with python -m spvit_mini label"
        raise UserError(f"{folder} holds no token labels ({path.name}: {error.strerror}); {fix}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not describe token labels ({error}); copy the folder again") from None
    if kind != FORMAT:
        raise UserError(f"the format of {path} is {kind!r}; expected {FORMAT!r}. Create the labels again")
    return info


def _compose_paths(paths: np.ndarray) -> np.ndarray:
    """Compose the characters of paths, of bytes, where there are others than ASCII's."""
    is_ascii = len(paths) == 0 or paths.view(np.uint8).max() < 128
    encoding = "utf-8", "surrogateescape"
    return paths if is_ascii else np.array([compose(path.decode(*encoding)).encode(*encoding) for path in paths])


def fingerprint_labels(folder: Path) -> str:
    """Fingerprint a folder of token labels by its classes, images and a thousand of its maps. Raises UserError if it is none."""
    info, (images, status, maps) = read_info(folder), (_open_array(Path(folder), name) for name in ("images", "status", "maps"))
    sample = maps[:: max(1, len(maps) // 1000)]
    content = digest([*info.classes, f"{info.grid} {info.top}", *(array.tobytes() for array in (images, status, sample))])
    return f"{len(info.classes)} classes, {len(images):,} maps, {content}"


def _open_array(folder: Path, name: str) -> np.memmap:
    """Map one of the arrays of a folder of labels into memory. Raises UserError if it is missing or truncated."""
    path = folder / f"{name}.npy"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; copy the folder again") from None
    except (ValueError, EOFError) as error:
        raise UserError(f"{path} is truncated or damaged ({error}); copy the folder again") from None
