"""Small ImageFolder directories and images for tests, and files that are corrupt in many ways."""

import io
import struct
import zlib
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spvit_mini.errors import UserError

NOT_NORMALISED = {"mean": (0, 0, 0), "std": (1, 1, 1)}


def make_image(seed: int, *, width: int = 24, height: int = 16) -> Image.Image:
    """Make a smooth RGB image that JPEG preserves well, different for each seed."""
    random = np.random.RandomState(seed)
    small = Image.fromarray(random.randint(0, 256, size=(3, 4, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    """Make an RGB image of independent uniform pixels."""
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, size=(height, width, 3), dtype=np.uint8))


def to_pixels(result: torch.Tensor) -> np.ndarray:
    """Convert a float tensor in 0..1 to pixels: (height, width, 3), uint8."""
    return (result * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def encode(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
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


JPEG = encode(make_image(0, width=64, height=48))
PNG = encode(make_image(0, width=64, height=48), "PNG")

# Corrupt files, and a part of the error that names the reason.
CORRUPT = {
    "empty": (b"", "is empty"),
    "text": (b"this is no picture at all\n" * 20, "is no image"),
    "cut_in_half": (JPEG[: len(JPEG) // 2], "is truncated or damaged"),
    "cut_in_header": (JPEG[:40], ""),
    "only_magic": (JPEG[:3], ""),
    "png_cut": (PNG[: len(PNG) // 2], ""),
    "png_damaged": (PNG[:60] + b"\xff" * 200 + PNG[260:], ""),
    "one_pixel": (encode(Image.new("RGB", (1, 1))), "has 1 × 1 pixels"),
    "a_line": (encode(Image.new("RGB", (50, 1))), "has 50 × 1 pixels"),
    "ribbon": (encode(Image.new("RGB", (404, 4))), "has 404 × 4 pixels"),
    "huge": (huge_png(60_000, 60_000), "has more than 89,478,485 pixels, Pillow's limit"),
    "large": (huge_png(10_000, 10_000), "has more than 89,478,485 pixels, Pillow's limit"),
    "avif": (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(200), "is an AVIF image; save it as JPEG or PNG"),
    "avif_of_another_brand": (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf" + bytes(200), "is an AVIF image"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "is a HEIC image; save it as JPEG or PNG"),
    "jpeg_xl": (b"\xff\x0a\xfa\x7f" + bytes(200), "is a JPEG XL image"),
    "jpeg_xl_in_a_box": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(200), "is a JPEG XL image"),
    "jpeg_2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200), "is a JPEG 2000 image"),
    "svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "is an SVG drawing"),
    "page": (b"\r\n<!DOCTYPE html>\n<html><body>404 Not Found</body></html>", "is a web page, such as the error page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "is a Git LFS pointer"),
    "zeros": (bytes(5000), "is nothing but zeros"),
    "float": (encode(Image.new("F", (8, 8)), "TIFF"), "has pixels of mode F"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "is no image"),
}


@pytest.fixture(params=sorted(CORRUPT))
def corrupt_file(request, tmp_path) -> tuple[Path, str]:
    """Return the path of a corrupt file, and a part of the expected error; one test per kind of damage."""
    content, reason = CORRUPT[request.param]
    path = tmp_path / f"{request.param}.jpg"
    path.write_bytes(content)
    return path, reason


@pytest.fixture
def error_of() -> Callable[[Iterable], str]:
    """Return a function that iterates over a loader and returns the message of the UserError that it raises."""

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
def make_image_folder(tmp_path) -> Callable[..., Path]:
    """Make ImageFolder directories: `make_image_folder("pets", {"cat": 4}, val={"cat": 2})` makes tmp_path/pets."""

    def make(name: str, train: dict[str, int] | None, *, val: dict[str, int], part: str = "val", **size) -> Path:
        seed = 0
        for folder, classes in (("train", train), (part, val)):
            for label, count in (classes or {}).items():
                place = tmp_path / name / folder / label
                place.mkdir(parents=True)
                for number in range(count):
                    seed += 1
                    (place / f"{number:03}.jpg").write_bytes(encode(make_image(seed, **size), quality=95))
        return tmp_path / name

    return make
