"""GAUC under the held-out wordings that are answered by Yes and No, and under each of the others.

    python benchmarks/wordings.py saved/runs/GANPrompt-.../robustness.json

For each model of a ``robustness.json``: under the wording of training, the mean over the wordings of the
first kind, the relative drop, and the wordings whose answer words no training had, one by one.
"""

import json
import sys
from statistics import mean

from recbole_ganprompt.prompt.wordings import load_wordings

if len(sys.argv) < 2:
    sys.exit("usage: python benchmarks/wordings.py ROBUSTNESS.json ...")
HELD_OUT = load_wordings("held_out")
USUAL = [name for name, source in HELD_OUT.items() if source.get("positive", "Yes").startswith("Yes")]
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as stream:
        labels = json.load(stream)["labels"]
    for label in labels:
        found = {one["name"]: one["metrics"]["gauc"] for one in label["variants"] if one["name"] in HELD_OUT}
        trained, usual = label["baseline"]["gauc"], mean(found[name] for name in USUAL)
        others = ", ".join(f"{name} {found[name]:.3f}" for name in found if name not in USUAL)
        print(
            f"{label['dataset']}, {label['label']}: {trained:.4f}, mean of {len(USUAL)} {usual:.4f}, "
            f"drop {100 * (1 - usual / trained):.1f} %, {others}"
        )
