"""Mutations of good files and values, drawn from a seeded random generator: what disks, networks and editors do to them."""

import copy
import json
import math
from random import Random
from typing import Any

import torch
from torch import Tensor

ODD_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**70, 1.5, -0.5, 1e-300, math.nan, math.inf, -math.inf,
    "", "nonsense", "8", "½ 船 \udcff", [], [1], ["a", None], {}, {"a": 1}, [[[]]],
]  # fmt: skip


def mutate_bytes(content: bytes, random: Random) -> bytes:
    """Damage a file's bytes: cut off, flipped, overwritten, inserted, removed, moved, emptied."""
    if not content:
        return bytes([random.randrange(256)])
    start = random.randrange(len(content))
    stop = min(len(content), start + random.choice((1, 8, 64, 4096)))
    piece, noise = content[start:stop], random.randbytes(stop - start)
    if random.random() < 0.5:  # where the headers are
        start, stop = (at // max(1, len(content) // 256) for at in (start, stop + 1))
    return random.choice(
        (
            lambda: content[:start],
            lambda: content[start:],
            lambda: content[:start] + bytes(len(piece)) + content[start + len(piece) :],
            lambda: content[:start] + noise + content[start + len(noise) :],
            lambda: content[:start] + noise + content[start:],
            lambda: content[:start] + content[stop:],
            lambda: content + piece,
            lambda: content[:start] + bytes([content[start] ^ 1 << random.randrange(8)]) + content[start + 1 :],
            lambda: b"",
            lambda: b"\xef\xbb\xbf" + content,
            lambda: content.replace(b"\n", b"\r\n"),
            lambda: b"<!DOCTYPE html><html>404 Not Found</html>",
        )
    )()


def mutate_value(value: Any, random: Random) -> Any:
    """Change one node of a nested value, such as the content of a JSON file or of a training state."""
    value = copy.deepcopy(value)
    nodes = list(list_nodes(value))
    if not nodes:
        return random.choice(ODD_VALUES)
    parent, key = random.choice(nodes)
    change = random.choice(("replace", "replace", "remove", "rename", "wrap", "exchange"))
    if change == "remove":
        del parent[key]
    elif change == "rename" and isinstance(parent, dict):
        parent[f"{key}_2"] = parent.pop(key)
    elif change == "wrap":
        parent[key] = random.choice((lambda v: [v], lambda v: {"value": v}, lambda v: [v, v]))(parent[key])
    elif change == "exchange":
        other, at = random.choice(nodes)
        parent[key] = copy.deepcopy(other[at])  # not swapped: a node may contain the other
    else:
        parent[key] = mutate_tensor(parent[key], random) if isinstance(parent[key], Tensor) else random.choice(ODD_VALUES)
    return value


def list_nodes(value: Any) -> Any:
    """List (container, key or index) of all nodes of a nested value, but its root."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from list_nodes(inner)


def mutate_tensor(tensor: Tensor, random: Random) -> Any:
    """Change a tensor's type, shape or numbers."""
    return random.choice(
        (
            lambda: tensor.double(),
            lambda: tensor.to(torch.int64),
            lambda: tensor.half(),
            lambda: tensor.flatten(),
            lambda: tensor[None],
            lambda: torch.cat([tensor.flatten(), tensor.flatten()]),
            lambda: tensor.flatten()[:0],
            lambda: tensor.new_tensor(1),
            lambda: torch.full_like(tensor, math.nan if tensor.is_floating_point() else -1),
            lambda: random.choice(ODD_VALUES),
        )
    )()


def mutate_json(text: str, random: Random) -> str:
    """Change one to three nodes of a JSON text; now and then its bytes."""
    value = json.loads(text)
    for _ in range(random.choice((1, 1, 2, 3))):
        value = mutate_value(value, random)
    return json.dumps(value)
