"""The order in which training images come: a function of (seed, epoch), which can be entered at any step.

Nothing needs to be saved but the number of steps made: a resumed run goes on with the very batch that was next.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch.utils.data import Sampler

from ..errors import UserError
from .seeding import stream


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
        batch: images a batch, over all processes.
        seed: decides the orders, with the epoch.
        start_step: the batch to begin with, counted from the very first; it costs no more than one order to get there.
        repeats: how many views of an image stand in a batch (repeated augmentation, Hoffer et al. 2020). The views come
            one round after another, so that neighbours in a batch, which MixUp mixes, are different images.
        rank: which process this is, of `world`. Each takes every `world`-th image of a batch.
        micro: images a process takes at once, if not its whole part: a batch then comes in several lists.

    `steps_per_epoch` is floor(images / batch), whatever `repeats`; the images left over differ from epoch to epoch.
    Raises UserError if there are fewer images than a batch holds, or if processes and micro-batches don't divide it.
    """

    def __init__(
        self,
        images: int,
        batch: int,
        seed: int,
        start_step: int = 0,
        *,
        repeats: int = 1,
        rank: int = 0,
        world: int = 1,
        micro: int | None = None,
    ) -> None:
        if batch < 1:
            raise UserError(f"a batch must hold at least one image, not {batch}")
        if batch > images:
            raise UserError(f"a batch of {batch} is more than the {images} training images; make it smaller")
        if batch % (world * (micro or 1)):
            of = f"{world} processes with micro-batches of {micro}" if micro else f"{world} processes"
            raise UserError(f"a batch of {batch} images cannot be shared evenly by {of}; change batch or micro_batch_size")
        self.images, self.batch, self.seed, self.start_step = images, batch, seed, start_step
        self.repeats, self.rank, self.world, self.micro = repeats, rank, world, micro or batch // world

    @property
    def steps_per_epoch(self) -> int:
        """Count the batches of an epoch."""
        return self.images // self.batch

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, first = divmod(self.start_step, self.steps_per_epoch)
        while True:
            order = stream("training order", self.seed, epoch).permutation(self.images).tolist()
            for step in range(first, self.steps_per_epoch):
                places = (divmod(place, self.repeats) for place in range(step * self.batch, (step + 1) * self.batch))
                keys = sorted((Key(epoch, order[i], copy) for i, copy in places), key=lambda key: key.copy)
                own = keys[self.rank :: self.world]
                for start in range(0, len(own), self.micro):
                    yield own[start : start + self.micro]
            epoch, first = epoch + 1, 0
