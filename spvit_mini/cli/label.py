"""Make token labels: let a teacher say what it sees in each part of each image, once, for all epochs of training.

    python -m spvit_mini label --model runs/lvvit_s --data.name flowers17 --out data/flowers17_labels
    python -m spvit_mini label --model torchvision:resnet50 --weights resnet50.pth --image-size 576 \\
        --data.name imagenet --out data/imagenet_labels
    python -m spvit_mini label --import label_top5_train_nfnet --data.name imagenet --out data/imagenet_labels
    python -m spvit_mini label --help                                        all options

Any image tree and any number of classes will do. The teacher is a run or a weights file of this package, or a CNN of
torchvision with its weights as a file. One that has a dense head, or that averages its patches or cells, knows what it sees
in each; the head of a class token was never trained to read patches, and the program warns of it (more in teachers.py).

Each image, whole and squeezed to a square, is looked at once; the best classes of each cell are kept (as said in
data/token_labels.py). Stopped at any moment, the same command goes on where it was, and on the CPU the maps come out the
same to the last bit. Bad images are named and left out, and looked at again by the next call.

--import takes the archives of the original authors (zihangJiang/TokenLabeling): CLASS/IMAGE.pt for CLASS/IMAGE.JPEG, each
a tensor (2, top, rows, columns) of scores and classes. Of an image that is not square, their generator shows the teacher
the central square, as timm did then; their training takes the map for that of the whole image, and so is it taken here.

Training then takes --token-labels.folder OUT.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
import tyro
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional
from tqdm import tqdm

from ..data.augment import INTERPOLATIONS, Preprocessing, ToInput
from ..data.image_folders import find_tree
from ..data.images import BadImage, Listing, read_image
from ..data.token_archive import Archive
from ..data.token_labels import DONE, About, LabelWriter
from ..errors import UserError, near
from ..recipes.recipe import Recipe
from ..training.loop import choose_device
from ..training.signals import leave_signals_to_the_parent
from ..training.teachers import load_teacher
from .arguments import parse
from .program import run_program

PROGRAM = "python -m spvit_mini label"
SECONDS_BETWEEN_LINES = 60  # of progress, where there is no terminal


@dataclass(frozen=True)
class Images:
    """Which images to label."""

    name: str = "folder"
    """The image tree ROOT/NAME/{train,val}/CLASS/*.jpg, as in training; "folder" if ROOT itself is the tree."""
    root: Path = Path("data")
    """The folder that holds the data sets."""
    workers: int = 0
    """Processes that read images; 0 reads them in the main process."""


@dataclass(frozen=True)
class Arguments:
    """A teacher, images, and where the labels go."""

    model: str = ""
    """The teacher: a run folder, a weights file, or torchvision:NAME with --weights."""
    weights: Path | None = None
    """The weights of a torchvision model: its state_dict, as a torch or safetensors file. Nothing is downloaded."""
    archive: Annotated[Path | None, tyro.conf.arg(name="import")] = None
    """In place of a teacher: a folder of the original authors' labels, CLASS/IMAGE.pt."""
    class_names: Path | None = None
    """A text file with the names of the teacher's (or the archive's) classes, one a line, in its order. With it, a teacher
    of more classes than the data have can serve: only the data's are kept."""
    data: Images = field(default_factory=Images)
    part: Literal["train", "val"] = "train"
    """Which part of the images; training wants labels of the training images."""
    out: Path | None = None
    """The folder for the labels; made if missing."""
    top: int = 5
    """How many classes are kept of each cell."""
    image_size: int | None = None
    """Side in pixels of the square that images are squeezed to; the teacher's own frame if not given. A larger one makes
    more cells."""
    batch: int = 32
    """Images that the teacher looks at together."""
    device: str = "auto"
    """Where to compute: auto (CUDA if there, else MPS, else CPU), cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the teacher: auto is bfloat16 autocast on CUDA and float32 elsewhere."""


def main(argv: list[str] | None = None) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        print(__doc__.strip())
        return 0
    arguments = parse(argv, default=Arguments(), prog=PROGRAM, description=__doc__)
    if bool(arguments.model) == (arguments.archive is not None):
        raise UserError(f"either --model names a teacher, or --import a folder of labels; {PROGRAM} --help says more")
    if arguments.out is None:
        raise UserError("--out FOLDER is missing: where the labels go")
    for name in ("top", "batch", "image_size"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
    if arguments.data.workers < 0:
        raise UserError(f"--data.workers is {arguments.data.workers}; it is a number of processes, 0 or more")

    tree = find_tree(arguments.data.name, arguments.data.root)
    listing = tree.listing(train=arguments.part == "train", on_corrupt_image="skip")
    listing = listing.take(torch.from_numpy(np.argsort(listing.paths)))
    about, maps = (by_teacher if arguments.archive is None else by_archive)(arguments, listing)
    write_all(about, maps, listing, arguments.out, batch=arguments.batch_size)
    return 0


class Maps(NamedTuple):
    """What is seen in a batch of images: maps of those at `places` in the listing, and what is wrong with the others."""

    places: list[int]
    scores: np.ndarray  # (n, rows, columns, top), float16
    classes: np.ndarray  # (n, rows, columns, top)
    bad: dict[int, str]


# From batches of places to their maps.
MapsOf = Callable[[list[list[int]]], Iterator[Maps]]


def write_all(about: About, maps_of: MapsOf, listing: Listing, out: Path, *, batch: int) -> None:
    """Write the maps that are missing, batch after batch, and say what was done.

    Batches are cut the same however often the work was stopped: in its last bit, what a teacher computes of an image can
    depend on the size of the batch.
    """
    writer = LabelWriter(out, about, listing.paths)
    batches = [list(range(first, min(first + batch, len(listing)))) for first in range(0, len(listing), batch)]
    missing = [places for places in batches if (writer.status[places] != DONE).any()]
    before = int((writer.status == DONE).sum())
    print(f"labels  by {about.teacher}: {about.grid[0]}×{about.grid[1]} cells, {about.top} of {len(about.classes)} classes")
    print(f"images  {len(listing):,} in {listing.folder}, {before:,} of them labelled before", flush=True)

    new = right = 0
    began = said = time.perf_counter()
    with tqdm(total=len(listing), initial=before, unit="image", dynamic_ncols=True, leave=False, disable=None) as bar:
        for places, scores, classes, bad in maps_of(missing):
            named = best_of_all_cells(scores, classes, len(about.classes)) == listing.labels[places]
            done = [i for i, place in enumerate(places) if writer.status[place] != DONE]
            for i in done:
                writer.write(places[i], scores[i], classes[i])
            for place, reason in bad.items():
                bar.write(f"left out: {listing.path(place)} {reason}", file=sys.stderr)
            writer.commit(done=[places[i] for i in done], bad=list(bad))
            new, right = new + len(done), right + int(named[done].sum())
            bar.update(len(done))
            if bar.disable and (now := time.perf_counter()) - said > SECONDS_BETWEEN_LINES:
                said = now
                print(f"{before + new:,} of {len(listing):,}, {new / (now - began):,.1f} images/s", flush=True)
    writer.close()

    if new:
        seconds = time.perf_counter() - began
        print(f"made    {new:,} maps in {seconds:,.1f} s, {new / seconds:,.1f} images/s")
        print(f"check   the best class, all cells added up, is the folder's for {100 * right / new:.1f} % of them")
    if without := int((writer.status != DONE).sum()):
        print(f"lacks   {without:,} images, named above; the same command tries them again")
    print(f"wrote   {out}, {(out / 'maps.npy').stat().st_size / 2**20:,.1f} MiB; train with --token-labels.folder {out}")


def by_teacher(arguments: Arguments, listing: Listing) -> tuple[About, MapsOf]:
    """Load the teacher, and say what labels it makes and how."""
    teacher = load_teacher(arguments.model, weights=arguments.weights, image_size=arguments.image_size)
    device, precision = choose_device(Recipe(device=arguments.device, precision=arguments.precision))
    cells = teacher.cells.to(device)

    @torch.no_grad()
    def look(images: Tensor) -> Tensor:
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            return cells(images.to(device, non_blocking=True)).float()

    height, width = teacher.preprocessing.image_size
    try:
        *grid, count = look(torch.zeros(1, 3, height, width)).shape[1:]
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{arguments.model} cannot look at {height}×{width} px ({reason}); try another --image-size"
        ) from None
    names = read_names(arguments.class_names) or teacher.classes
    chosen = chosen_classes(names, count, listing.classes, source=arguments.model)
    top = min(arguments.top, len(listing.classes))
    if teacher.note:
        print(f"note    {teacher.note}", file=sys.stderr)

    def maps_of(batches: list[list[int]]) -> Iterator[Maps]:
        loader = DataLoader(
            Squeezed(listing, teacher.preprocessing),
            batch_sampler=batches,
            collate_fn=gather,
            num_workers=arguments.data.workers,
            worker_init_fn=leave_signals_to_the_parent,
            pin_memory=device.type == "cuda",
        )
        for places, images, bad in loader:
            logits = look(images) if places else torch.zeros(0, *grid, count)
            if not logits.isfinite().all():
                raise UserError(f"{arguments.model} answers with numbers that are not finite; try --precision float32")
            scores, classes = best(logits if chosen is None else logits[..., chosen.to(logits.device)], top)
            yield Maps(places, scores.half().cpu().numpy(), classes.cpu().numpy(), bad)

    made = f"{teacher.name}, images squeezed to {height}×{width} px"
    return About(made, listing.classes, tuple(grid), top), maps_of


class Squeezed(Dataset):
    """Give images by their place, whole and squeezed to a teacher's frame: (place, input), or (place, what is wrong)."""

    def __init__(self, listing: Listing, preprocessing: Preprocessing):
        self.listing, self.size = listing, list(preprocessing.image_size)
        self.interpolation, self.to_input = INTERPOLATIONS[preprocessing.interpolation], ToInput(preprocessing)

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, place: int) -> tuple[int, Tensor | str]:
        try:
            image = read_image(self.listing.path(place))
        except BadImage as reason:
            return place, str(reason)
        return place, self.to_input(functional.resize(image, self.size, self.interpolation, antialias=True))


def gather(items: list[tuple[int, Tensor | str]]) -> tuple[list[int], Tensor, dict[int, str]]:
    """Batch the images that could be read; keep the others' reasons."""
    good = [(place, image) for place, image in items if isinstance(image, Tensor)]
    images = torch.stack([image for _, image in good]) if good else torch.empty(0)
    return [place for place, _ in good], images, {place: why for place, why in items if isinstance(why, str)}


def best(logits: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Keep the best classes of each cell: logits (…, classes) to scores (…, top), classes (…, top).

    Scores are logits, shifted so that a class that is left out has 0 in the mean: softmax over the scores and a 0 for each
    class left out has the teacher's probabilities for those that are listed.
    """
    scores, classes = logits.topk(top, dim=-1)
    others = logits.shape[-1] - top
    if others:
        left_out = logits.scatter(-1, classes, -torch.inf)
        scores = scores - (left_out.logsumexp(-1, keepdim=True) - math.log(others))
    return scores, classes


def by_archive(arguments: Arguments, listing: Listing) -> tuple[About, MapsOf]:
    """Find the original authors' labels, and say what they are."""
    chosen = chosen_classes(read_names(arguments.class_names), None, listing.classes, source=str(arguments.archive))
    archive = Archive(arguments.archive, count=len(listing.classes), chosen=chosen)
    grid, top = archive.shape_of(listing.paths)

    def maps_of(batches: list[list[int]]) -> Iterator[Maps]:
        for places in batches:
            read, bad = {}, {}
            for place in places:
                try:
                    read[place] = archive.read(listing.paths[place], shape=(*grid, top))
                except BadImage as reason:
                    bad[place] = str(reason)
            scores = np.array([scores for scores, _ in read.values()]).reshape(-1, *grid, top)
            classes = np.array([classes for _, classes in read.values()]).reshape(-1, *grid, top)
            yield Maps(list(read), scores, classes, bad)

    return About(f"the archive {arguments.archive.resolve().name}", listing.classes, grid, top), maps_of


def best_of_all_cells(scores: np.ndarray, classes: np.ndarray, count: int) -> Tensor:
    """Find the class with the largest sum of scores over all cells: (n,)."""
    scores, classes = (torch.from_numpy(array).flatten(1) for array in (scores, classes))
    return torch.zeros(len(scores), count).scatter_add_(1, classes.long(), scores.float()).argmax(1)


def chosen_classes(names: list[str] | None, count: int | None, wanted: list[str], *, source: str) -> Tensor | None:
    """Say which of the teacher's classes are the data's: (classes,), positions among the teacher's; None if all are.

    Args:
        names: of the teacher's classes, if known.
        count: how many it has, if known.
        wanted: the names of the data's classes.
        source: whose classes they are.

    Raises UserError if the teacher does not know a class, or nobody says which of its classes are which.
    """
    if names is None:
        if count not in (None, len(wanted)):
            raise UserError(
                f"{source} tells {count} classes apart and does not name them, the data have {len(wanted)}; say which is "
                "which with --class-names FILE, a name a line"
            )
        return None
    if count not in (None, len(names)):
        raise UserError(f"{source} tells {count} classes apart, but {len(names)} are named")
    for name in wanted:
        if name not in names:
            cure = "--class-names FILE gives its classes the data's names"
            raise UserError(f"{source} does not know the class {name!r} of the data.{near(name, names)} {cure}")
    return None if names == wanted else torch.tensor([names.index(name) for name in wanted])


def read_names(path: Path | None) -> list[str] | None:
    """Read names, one a line; None if there is no file to read."""
    if path is None:
        return None
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the class names in {path} ({error})") from None


if __name__ == "__main__":
    run_program(main)
