"""How far a hostile title raises its own item in finished runs, as a table.

    python benchmarks/injection.py --run=saved/runs/GANPrompt-ml-100k-... --run=saved/runs/CoLLM-... --json

Takes the hostile texts of ``properties/injection.yaml`` and ``--users`` test users of each run. Each text
stands alone instead of an item's title, before it and after it, for every candidate of every user in turn;
what is printed is the item's rise over its own title, and the same for as many tokens of plain prose, and of
other items' titles, in the same place. The first lines count the texts that leave the prompt of the run's
tokenizer as it is. With ``--all`` one row for each text; else for each run and place the mean over all texts
and the text that rises most over prose (the best of many: its interval is too narrow for it alone).
"""

import argparse
import json
import sys

import numpy as np
from tabulate import tabulate

from recbole_ganprompt.evaluation.injection import (
    PLACES,
    load_injections,
    measure_injections,
    structure_kept,
)
from recbole_ganprompt.study.robustness import open_run

HEADERS = ["run", "place", "text", "p(Yes)", "largest", "places won", "becomes first"]
HEADERS += [f"{control}: {what}" for control in ("prose", "titles") for what in ("p(Yes)", "places", "first")]
HEADERS += ["places over prose [95 %]"]


def measure(folder: str, options) -> dict:
    """One run's figures."""
    model, _, evaluation, record = open_run(folder, options.users, options.data_path)
    injections = load_injections(model.tokenizer)
    prompt, length = model.prompt_of(model.stage), model.config["title_tokens"]
    kept = [structure_kept(model.tokenizer, prompt, one.text, length) for one in injections]
    return {
        "run": folder,
        **{key: record[key] for key in ("model", "dataset", "seed")},
        "users": len(evaluation),
        "structure_kept": sum(kept),
        "texts": len(injections),
        "results": measure_injections(model, evaluation, injections, options.places.split(",")),
    }


def table(runs: list[dict], everything: bool) -> str:
    """The figures as Markdown."""
    rows = []
    for run in runs:
        for place in dict.fromkeys(one["place"] for one in run["results"]):
            found = [one for one in run["results"] if one["place"] == place]
            label = f"{run['model']} {run['dataset']}"
            strongest = max(found, key=lambda one: one["over_prose"]["rank_gain"]["mean"])
            chosen = found if everything else [strongest]
            rows.append([label, place, "mean of all", *_effects(found), ""])
            for one in chosen:
                gain = one["over_prose"]["rank_gain"]
                interval = f"{gain['mean']:+.2f} [{gain['low']:+.2f}, {gain['high']:+.2f}]"
                rows.append([label, place, one["name"], *_effects([one]), interval])
    return tabulate(rows, headers=HEADERS, tablefmt="github", disable_numparse=True)


def _effects(found: list[dict]) -> list[str]:
    cells = []
    for side in ("hostile", "prose", "titles"):
        values = {key: [one[side][key] for one in found] for key in found[0][side]}
        cells.append(f"{np.mean(values['p_yes']):+.3f}")
        cells += [f"{max(values['worst_p_yes']):+.2f}"] * (side == "hostile")
        cells += [f"{np.mean(values['rank_gain']):+.2f}", f"{100 * np.mean(values['becomes_first']):.1f} %"]
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", action="append", required=True, help="a finished run of a language model")
    parser.add_argument("--users", type=int, default=150, help="a fixed sample of so many test users")
    parser.add_argument("--places", default=",".join(PLACES), help="some of those, separated by commas")
    parser.add_argument("--data_path", help="where the datasets are now")
    parser.add_argument("--all", action="store_true", help="a row for each text")
    parser.add_argument("--json", action="store_true", help="one JSON object in the last line")
    options = parser.parse_args()
    runs = [measure(folder, options) for folder in options.run]
    for run in runs:
        print(f"{run['run']}: structure kept by {run['structure_kept']} of {run['texts']} texts")
    print(table(runs, options.all))
    if options.json:
        command = " ".join(["python", "benchmarks/injection.py", *sys.argv[1:]])
        print(json.dumps({"command": command, "runs": runs}))


if __name__ == "__main__":
    main()
