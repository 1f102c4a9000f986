"""Peaks of devices by the names that torch gives them, and MFU against numbers worked by hand."""

import pytest
import torch

from spvit_mini.flops import multiply_adds
from spvit_mini.training import devices
from spvit_mini.training.devices import compute_mfu, device_name, peak_flops, training_flops
from spvit_mini.zoo import MODELS

NAMES = {
    "Tesla V100-SXM2-16GB": 125,
    "Tesla V100-PCIE-32GB": 112,
    "Tesla V100S-PCIE-32GB": 130,
    "Tesla T4": 65,
    "NVIDIA A10": 125,
    "NVIDIA A10G": 70,
    "NVIDIA A40": 149.7,
    "NVIDIA RTX A6000": 154.8,
    "NVIDIA A100-SXM4-80GB": 312,
    "NVIDIA A100 80GB PCIe": 312,
    "NVIDIA A800-SXM4-80GB": 312,
    "NVIDIA L4": 121,
    "NVIDIA L40": 181.05,
    "NVIDIA L40S": 362.05,
    "NVIDIA GeForce RTX 3090": 71,
    "NVIDIA GeForce RTX 4090": 165.2,
    "NVIDIA GeForce RTX 5090": 209.5,
    "NVIDIA H100 80GB HBM3": 989.4,
    "NVIDIA H100 PCIe": 756,
    "NVIDIA H100 NVL": 835.5,
    "NVIDIA H800": 989.4,
    "NVIDIA GH200 480GB": 989.4,
    "NVIDIA H200": 989.4,
    "NVIDIA H200 NVL": 835.5,
    "NVIDIA B200": 2250,
    "NVIDIA B300 SXM6 AC": 2250,
    "NVIDIA GB200": 2500,
    "AMD Instinct MI250X": 191.5,
    "AMD Instinct MI300X": 1307.4,
    "AMD Instinct MI325X": 1307.4,
    "AMD Instinct MI355X": 2516.6,
}
UNKNOWN = [
    "NVIDIA H20",
    "NVIDIA A2",
    "NVIDIA A1000",
    "NVIDIA T400",
    "NVIDIA GeForce RTX 3090 Ti",
    "NVIDIA GeForce RTX 4090 D",
    "NVIDIA GeForce RTX 4090 Laptop GPU",
    "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
    "CPU, 2 threads",
    "MPS",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_device_is_found_under_its_own_name(name):
    assert peak_flops(name, torch.bfloat16) == peak_flops(name, torch.float16) == NAMES[name] * 1e12
    assert peak_flops(name, torch.float32) < NAMES[name] * 1e12 / 1.9


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_unknown_or_a_part_of_a_device_has_no_peak(name):
    assert peak_flops(name, torch.bfloat16) is peak_flops(name, torch.float32) is None
    assert compute_mfu(1000.0, multiply_adds=10**9, peak=None) is None


def test_every_row_of_the_table_is_reached():
    rows = {(1e12 * half, 1e12 * single) for _, half, single in devices.PEAKS}
    found = {(peak_flops(n, torch.bfloat16), peak_flops(n, torch.float32)) for n in [*NAMES, "NVIDIA A30"]}
    assert found == rows


def test_mfu_by_hand():
    assert training_flops(4_600_000_000) == 27_600_000_000
    # 1,000 images of 27.6 GFLOP a second are 27.6 TFLOP/s: 8.846… % of an A100's 312, and a fourth of that on four.
    peak = peak_flops("NVIDIA A100-SXM4-80GB", torch.bfloat16)
    assert compute_mfu(1000, multiply_adds=4_600_000_000, peak=peak) == pytest.approx(100 * 27.6 / 312)
    assert compute_mfu(1000, multiply_adds=4_600_000_000, peak=peak, devices=4) == pytest.approx(100 * 27.6 / 312 / 4)
    # In float32 an A100 has 19.5 TFLOP/s, so that 500 images, 13.8 TFLOP/s, are 70.8 %.
    single = peak_flops("NVIDIA A100-SXM4-80GB", torch.float32)
    assert compute_mfu(500, multiply_adds=4_600_000_000, peak=single) == pytest.approx(70.769, abs=1e-3)


def test_a_published_speed_gives_the_utilisation_that_others_counted():
    """DeiT-S on an RTX 3090, mixed precision: 1,054 images a second (timm's tables, torch 1.12) are 41 % of 71 TFLOP/s."""
    cost = multiply_adds(MODELS["deit_small"])["total"]
    assert cost == pytest.approx(4.6e9, rel=0.02)
    peak = peak_flops("NVIDIA GeForce RTX 3090", torch.float16)
    assert compute_mfu(1054, multiply_adds=cost, peak=peak) == pytest.approx(41, abs=0.6)


def test_a_device_is_named(monkeypatch):
    for threads, text in ((1, "CPU, 1 thread"), (3, "CPU, 3 threads")):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert device_name(torch.device("cpu")) == text
    assert device_name(torch.device("mps")) == "MPS"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA {device.index}")
    assert device_name(torch.device("cuda:3")) == "NVIDIA 3"
