"""The device of a run, its peak performance, and MFU: model FLOPs utilisation.

MFU is the share of a device's peak that the arithmetic of the model uses (Chowdhery et al. 2022, PaLM, appendix B):
images per second × 3 × 2 × multiply-adds per image, over the peak. The factor 2: a multiply-add is two operations. The factor 3:
the backward pass does twice the work of the forward pass. Recomputed activations do not count. `flops.py` has the counting
rule of multiply-adds.
"""

import os
import re

import torch

from ..errors import UserError
from ..recipes.recipe import Recipe

# Peaks in TFLOP/s from the data sheets of NVIDIA and AMD, accumulated in float32 and without sparsity (the numbers "with
# sparsity" in the sheets are twice these): 16-bit matrix arithmetic, and float32 without TF32, torch's default. A pattern must
# match whole words, so that "H200" does not match "GH200", nor "L4" "L40". V100 and T4 have fast arithmetic in float16 only;
# their bfloat16 is emulated, and the MFU shows it.
PEAKS = (
    (r"V100S", 130, 16.4),  # Tesla V100S-PCIE-32GB; NVIDIA V100 data sheet
    (r"V100-SXM\d", 125, 15.7),  # the same
    (r"V100-PCIE", 112, 14.0),  # the same
    (r"T4", 65, 8.1),  # NVIDIA T4 data sheet
    (r"A10", 125, 31.2),  # NVIDIA A10 data sheet
    (r"A10G", 70, 35.0),  # NVIDIA A10G data sheet
    (r"A30", 165, 10.3),  # NVIDIA A30 data sheet
    (r"A40", 149.7, 37.4),  # NVIDIA A40 data sheet
    (r"RTX A6000", 154.8, 38.7),  # NVIDIA RTX A6000 data sheet
    (r"A[18]00", 312, 19.5),  # NVIDIA A100 data sheet, SXM and PCIe alike
    (r"L4", 121, 30.3),  # NVIDIA L4 data sheet
    (r"L40", 181.05, 90.5),  # NVIDIA L40 data sheet
    (r"L40S", 362.05, 91.6),  # NVIDIA L40S data sheet
    (r"RTX 3090", 71, 35.6),  # NVIDIA GA102 whitepaper, appendix A
    (r"RTX 4090", 165.2, 82.6),  # NVIDIA Ada whitepaper, appendix A
    (r"RTX 5090", 209.5, 104.8),  # NVIDIA RTX Blackwell whitepaper, appendix A
    (r"H100 PCIe", 756, 51),  # NVIDIA H100 data sheet
    (r"H100 NVL", 835.5, 60),  # the same, later edition
    (r"H[18]00", 989.4, 67),  # the same, SXM
    (r"GH200", 989.4, 67),  # NVIDIA GH200 data sheet
    (r"H200 NVL", 835.5, 60),  # NVIDIA H200 data sheet
    (r"H200", 989.4, 67),  # the same, SXM
    (r"B[23]00", 2250, 75),  # NVIDIA HGX page: 36 PFLOP/s with sparsity, 600 TFLOP/s in float32, of eight
    (r"GB[23]00", 2500, 80),  # NVIDIA GB200 and GB300 NVL72 pages: 360 PFLOP/s with sparsity, 5,760 TFLOP/s, of 72
    # float32 of AMD's is the peak of its matrix cores, which torch uses. For torch half of an MI250X is a device.
    (r"MI250X", 191.5, 47.9),  # AMD Instinct MI250X data sheet: 383 and 95.7 of both halves
    (r"MI3(00|25)X", 1307.4, 163.4),  # AMD Instinct MI300X and MI325X data sheets
    (r"MI355X", 2516.6, 157.3),  # AMD Instinct MI355X data sheet
)
# A partition of a device, or a smaller or cooler chip of the same number: all slower than the number suggests.
SLOWER = re.compile(r"\b(MIG|Laptop|Max-Q|Mobile|Ti|D)\b")


def choose_device(recipe: Recipe) -> tuple[torch.device, torch.dtype]:
    """Find the device of a recipe, and the precision of the forward pass on it. Raises UserError for a missing device.

    Under torchrun, "auto" and "cuda" give each process the device of its local rank.
    """
    name = recipe.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):  # a torch without CUDA raises AssertionError
        raise UserError(f"device is {name!r}; expected a device of this machine. Use auto or cpu.") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if recipe.precision == "auto":
        return device, torch.bfloat16 if device.type == "cuda" else torch.float32
    return device, getattr(torch, recipe.precision)


def device_name(device: torch.device) -> str:
    """Get the product name of a GPU; of a CPU the number of threads that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}" if device.type == "cpu" else device.type.upper()


def peak_flops(name: str, precision: torch.dtype) -> float | None:
    """Look up the peak of a device by torch's name for it, in operations per second; None if it is unknown."""
    if SLOWER.search(name):
        return None
    for pattern, half, single in PEAKS:
        if re.search(rf"(?<![A-Za-z0-9]){pattern}(?![A-Za-z0-9])", name):
            return 1e12 * (single if precision == torch.float32 else half)
    return None


def training_flops(multiply_adds: int) -> int:
    """Count the operations of the forward and backward pass of one image, from the multiply-adds of its forward pass."""
    return 3 * 2 * multiply_adds


def compute_mfu(images_per_second: float, *, multiply_adds: int, peak: float | None, devices: int = 1) -> float | None:
    """Compute the model FLOPs utilisation of all `devices` in percent; None if the peak is unknown."""
    if peak is None:
        return None
    return 100 * images_per_second * training_flops(multiply_adds) / (peak * devices)
