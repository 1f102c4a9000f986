"""Random numbers that are the same on every machine and in every year.

Orders and made images are drawn from numpy's `RandomState`: numpy promises that its streams never change (NEP 19), as
it does not for `default_rng`, nor torch for its generators. Each purpose has a stream of its own, so that no two parts
of a set, and no two sets, ever share numbers.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ..errors import UserError


def check_seed(seed: int) -> None:
    """Raise UserError for a seed that is negative or too large."""
    if not 0 <= seed < 2**64:
        raise UserError(f"a seed must be a whole number from 0 to 2**64 - 1, not {seed}")


def stream(purpose: str, seed: int, *numbers: int) -> np.random.RandomState:
    """Make the random stream of a purpose (such as "compass train"), a seed and further numbers, all from 0 to 2⁶⁴ − 1.

    Raises UserError for another seed.
    """
    check_seed(seed)
    words = [zlib.crc32(purpose.encode())]
    for number in (seed, *numbers):
        words += [number & 0xFFFFFFFF, number >> 32]
    return np.random.RandomState(words)


def seed_of(seed: int, *numbers: int) -> int:
    """Make one seed of 32 bits of several numbers. Torch's CPU generator reads no more of its seed, hence the hash."""
    digest = hashlib.blake2b(struct.pack(f"<Q{len(numbers)}q", seed, *numbers), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 32


@contextmanager
def torch_seeded(seed: int, *numbers: int) -> Iterator[None]:
    """Make torch's global CPU generator a function of these numbers alone; after the block it is as it was before.

    torchvision's transforms know no other generator.
    """
    generator = torch.default_generator
    state = generator.get_state()
    try:
        generator.manual_seed(seed_of(seed, *numbers))
        yield
    finally:
        generator.set_state(state)
