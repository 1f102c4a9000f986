"""The token labels of the original authors (zihangJiang/TokenLabeling), read image by image.

An archive is a tree of torch files, CLASS/IMAGE.pt for the image CLASS/IMAGE.JPEG (the file's name up to its first dot).
Each holds one tensor (2, top, rows, columns): the logits of the best classes of each cell, and these classes' numbers, as
floats. Their own one for ImageNet, label_top5_train_nfnet, has the best 5 of 1000 classes in 18 × 18 cells, seen by an
NFNet-F6 at 576 pixels.
"""

import os
import pickle
from pathlib import Path, PurePath

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from .images import BadImage


class Archive:
    """Read maps from an archive.

    Args:
        folder: holds the class folders.
        count: how many classes the data have.
        chosen: (count,), which of the archive's classes these are; all of them, in the same order, if not given.
    """

    def __init__(self, folder: Path, *, count: int, chosen: Tensor | None) -> None:
        self.folder, self.count = Path(folder), count
        if not self.folder.is_dir():
            raise UserError(f"there is no folder {folder} to import from; expected {folder}/CLASS/IMAGE.pt")
        self.own = None if chosen is None else {theirs: own for own, theirs in enumerate(chosen.tolist())}

    def path_of(self, image: bytes) -> Path:
        """Find the file of an image, which is named by its path."""
        path = PurePath(os.fsdecode(image))
        return self.folder / path.parent.name / f"{path.name.partition('.')[0]}.pt"

    def shape_of(self, images: np.ndarray) -> tuple[tuple[int, int], int]:
        """Look at the first whole map: its grid, and how many classes a cell has. Raises UserError if there is none."""
        for image in images:
            try:
                _, top, rows, columns = self._load(self.path_of(image)).shape
                return (rows, columns), top
            except BadImage:
                continue
        raise UserError(f"{self.folder} has no map of any image; expected {self.path_of(images[0])} and others")

    def read(self, image: bytes, *, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Read the map of an image: scores and classes, of shape (rows, columns, top) each.

        An entry whose class is not of the data gets the score 0 of an unlisted one. Raises BadImage if there is no map or
        it is damaged; UserError if its shape is another or a class is out of range.
        """
        path = self.path_of(image)
        scores, classes = self._load(path).permute(0, 2, 3, 1)
        if scores.shape != shape:
            raise UserError(f"the map {path} has (rows, columns, top) = {tuple(scores.shape)}, but others have {shape}")
        classes = classes.long()
        if self.own is not None:
            classes = torch.tensor([self.own.get(c, -1) for c in classes.flatten().tolist()]).view(shape)
            scores, classes = scores * (classes >= 0), classes.clamp(min=0)
        if classes.max() >= self.count or classes.min() < 0:
            raise UserError(
                f"the map {path} speaks of class {int(classes.max())}, but the data have {self.count}; name the archive's "
                "classes with --class-names FILE, so that those of the data can be found among them"
            )
        return scores.half().numpy(), classes.numpy()

    def _load(self, path: Path) -> Tensor:
        try:
            tensor = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise BadImage(f"has no map: {path} is missing") from None
        except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError):
            raise BadImage(f"has no whole map: {path} is damaged, or no torch file of tensors alone") from None
        if not isinstance(tensor, Tensor) or tensor.ndim != 4 or len(tensor) != 2 or not tensor.isfinite().all():
            raise BadImage(f"has no map: {path} does not hold finite numbers of shape (2, top, rows, columns)")
        return tensor.float()
