"""Small image trees for tests, and files that are broken in every way that was thought of."""

import io
import struct
import zlib
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spvit_mini.errors import UserError


def picture(seed: int, *, width: int = 24, height: int = 16) -> Image.Image:
    """Make a smooth RGB picture that JPEG keeps well, different for each seed."""
    random = np.random.RandomState(seed)
    small = Image.fromarray(random.randint(0, 256, size=(3, 4, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    """Encode an image."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """Make a PNG whose header claims a size that its data don't have."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


JPEG = encoded(picture(0, width=64, height=48))
PNG = encoded(picture(0, width=64, height=48), "PNG")

# What is broken, and what the error must say of it.
BROKEN = {
    "empty": (b"", "is empty"),
    "text": (b"this is no picture at all\n" * 20, "is no image"),
    "cut_in_half": (JPEG[: len(JPEG) // 2], "is truncated or damaged"),
    "cut_in_header": (JPEG[:40], ""),
    "only_magic": (JPEG[:3], ""),
    "png_cut": (PNG[: len(PNG) // 2], ""),
    "png_damaged": (PNG[:60] + b"\xff" * 200 + PNG[260:], ""),
    "one_pixel": (encoded(Image.new("RGB", (1, 1))), "has 1 × 1 pixels"),
    "a_line": (encoded(Image.new("RGB", (50, 1))), "has 50 × 1 pixels"),
    "ribbon": (encoded(Image.new("RGB", (404, 4))), "has 404 × 4 pixels"),
    "huge": (huge_png(60_000, 60_000), "decompression bomb"),
    "large": (huge_png(10_000, 10_000), "claims 10000 × 10000 pixels"),
    "float": (encoded(Image.new("F", (8, 8)), "TIFF"), "has pixels of mode F"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "is no image"),
}


@pytest.fixture(params=sorted(BROKEN))
def broken(request, tmp_path) -> tuple[Path, str]:
    """Give the path of a broken file, and a part of what the error must say; one test for each way."""
    content, reason = BROKEN[request.param]
    path = tmp_path / f"{request.param}.jpg"
    path.write_bytes(content)
    return path, reason


@pytest.fixture
def said_by() -> Callable[[Iterable], str]:
    """Give a function that goes through a loader and returns what the UserError on the way said."""

    def said(loader: Iterable) -> str:
        try:
            for _ in islice(loader, 100):
                pass
        except UserError as error:
            # The traceback is part of a cycle that holds the loader's iterator. Collected as garbage, that waits five
            # seconds for each worker process; let go of here, it does not.
            error.__traceback__ = None
            return str(error)
        raise AssertionError("no error")

    return said


@pytest.fixture
def make_tree(tmp_path) -> Callable[..., Path]:
    """Make image trees: `make_tree("pets", {"cat": 4, "dog": 4}, val={"cat": 2, "dog": 2})` gives tmp_path/pets."""

    def make(name: str, train: dict[str, int] | None, *, val: dict[str, int], part: str = "val", **size) -> Path:
        seed = 0
        for folder, classes in (("train", train), (part, val)):
            for label, count in (classes or {}).items():
                place = tmp_path / name / folder / label
                place.mkdir(parents=True)
                for number in range(count):
                    seed += 1
                    (place / f"{number:03}.jpg").write_bytes(encoded(picture(seed, **size), quality=95))
        return tmp_path / name

    return make
