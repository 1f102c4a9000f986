"""The settings of torch, NumPy and Python under which answers are checked, whatever the notebook has set."""

import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from torch._C import _len_torch_function_stack
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import _pop_mode, _push_mode
from torch.utils import _device

KEEP = object()  # what the notebook has set holds for the check too; it is restored afterwards
TINY = 5e-324  # the smallest number of float64


def current_folder() -> Path | None:
    """Return the working directory; None if it was deleted."""
    with suppress(OSError):
        return Path.cwd()
    return None


def change_folder(folder: Path | None) -> None:
    """Go back to a folder, if that is possible."""
    if folder and folder != current_folder():
        with suppress(OSError):
            os.chdir(folder)


def default_devices() -> tuple[list, Any, Any]:
    """Return torch's function modes, among them `with torch.device`, and the device of `torch.set_default_device`."""
    modes = [_pop_mode() for _ in range(_len_torch_function_stack())][::-1]
    for mode in modes:
        _push_mode(mode)
    return modes, getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None), _device.CURRENT_DEVICE


def set_default_devices(state: tuple[list, Any, Any]) -> None:
    """Replace torch's function modes and its default device."""
    modes, torch._GLOBAL_DEVICE_CONTEXT.device_context, _device.CURRENT_DEVICE = state
    for _ in range(_len_torch_function_stack()):
        _pop_mode()
    for mode in modes:
        _push_mode(mode)


def matmul_precision() -> str | None:
    """Return the precision of float32 products; None if the notebook uses torch's newer settings, one for each backend."""
    with suppress(RuntimeError):
        return torch.get_float32_matmul_precision()
    return None


# How each setting is read, how it is changed, and its value while answers are checked.
SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any], Any], ...] = (
    (default_devices, set_default_devices, ([], None, None)),
    (torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    (torch.is_grad_enabled, torch.set_grad_enabled, True),
    (torch.get_num_threads, torch.set_num_threads, 1),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, 0),
    (
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda both: torch.set_anomaly_enabled(*both),
        (False, True),
    ),
    (lambda: torch.is_autocast_enabled("cpu"), lambda on: torch.set_autocast_enabled("cpu", on), False),
    (
        lambda: torch.backends.mkldnn.matmul.fp32_precision,
        lambda name: setattr(torch.backends.mkldnn.matmul, "fp32_precision", name),
        "ieee",
    ),
    (matmul_precision, lambda name: name and torch.set_float32_matmul_precision(name), KEEP),
    (lambda: TINY * 1.0 == 0, torch.set_flush_denormal, False),
    (lambda: dict(vars(torch._tensor_str.PRINT_OPTS)), lambda options: torch.set_printoptions(**options), KEEP),
    (torch.get_rng_state, torch.set_rng_state, torch.Generator("cpu").manual_seed(0).get_state()),
    (
        lambda: torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        lambda states: torch.cuda.set_rng_state_all(states),
        KEEP,
    ),
    (lambda: np.random.get_state(legacy=False), np.random.set_state, np.random.RandomState(0).get_state(legacy=False)),
    (np.geterr, lambda modes: np.seterr(**modes), {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}),
    (np.get_printoptions, lambda options: np.set_printoptions(**options), KEEP),
    (random.getstate, random.setstate, random.Random(0).getstate()),
    (sys.getrecursionlimit, sys.setrecursionlimit, 3000),
    (
        lambda: dict(dict.items(matplotlib.rcParams)),
        lambda options: dict.update(matplotlib.rcParams, options),
        KEEP,
    ),
    (current_folder, change_folder, KEEP),
)


@contextmanager
def fixed_settings() -> Iterator[None]:
    """Run the block on the CPU in float32, with gradients, one thread and fixed random states; restore all settings afterwards.

    Warnings are ignored, functions of `torch.compile` run as they are written, and attention is computed by its formula.
    """
    with ExitStack() as restore:
        restore.enter_context(torch.inference_mode(False))
        for read, change, value in SETTINGS:
            restore.callback(change, read())
            if value is not KEEP:
                change(value)
        restore.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        restore.enter_context(sdpa_kernel(SDPBackend.MATH))
        if "torch._dynamo" in sys.modules:
            restore.enter_context(torch.compiler.set_stance("force_eager"))
        yield
