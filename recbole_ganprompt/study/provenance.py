"""Where and when a result was made."""

import os
import platform
import subprocess
from datetime import datetime
from pathlib import Path

import psutil
import torch


def provenance() -> dict:
    """Date, commit and machine of a result."""
    here = Path(__file__).resolve().parent
    found = subprocess.run(
        ["git", "-C", str(here), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    processor = platform.processor() or platform.machine()
    names = Path("/proc/cpuinfo")
    if names.is_file():
        lines = [line for line in names.read_text().splitlines() if line.startswith("model name")]
        processor = lines[0].partition(":")[2].strip() if lines else processor
    return {
        "date": datetime.now().isoformat(timespec="seconds"),
        "commit": found.stdout.strip() or None,
        "machine": {
            "processor": processor,
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        },
    }
