"""Clock and memory gauge of a run's stages."""

import threading
from contextlib import contextmanager
from time import perf_counter

import psutil
import torch


class Stages:
    """Seconds and peak memory of each stage of a run.

    Attributes
    ----------
    records : dict
        For each stage by name: ``seconds`` and ``peak_memory_mb`` (resident set of this process in
        10^6 bytes, sampled 20 times a second; ``peak_gpu_memory_mb`` too where CUDA is used).
    """

    INTERVAL = 0.05

    def __init__(self):
        self.records: dict[str, dict[str, float]] = {}
        self._started = perf_counter()

    @contextmanager
    def stage(self, name: str):
        """Measure what happens inside the ``with`` block; a second time adds to the first."""
        process, done, peak = psutil.Process(), threading.Event(), [0]

        def watch():
            while True:
                peak[0] = max(peak[0], process.memory_info().rss)
                if done.wait(self.INTERVAL):
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        started = perf_counter()
        try:
            yield
        finally:
            seconds = perf_counter() - started
            done.set()
            watcher.join()
            record = self.records.setdefault(name, {"seconds": 0.0, "peak_memory_mb": 0.0})
            record["seconds"] += seconds
            record["peak_memory_mb"] = max(record["peak_memory_mb"], peak[0] / 1e6)
            if torch.cuda.is_available():
                used = torch.cuda.max_memory_allocated() / 1e6
                record["peak_gpu_memory_mb"] = max(record.get("peak_gpu_memory_mb", 0.0), used)

    def summary(self) -> dict:
        """``seconds``, ``peak_memory_mb`` of the whole run, and ``stages`` with each one's."""
        peak = max((record["peak_memory_mb"] for record in self.records.values()), default=0.0)
        return {
            "seconds": perf_counter() - self._started,
            "peak_memory_mb": peak,
            "stages": self.records,
        }
