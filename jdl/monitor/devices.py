"""What the machine can do and what it holds: peak arithmetic of devices, and memory."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdl.show import text

# Dense bfloat16 (float16 where a device has no bfloat16) FLOP/s of one device as jax counts them, without sparsity, by
# a part of its kind; the first match counts, so longer names stand first. From the data sheets of NVIDIA (H200, H100,
# A100, L4, L40S, A10, T4, V100, RTX Blackwell and Ada architecture papers) and the system pages of Google Cloud TPU.
# Of a TPU v2 or v3, jax counts the two cores of a chip as devices of their own.
PEAKS = {
    "GB200": 2.5e15,
    "B200": 2.25e15,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A10": 125e12,
    "T4": 65e12,
    "V100": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v4": 275e12,
    "TPU v3": 61.5e12,
    "TPU v2": 22.5e12,
}
_SIZES = (1024, 4096)  # of the matrices that a CPU multiplies; the larger where the smaller takes no time
_SHORTEST = 5e-3  # seconds


class Peak(NamedTuple):
    """Floating-point operations a second of all devices together, a multiply-add counting two, and who says so."""

    flops: float
    source: str

    def __str__(self) -> str:
        return f"{text.number(self.flops, 'FLOP/s')} ({self.source})"


def peak_of(devices: Collection[Any]) -> Peak | None:
    """The peak of these devices, from their data sheets; of a CPU what a matrix product reaches, measured once.

    Virtual devices of one CPU share its cores and count once. ``None`` for a device that is not in the table.
    """
    device = next(iter(devices))
    if device.platform == "cpu":
        return _measured()
    for kind, flops in PEAKS.items():
        if kind.lower() in device.device_kind.lower():
            times = f"{len(devices)} × " if len(devices) > 1 else ""
            return Peak(flops * len(devices), f"{times}{device.device_kind}, dense bfloat16, data sheet")
    return None


@functools.cache
def _measured() -> Peak:
    """The best of several products of square float32 matrices."""
    multiply = jax.jit(jnp.matmul)
    best = size = 0
    for size in _SIZES:
        matrix = jax.device_put(jnp.ones((size, size), jnp.float32), jax.devices("cpu")[0])
        multiply(matrix, matrix).block_until_ready()
        seconds = []
        for _ in range(5):
            begin = time.perf_counter()
            multiply(matrix, matrix).block_until_ready()
            seconds.append(time.perf_counter() - begin)
        best = 2 * size**3 / min(seconds)
        if min(seconds) > _SHORTEST:
            break
    return Peak(best, f"this CPU multiplying float32 matrices of {size} × {size}, measured")


def memory(devices: Collection[Any]) -> dict[str, int]:
    """Bytes: what the fullest device holds and the most it held, where the platform tells; on Linux the process's too.

    ``device_memory``, ``device_memory_peak``, and ``process_memory``, what of this process is resident.
    """
    found: dict[str, int] = {}
    stats = [stats for device in devices if (stats := device.memory_stats())]
    for name, key in (("device_memory", "bytes_in_use"), ("device_memory_peak", "peak_bytes_in_use")):
        if values := [each[key] for each in stats if key in each]:
            found[name] = max(values)
    if (resident := _resident()) is not None:
        found["process_memory"] = resident
    return found


def _resident() -> int | None:
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
