"""Read the token labels of the original authors (zihangJiang/TokenLabeling), image by image.

An archive is a folder of torch files, CLASS/IMAGE.pt for the image CLASS/IMAGE.JPEG (the file name up to its first dot). Each
contains one tensor (2, top, rows, columns): the logits of the top classes of each cell, and the indices of these classes, as
floats. The authors' archive for ImageNet, label_top5_train_nfnet, has the top 5 of 1000 classes in 18 × 18 cells, from an
NFNet-F6 at 576 pixels.
"""

import os
import pickle
from pathlib import Path, PurePath

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..files import compose
from .images import CorruptImageError


class TokenLabelArchive:
    """Read maps from an archive.

    Args:
        folder: contains the class folders.
        num_classes: number of classes of the data.
        class_indices: (num_classes,), the indices of the data's classes in the archive; None: the same classes.
    """

    def __init__(self, folder: Path, *, num_classes: int, class_indices: Tensor | None) -> None:
        self.folder, self.num_classes = Path(folder), num_classes
        if not self.folder.is_dir():
            raise UserError(f"there is no folder {folder} to import from; expected {folder}/CLASS/IMAGE.pt")
        self.folders = {compose(path.name): path for path in self.folder.iterdir()}
        self.label_of = None if class_indices is None else {theirs: own for own, theirs in enumerate(class_indices.tolist())}

    def path_of(self, image: bytes) -> Path:
        """Find the file of an image, given the path of the image."""
        path = PurePath(os.fsdecode(image))
        folder = self.folders.get(compose(path.parent.name), self.folder / path.parent.name)
        return folder / f"{path.name.partition('.')[0]}.pt"

    def read_shape(self, images: np.ndarray) -> tuple[tuple[int, int], int]:
        """Read the grid and the number of classes per cell from the first readable map. Raises UserError if there is none."""
        for image in images:
            try:
                _, top, rows, columns = self._load(self.path_of(image)).shape
                return (rows, columns), top
            except CorruptImageError:
                continue
        raise UserError(f"{self.folder} has no map of any image; expected {self.path_of(images[0])} and others")

    def read(self, image: bytes, *, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Read the map of an image: scores and classes, of shape (rows, columns, top) each.

        An entry whose class is not in the data gets the score 0 of an unlisted class. Raises CorruptImageError if the map is
        missing or damaged; UserError if its shape differs or a class is out of range.
        """
        path = self.path_of(image)
        scores, classes = self._load(path).permute(0, 2, 3, 1)
        if scores.shape != shape:
            raise UserError(f"the map {path} has (rows, columns, top) = {tuple(scores.shape)}; expected {shape} as in other maps")
        classes = classes.long()
        if self.label_of is not None:
            classes = torch.tensor([self.label_of.get(c, -1) for c in classes.flatten().tolist()]).view(shape)
            scores, classes = scores * (classes >= 0), classes.clamp(min=0)
        if classes.max() >= self.num_classes or classes.min() < 0:
            raise UserError(
                f"the map {path} has class {int(classes.max())}, but the data have {self.num_classes} classes; name the "
                "archive's classes with --class-names FILE, so that those of the data can be found among them"
            )
        return scores.half().numpy(), classes.numpy()

    def _load(self, path: Path) -> Tensor:
        try:
            tensor = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise CorruptImageError(f"has no map: {path} is missing") from None
        except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError):
            raise CorruptImageError(f"has no complete map: {path} is damaged, or no torch file of tensors alone") from None
        if not isinstance(tensor, Tensor) or tensor.ndim != 4 or len(tensor) != 2 or not tensor.isfinite().all():
            raise CorruptImageError(f"has no map: {path} does not hold finite numbers of shape (2, top, rows, columns)")
        return tensor.float()
