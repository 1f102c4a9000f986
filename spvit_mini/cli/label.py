"""Compute token labels: the classes that a teacher sees in each cell of each image, once for all epochs of training.

    python -m spvit_mini label --model runs/lvvit_s --data.name flowers17 --out data/flowers17_labels
    python -m spvit_mini label --model torchvision:resnet50 --weights resnet50.pth --image-size 576 \\
        --data.name imagenet --out data/imagenet_labels
    python -m spvit_mini label --archive label_top5_train_nfnet --data.name imagenet --out data/imagenet_labels

The dataset is any ImageFolder directory. The teacher is a run or a weights file of this package, or a CNN of torchvision with a
file of its weights. Suitable teachers have a dense head, or average their patches or cells; the head of a class token was never
trained to read patches, and the program warns of it (see teachers.py).

Each image is resized to a square without cropping and computed once; the classes with the largest logits of each cell are stored
(data/token_labels.py describes the files). If the program is interrupted, the same command resumes; on the CPU the maps are then
identical to the last bit. Corrupt images are named and skipped, and tried again by the next call.

--archive reads the labels of the original authors (zihangJiang/TokenLabeling): CLASS/IMAGE.pt for CLASS/IMAGE.JPEG, each a tensor
(2, top, rows, columns) of scores and classes. Their generator shows the teacher the central square of an image, as timm did then;
their training uses the map as that of the whole image, and so does this package.

Train with --token-labels.folder OUT.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..data.image_folders import ImageFileList, find_image_folder
from ..data.images import CorruptImageError, read_image
from ..data.preprocessing import Normalize, Preprocessing, resize
from ..data.token_archive import TokenLabelArchive
from ..data.token_labels import DONE, TokenLabelInfo, TokenLabelWriter
from ..errors import UserError, near
from ..fields import Count, Device, Pixels, Workers, check_fields
from ..files import compose
from ..recipes.recipe import Recipe
from ..training.devices import choose_device
from ..training.signals import open_workers
from .arguments import Imports, Program
from .teachers import load_teacher

PROGRAM = Program("python -m spvit_mini label", __doc__)
SECONDS_BETWEEN_LINES = 60  # of progress, where there is no terminal


@dataclass(frozen=True)
class Images:
    """Which images to label."""

    name: str = "folder"
    """Name of the ImageFolder directory ROOT/NAME/{train,val}/CLASS/*.jpg; "folder" if ROOT itself is the directory."""
    root: Path = Path("data")
    """Folder of the datasets."""
    workers: Workers = 0
    """Number of processes that read images; 0 reads them in the main process."""

    def __post_init__(self) -> None:
        check_fields(self, "data.")


@dataclass(frozen=True)
class Arguments:
    """A teacher, images, and the folder of the labels."""

    model: str = ""
    """The teacher: a run folder, a weights file, or torchvision:NAME with --weights."""
    weights: Path | None = None
    """Weights of a torchvision model: its state_dict, as a torch or safetensors file. Nothing is downloaded."""
    archive: Path | None = None
    """Folder of the original authors' labels, CLASS/IMAGE.pt, instead of a teacher."""
    class_names: Path | None = None
    """Text file with the names of the teacher's (or the archive's) classes, one per line, in its order. A teacher may have more
    classes than the dataset; only those of the dataset are used. None: the names in the teacher's metadata."""
    data: Images = field(default_factory=Images)
    split: Literal["train", "val"] = "train"
    """Split of the dataset; training needs labels of the training split."""
    out: Path | None = None
    """Folder for the labels; created if missing."""
    top: Count = 5
    """Number of classes to store per cell."""
    image_size: Pixels | None = None
    """Side in pixels of the square that images are resized to; a larger one gives more cells. None: the teacher's image size."""
    batch_size: Count = 32
    """Images per batch of the teacher."""
    device: Device = "auto"
    """Device: auto (CUDA if there is one, else MPS, else CPU), cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the teacher's forward pass: auto is bfloat16 autocast on CUDA and float32 elsewhere."""
    imports: Imports = ()


def main(argv: list[str]) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    arguments = PROGRAM.parse(argv, Arguments())
    if bool(arguments.model) == (arguments.archive is not None):
        raise UserError(f"expected either --model with a teacher or --archive with a folder of labels; see {PROGRAM} --help")
    if arguments.out is None:
        raise UserError("--out is missing; expected a folder for the labels")

    image_folder = find_image_folder(arguments.data.name, arguments.data.root)
    listing = image_folder.list_files(train=arguments.split == "train", on_corrupt_image="skip")
    listing = listing.select(torch.from_numpy(np.argsort(listing.paths)))
    if arguments.archive is None:
        info, maps_of = from_teacher(arguments, listing)
    else:
        info, maps_of = from_archive(arguments.archive, read_names(arguments.class_names), listing)
    write_all(info, maps_of, listing, arguments.out, batch_size=arguments.batch_size)
    return 0


class Maps(NamedTuple):
    """Label maps of a batch of images, those at `indices` of the listing, and the reason for each image without a map."""

    indices: list[int]
    scores: np.ndarray  # (n, rows, columns, top), float16
    classes: np.ndarray  # (n, rows, columns, top)
    bad: dict[int, str]


# From batches of indices to their maps.
MapsOf = Callable[[list[list[int]]], Iterator[Maps]]


def write_all(info: TokenLabelInfo, maps_of: MapsOf, listing: ImageFileList, out: Path, *, batch_size: int) -> None:
    """Write the missing maps, batch after batch, and print progress.

    Batches are the same however often the program was interrupted, because the last bit of an image's logits can depend on the
    batch size.
    """
    writer = TokenLabelWriter(out, info, listing.paths)
    batches = [list(range(len(listing))[first : first + batch_size]) for first in range(0, len(listing), batch_size)]
    missing = [indices for indices in batches if (writer.status[indices] != DONE).any()]
    before = int((writer.status == DONE).sum())
    print(f"labels  by {info.teacher}: {info.grid[0]}×{info.grid[1]} cells, {info.top} of {len(info.classes)} classes")
    print(f"images  {len(listing):,} in {listing.folder}, {before:,} of them labelled before", flush=True)

    new = right = 0
    start = last_line = time.perf_counter()
    with tqdm(total=len(listing), initial=before, unit="image", dynamic_ncols=True, leave=False, disable=None) as bar:
        for indices, scores, classes, bad in maps_of(missing):
            is_right = best_of_all_cells(scores, classes, len(info.classes)) == listing.labels[indices]
            done = [i for i, index in enumerate(indices) if writer.status[index] != DONE]
            for i in done:
                writer.write(indices[i], scores[i], classes[i])
            for index, reason in bad.items():
                bar.write(f"skipped: {listing.path(index)} {reason}", file=sys.stderr)
            writer.commit(done=[indices[i] for i in done], unreadable=list(bad))
            new, right = new + len(done), right + int(is_right[done].sum())
            bar.update(len(done))
            if bar.disable and (now := time.perf_counter()) - last_line > SECONDS_BETWEEN_LINES:
                last_line = now
                print(f"{before + new:,} of {len(listing):,}, {new / (now - start):,.1f} images/s", flush=True)
    writer.close()

    if new:
        seconds = time.perf_counter() - start
        print(f"new     {new:,} maps in {seconds:,.1f} s, {new / seconds:,.1f} images/s")
        print(f"check   the class with the largest sum over all cells is the folder's for {100 * right / new:.1f} % of them")
    if count := int((writer.status != DONE).sum()):
        print(f"lacks   {count:,} images, named above; the same command tries them again")
    print(f"wrote   {out}, {(out / 'maps.npy').stat().st_size / 2**20:,.1f} MiB; train with --token-labels.folder {out}")


def from_teacher(arguments: Arguments, listing: ImageFileList) -> tuple[TokenLabelInfo, MapsOf]:
    """Load the teacher; returns the description of its labels, and the function that computes them."""
    teacher = load_teacher(arguments.model, weights=arguments.weights, image_size=arguments.image_size)
    device, precision = choose_device(Recipe(device=arguments.device, precision=arguments.precision))
    cells = teacher.cells.to(device)

    @torch.no_grad()
    def predict(images: Tensor) -> Tensor:
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            return cells(images.to(device, non_blocking=True)).float()

    height, width = teacher.preprocessing.image_size
    try:
        rows, columns, count = predict(torch.zeros(1, 3, height, width)).shape[1:]
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{arguments.model} fails at {height}×{width} px ({reason}); use another --image-size") from None
    names = read_names(arguments.class_names) or teacher.classes
    selection = match_classes(names, count, listing.classes, source=arguments.model)
    top = min(arguments.top, len(listing.classes))
    if teacher.note:
        print(f"note    {teacher.note}", file=sys.stderr)

    def maps_of(batches: list[list[int]]) -> Iterator[Maps]:
        with open_workers() as begin_worker:
            loader = DataLoader(
                SquareImages(listing, teacher.preprocessing), batch_sampler=batches, collate_fn=collate,
                num_workers=arguments.data.workers, worker_init_fn=begin_worker, pin_memory=device.type == "cuda",
            )  # fmt: skip
            for indices, images, bad in loader:
                logits = predict(images) if indices else torch.zeros(0, rows, columns, count)
                if not logits.isfinite().all():
                    raise UserError(f"the logits of {arguments.model} are not finite; use --precision float32")
                scores, classes = best_classes(logits if selection is None else logits[..., selection.to(logits.device)], top)
                yield Maps(indices, scores.half().cpu().numpy(), classes.cpu().numpy(), bad)

    description = f"{teacher.name}, images squeezed to {height}×{width} px"
    return TokenLabelInfo(description, listing.classes, (rows, columns), top), maps_of


class SquareImages(Dataset):
    """Images resized to a teacher's image size without cropping: (index, input), or (index, reason) for a corrupt image."""

    def __init__(self, listing: ImageFileList, preprocessing: Preprocessing):
        self.listing, self.preprocessing, self.normalize = listing, preprocessing, Normalize(preprocessing)

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, index: int) -> tuple[int, Tensor | str]:
        try:
            image = read_image(self.listing.path(index))
        except CorruptImageError as reason:
            return index, str(reason)
        return index, self.normalize(resize(image, self.preprocessing.image_size, self.preprocessing.interpolation))


def collate(items: list[tuple[int, Tensor | str]]) -> tuple[list[int], Tensor, dict[int, str]]:
    """Batch the readable images; returns their indices, the images (B, 3, height, width), and the reasons of the others."""
    good = [(index, image) for index, image in items if isinstance(image, Tensor)]
    images = torch.stack([image for _, image in good]) if good else torch.empty(0)
    return [index for index, _ in good], images, {index: reason for index, reason in items if isinstance(reason, str)}


def best_classes(logits: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Select the classes with the largest logits of each cell: logits (…, classes) to scores (…, top), classes (…, top).

    Scores are logits, shifted so that the softmax over the scores and a 0 for each other class gives the selected classes the
    teacher's probabilities.
    """
    scores, classes = logits.topk(top, dim=-1)
    others = logits.shape[-1] - top
    if others:
        rest = logits.scatter(-1, classes, -torch.inf)
        scores = scores - (rest.logsumexp(-1, keepdim=True) - math.log(others))
    return scores, classes


def from_archive(folder: Path, names: list[str] | None, listing: ImageFileList) -> tuple[TokenLabelInfo, MapsOf]:
    """Open the original authors' labels; returns their description, and the function that reads them."""
    selection = match_classes(names, None, listing.classes, source=str(folder))
    archive = TokenLabelArchive(folder, num_classes=len(listing.classes), class_indices=selection)
    grid, top = archive.read_shape(listing.paths)

    def maps_of(batches: list[list[int]]) -> Iterator[Maps]:
        for indices in batches:
            maps, bad = {}, {}
            for index in indices:
                try:
                    maps[index] = archive.read(listing.paths[index], shape=(*grid, top))
                except CorruptImageError as reason:
                    bad[index] = str(reason)
            scores, classes = (np.array([m[i] for m in maps.values()]).reshape(-1, *grid, top) for i in (0, 1))
            yield Maps(list(maps), scores, classes, bad)

    return TokenLabelInfo(f"the archive {folder.resolve().name}", listing.classes, grid, top), maps_of


def best_of_all_cells(scores: np.ndarray, classes: np.ndarray, count: int) -> Tensor:
    """Find the class with the largest sum of scores over all cells: (n,)."""
    values, indices = (torch.from_numpy(array).flatten(1) for array in (scores, classes))
    return torch.zeros(len(values), count).scatter_add_(1, indices.long(), values.float()).argmax(1)


def match_classes(names: list[str] | None, count: int | None, classes: list[str], *, source: str) -> Tensor | None:
    """Find the dataset's classes among the teacher's: (classes,), indices of the teacher's classes; None if all are the same.

    `names` and `count` are those of the teacher's classes, if known; `source` names the teacher in messages. Raises
    UserError if the teacher lacks a class, or its classes have no names and their number differs.
    """
    names = names and list(map(compose, names))
    if names is None:
        if count not in (None, len(classes)):
            raise UserError(
                f"{source} has {count} classes without names, but the dataset has {len(classes)}; "
                "name the teacher's classes with --class-names FILE, one per line"
            )
        return None
    if count not in (None, len(names)):
        raise UserError(f"{source} has {count} classes, but --class-names has {len(names)} names")
    for name in classes:
        if name not in names:
            fix = "--class-names FILE gives its classes the names of the dataset"
            raise UserError(f"{source} lacks the class {name!r} of the dataset.{near(name, names)} {fix}")
    return None if names == classes else torch.tensor([names.index(name) for name in classes])


def read_names(path: Path | None) -> list[str] | None:
    """Read names, one per line; None without a file."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n") if path else None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the class names in {path} ({error}); expected a name per line, in UTF-8") from None
    return lines and [line.strip() for line in lines if line.strip()]
