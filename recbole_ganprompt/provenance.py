"""Where and when a result was made."""

import os
import platform
import subprocess
from datetime import datetime
from pathlib import Path

import psutil
import torch

ROOT = Path(__file__).resolve().parents[1]


def provenance() -> dict:
    """Date, commit and machine of what begins now.

    Returns
    -------
    dict
        ``date``; ``commit`` of this package's own repository and ``dirty``, whether its files were changed
        since (both None where it was installed without one, or without git); ``machine``.
    """
    processor = platform.processor() or platform.machine()
    names = Path("/proc/cpuinfo")
    if names.is_file():
        lines = [line for line in names.read_text().splitlines() if line.startswith("model name")]
        processor = lines[0].partition(":")[2].strip() if lines else processor
    top, commit = (_git("rev-parse", "--show-toplevel", "--short", "HEAD") or "\n").split("\n")
    ours = bool(top) and Path(top).resolve() == ROOT  # and not that of the project it is installed in
    changes = _git("status", "--porcelain", "--untracked-files=no") if ours else None
    return {
        "date": datetime.now().isoformat(timespec="seconds"),
        "commit": commit if ours else None,
        "dirty": None if changes is None else bool(changes),
        "machine": {
            "processor": processor,
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        },
    }


def _git(*arguments: str) -> str | None:
    try:
        found = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return os.fsdecode(found.stdout).strip()
