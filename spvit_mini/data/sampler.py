"""The order of training images: a function of (seed, epoch) that can start at any step.

The number of completed steps is the only state to save: a resumed run continues with exactly the next batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch.utils.data import Sampler

from ..errors import UserError
from .seeding import make_random_state


class Key(NamedTuple):
    """Identify one view of a training image; together with the seed it determines all random draws of its augmentation."""

    epoch: int  # from 0
    index: int  # type: ignore[assignment]  # of the image; hides tuple.index
    copy: int = 0  # which of the repeated views of the image in this epoch, from 0


class TrainBatches(Sampler[list[Key]]):
    """Yield batches of `Key` without end: each epoch is a new random permutation, cut into full batches.

    Args:
        num_images: number of training images.
        batch_size: images per batch, over all processes.
        seed: seed of the permutations.
        start_step: first batch to yield, counted from the start of training; skipping costs one permutation at most.
        repeats: views of each image in a batch (repeated augmentation, Hoffer et al. 2020). A batch lists the first view of
            all its images, then the second, so that neighbours in a batch, which MixUp mixes, are different images.
        rank: rank of this process among `world_size` processes. Each process yields every `world_size`-th image of a batch.
        micro_batch_size: images per yielded list; None: all images of this process, otherwise a batch is several lists.

    `steps_per_epoch` is floor(num_images / batch_size) for any `repeats`; the images that don't fill a batch differ between
    epochs. Raises UserError if a batch is larger than the dataset, or if processes and micro-batches don't divide it.
    """

    def __init__(
        self, num_images: int, batch_size: int, seed: int, start_step: int = 0, *, repeats: int = 1, rank: int = 0,
        world_size: int = 1, micro_batch_size: int | None = None,
    ) -> None:  # fmt: skip
        if not 1 <= batch_size <= num_images:
            raise UserError(f"batch_size is {batch_size}; expected 1 to {num_images}, the number of training images")
        if batch_size % (world_size * (micro_batch_size or 1)):
            by = f"{world_size} processes" + (f" with micro-batches of {micro_batch_size}" if micro_batch_size else "")
            raise UserError(f"batch_size is {batch_size}, which {by} cannot share evenly; change batch_size or micro_batch_size")
        self.num_images, self.batch_size, self.seed, self.start_step = num_images, batch_size, seed, start_step
        self.repeats, self.rank, self.world_size = repeats, rank, world_size
        self.micro_batch_size = micro_batch_size or batch_size // world_size

    @property
    def steps_per_epoch(self) -> int:
        """Count the batches of an epoch."""
        return self.num_images // self.batch_size

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, first = divmod(self.start_step, self.steps_per_epoch)
        while True:
            order = make_random_state("training order", self.seed, epoch).permutation(self.num_images).tolist()
            for step in range(first, self.steps_per_epoch):
                views = (divmod(view, self.repeats) for view in range(step * self.batch_size, (step + 1) * self.batch_size))
                keys = sorted((Key(epoch, order[i], copy) for i, copy in views), key=lambda key: key.copy)
                keys = keys[self.rank :: self.world_size]
                for start in range(0, len(keys), self.micro_batch_size):
                    yield keys[start : start + self.micro_batch_size]
            epoch, first = epoch + 1, 0
