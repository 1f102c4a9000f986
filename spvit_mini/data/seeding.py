"""Random numbers that are the same on every machine, with every version of the libraries.

Orders and synthetic images are drawn from numpy's `RandomState`: numpy guarantees that its streams never change (NEP 19),
in contrast to `default_rng` and to torch's generators. Each purpose has its own stream, so that no two splits and no two
datasets share random numbers.
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
        raise UserError(f"the seed is {seed}; expected an integer from 0 to 2**64 - 1")


def make_random_state(purpose: str, seed: int, *numbers: int) -> np.random.RandomState:
    """Make the random stream of a purpose (such as "compass train"), a seed and further numbers, all from 0 to 2⁶⁴ − 1.

    Raises UserError for any other seed.
    """
    check_seed(seed)
    words = [zlib.crc32(purpose.encode())]
    for number in (seed, *numbers):
        words += [number & 0xFFFFFFFF, number >> 32]
    return np.random.RandomState(words)


def derive_seed(seed: int, *numbers: int) -> int:
    """Hash several numbers to one seed of 32 bits: torch's CPU generator uses no more bits of its seed."""
    digest = hashlib.blake2b(struct.pack(f"<Q{len(numbers)}q", seed, *numbers), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 32


@contextmanager
def fork_torch_rng(seed: int, *numbers: int) -> Iterator[None]:
    """Seed torch's global CPU generator with these numbers, and restore its state after the block.

    torchvision's transforms use no other generator.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, *numbers))
        yield
