"""What devices could do at best, and how much of it a run makes use of: MFU, model FLOPs utilisation.

Of all that a device could compute in the time, MFU is the part that is the model's own arithmetic (Chowdhery et al. 2022,
PaLM, appendix B): images a second × 3 × 2 × multiply-adds of an image, over the peak. 2, since a multiply-add is two
operations; 3, since the backward pass does the forward's work twice more. What is computed a second time to save memory
does not count. The counting rule of multiply-adds is in cost.py.
"""

import re

import torch

# Peaks in TFLOP/s, of the data sheets of NVIDIA and AMD, sums kept in float32 and no sparsity counted (the sheets' numbers
# "with sparsity" are twice these): 16-bit matrix arithmetic, and float32 without TF32, as torch multiplies by default. A
# name is matched from its first letter to the end of a word, so that "H200" is not found in "GH200", nor "L4" in "L40".
# V100 and T4 have fast arithmetic in float16 alone; their bfloat16 is emulated, and its MFU will show it.
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
    # float32 of AMD's is that of its matrix cores, which torch multiplies with. torch sees half of an MI250X as a device.
    (r"MI250X", 191.5, 47.9),  # AMD Instinct MI250X data sheet: 383 and 95.7 of both halves
    (r"MI3(00|25)X", 1307.4, 163.4),  # AMD Instinct MI300X and MI325X data sheets
    (r"MI355X", 2516.6, 157.3),  # AMD Instinct MI355X data sheet
)
# A part of a device, a narrower chip of the same number, or one that is kept cooler: all slower than the name says.
OTHERS = re.compile(r"\b(MIG|Laptop|Max-Q|Mobile|Ti|D)\b")


def name_of(device: torch.device) -> str:
    """Name a device as its maker does; a CPU by the number of threads that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}" if device.type == "cpu" else device.type.upper()


def peak_flops(name: str, precision: torch.dtype) -> float | None:
    """Look up the peak of a device, by the name that torch gives it, in operations a second; None if it isn't known."""
    if OTHERS.search(name):
        return None
    for pattern, half, single in PEAKS:
        if re.search(rf"(?<![A-Za-z0-9]){pattern}(?![A-Za-z0-9])", name):
            return 1e12 * (single if precision == torch.float32 else half)
    return None


def training_flops(multiply_adds: int) -> int:
    """Count the operations of one image's training, forward and backward, from the multiply-adds of its forward pass."""
    return 3 * 2 * multiply_adds


def mfu(images_per_second: float, *, multiply_adds: int, peak: float | None, devices: int = 1) -> float | None:
    """Compute the percent of the peak of all `devices` that the model's own arithmetic makes use of; None without a peak."""
    if peak is None:
        return None
    return 100 * images_per_second * training_flops(multiply_adds) / (peak * devices)
