"""Seconds and memory of the Amazon converter on a dump that is made up here.

    python benchmarks/amazon_memory.py --reviews=3000000

Writes reviews in the form of the 2014 release (about 650 bytes each, a user and an item for every eight
reviews, items drawn with a long tail) and their metadata into a temporary folder, converts them in a process
of its own, and prints one JSON object: bytes that went in, seconds, peak memory in MB (10^6 bytes), and the
memory of a process that only imports the converter.
"""

import argparse
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter


def write_dump(folder: Path, reviews: int) -> tuple[Path, Path, int]:
    """Make the two files: (reviews, metadata, bytes of both before compression)."""
    draw = random.Random(0)
    items = max(1, reviews // 8)
    texts = [" ".join(f"word{draw.randrange(3000)}" for _ in range(50)) for _ in range(1000)]
    paths = folder / "reviews_Made_up.json.gz", folder / "meta_Made_up.json.gz"
    size = 0
    with gzip.open(paths[0], "wt", compresslevel=1, encoding="utf-8") as stream:
        for number in range(reviews):
            record = {
                "reviewerID": f"A{draw.randrange(items):013d}",
                "asin": f"B{int(items * draw.random() ** 2):09d}",
                "reviewerName": "A reviewer",
                "helpful": [0, 0],
                "reviewText": texts[number % len(texts)],
                "overall": float(draw.randint(1, 5)),
                "summary": "A summary",
                "unixReviewTime": 1_200_000_000 + number,
                "reviewTime": "01 10, 2008",
            }
            size += stream.write(json.dumps(record) + "\n")
    with gzip.open(paths[1], "wt", compresslevel=1, encoding="utf-8") as stream:
        for item in range(items):
            record = {"asin": f"B{item:09d}", "title": f"Item's number {item}", "categories": [["Made up"]]}
            size += stream.write(repr(record) + "\n")
    return *paths, size


def child(*arguments: str) -> tuple[float, float]:
    """Run Python with some arguments: (seconds, peak resident memory in MB)."""
    started = perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments)} failed.")
    return perf_counter() - started, usage.ru_maxrss * 1024 / 1e6


def main() -> None:
    """Make the dump, convert it, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reviews", type=int, default=3_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        reviews, meta, size = write_dump(Path(folder), options.reviews)
        module = "recbole_ganprompt.data.amazon"
        _, imported = child("-c", f"import {module}")
        out = Path(folder) / "Made_up"
        seconds, peak = child("-m", module, f"--reviews={reviews}", f"--meta={meta}", f"--out={out}")
        found = {"reviews": options.reviews, "items": max(1, options.reviews // 8), "bytes": size}
        found |= {"compressed_bytes": reviews.stat().st_size + meta.stat().st_size}
        found |= {"seconds": round(seconds, 1), "peak_mb": round(peak), "import_mb": round(imported)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
