"""The order in which training images come: a function of (seed, epoch), which can be entered at any step.

Nothing needs to be saved but the number of steps made: a resumed run goes on with the very batch that was next.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch.utils.data import Sampler

from ..errors import UserError
from .streams import stream


class Key(NamedTuple):
    """Name one view of a training image; with the seed it decides all randomness of its augmentation.

    Attributes:
        epoch: which pass over the images, from 0.
        index: which image.
        copy: which of several views of the image in one epoch, from 0.
    """

    epoch: int
    index: int
    copy: int = 0


class TrainBatches(Sampler[list[Key]]):
    """Yield batches of `Key` without end: each epoch is a new random order, of which whole batches are used.

    Args:
        images: how many there are.
        batch: images a batch.
        seed: decides the orders, with the epoch.
        start_step: the batch to begin with, counted from the very first; it costs no more than one order to get there.

    `steps_per_epoch` is floor(images / batch); the images left over differ from epoch to epoch.
    Raises UserError if there are fewer images than a batch holds.
    """

    def __init__(self, images: int, batch: int, seed: int, start_step: int = 0) -> None:
        if batch < 1:
            raise UserError(f"a batch must hold at least one image, not {batch}")
        if batch > images:
            raise UserError(f"a batch of {batch} is more than the {images} training images; make it smaller")
        self.images, self.batch, self.seed, self.start_step = images, batch, seed, start_step

    @property
    def steps_per_epoch(self) -> int:
        """Count the batches of an epoch."""
        return self.images // self.batch

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, first = divmod(self.start_step, self.steps_per_epoch)
        while True:
            order = stream("training order", self.seed, epoch).permutation(self.images).tolist()
            for step in range(first, self.steps_per_epoch):
                yield [Key(epoch, index) for index in order[step * self.batch : (step + 1) * self.batch]]
            epoch, first = epoch + 1, 0
