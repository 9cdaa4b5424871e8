"""The machine that measured something."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

CPUINFO = Path("/proc/cpuinfo")


def machine(device: torch.device) -> dict[str, Any]:
    """Return processor, cores, threads and device, for the record of a measurement.

    Args:
        device: Device of the measurement.
    """
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "system": platform.platform(terse=True),
    }


def processor() -> str:
    """Return the name of the processor; on Linux that of /proc/cpuinfo, which `platform` does not read."""
    return next(iter(cpu_info("model name")), platform.processor() or platform.machine())


def cpu_info(field: str) -> list[str]:
    """Return a field of /proc/cpuinfo for each processor; on other systems than Linux there is none.

    Args:
        field: Name of the field.
    """
    text = CPUINFO.read_text(encoding="utf-8") if CPUINFO.exists() else ""
    lines = (line.partition(":") for line in text.splitlines())
    return [value.strip() for name, _, value in lines if name.strip() == field]
