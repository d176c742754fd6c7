"""The tables of docs/results.md from finished runs.

    python benchmarks/results.py saved/runs/GANPrompt-Amazon_Beauty-*
    python benchmarks/results.py --means saved/runs/*

Prints one Markdown row for each run, mean and standard deviation over the seeds of runs whose
configurations differ in the seed alone, and what each stage of a GANPrompt run did. With ``--means``: one row
for each dataset, model and settings, over its seeds; of several runs with one seed the last one named counts.
Where a model has several rows, they are told apart by the settings that differ; keys that older runs don't
have yet tell nothing apart.
"""

import json
import sys
from pathlib import Path

import numpy as np

from recbole_ganprompt.run_folder import identity

SHOWN = ("auc", "gauc", "hit@1", "hit@3", "ndcg@3", "mrr@3")
IGNORED = {"seed", "checkpoint_dir", "data_path", "show_progress", "state", "gpu_id", "llm_compile"}


def variant(config: dict) -> str:
    """Everything that makes two runs different methods, as one text."""
    return json.dumps({key: value for key, value in config.items() if key not in IGNORED}, sort_keys=True)


def label(record: dict) -> str:
    """How a run's method is called in the tables."""
    name, config = record["model"], record["config"]
    parts = [name]
    if name == "TALLRec" and config["few_shot"]:
        parts.append(f"{config['few_shot']} samples")
    if name == "CoLLM":
        parts.append(f"teacher {config['teacher']}")
    if name in ("CoLLM", "GANPrompt"):
        if config["step_two"] != "mapping":
            parts.append(f"step_two {config['step_two']}")
        if config["llm_tuning"] == "lora":
            parts.append("LoRA")
    if name == "GANPrompt" and not config["reconstructed_share"]:
        parts.append("without stage 1")
    return ", ".join(parts)


def main(folders) -> None:
    """Print the tables of the given run folders."""
    records = [json.loads((Path(folder) / "result.json").read_text()) for folder in folders]
    groups: dict[tuple, list] = {}
    for record in records:
        groups.setdefault((label(record), variant(record["config"])), []).append(record)
    print("| model | seed | " + " | ".join(SHOWN) + " | minutes | peak MB | candidates |")
    print("|---" * (len(SHOWN) + 5) + "|")
    for (name, _), group in groups.items():
        rows = [(name, group, "test", lambda record: record["test"])]
        if "teacher" in group[0] and name.split(",")[0] in ("GANPrompt", "CoLLM"):
            teacher = group[0]["teacher"]["model"]
            rows.append((f"its teacher alone, {teacher}", group, "", lambda r: r["teacher"]["test"]))
        for title, runs, kind, test in rows:
            for record in sorted(runs, key=lambda one: one["seed"]):
                values = " | ".join(f"{test(record)[metric]:.4f}" for metric in SHOWN)
                cost = "|  | "
                if kind:
                    cost = f"| {record['seconds'] / 60:.1f} | {record['peak_memory_mb']:.0f} "
                print(f"| {title} | {record['seed']} | {values} {cost}| {record['candidates'][:8]} |")
            if len(runs) > 1:
                table = np.array([[test(record)[metric] for metric in SHOWN] for record in runs])
                mean, deviation = table.mean(axis=0), table.std(axis=0, ddof=1)
                values = " | ".join(f"**{m:.4f}** ± {s:.4f}" for m, s in zip(mean, deviation))
                print(f"| {title} | mean ± sd | {values} |  |  |  |")


def stage_table(folders) -> None:
    """Print what stages 1 to 5 of each run did: separability, texts, and validation by step."""
    print(
        "| seed | attributes | linear probe | cosine | JS | texts that fell back | equal to the title | ",
        end="",
    )
    print("p(Yes) AUC / GAUC after step one | after step two |")
    print("|---" * 9 + "|")
    for folder in map(Path, folders):
        record = json.loads((folder / "result.json").read_text())
        if "diversity" not in record:
            continue
        before, after = (record["diversity"]["separability"][when] for when in ("before", "after"))
        change = [f"{before[key]:.3f} → {after[key]:.3f}" for key in ("probe_accuracy", "cosine", "js")]
        texts = record["diversity"]["reconstruction"]
        curves = json.loads((folder / "curves.json").read_text())
        steps = []
        for step in ("step one", "step two"):
            best = max((epoch["valid"] for epoch in curves[step]), key=lambda valid: valid["gauc"])
            steps.append(f"{best['auc']:.4f} / {best['gauc']:.4f}")
        cells = [record["seed"], ", ".join(record["attributes"]), *change]
        cells += [f"{texts['fallback_share']:.3f}", f"{texts['unchanged_share']:.3f}", *steps]
        print("| " + " | ".join(map(str, cells)) + " |")


def differing(first: dict, second: dict) -> set[str]:
    """Keys, the seed aside, by which the configurations of two runs make them different methods."""
    first, second = identity(first), identity(second)
    return {key for key in first.keys() & second.keys() - IGNORED if first[key] != second[key]}


def means_table(folders) -> None:
    """Print one row for each dataset, model and settings: mean ± sd (n - 1) over its seeds."""
    rows: dict[tuple, list[dict]] = {}
    for folder in map(Path, folders):
        if (folder / "result.json").is_file():  # others are unfinished
            record = json.loads((folder / "result.json").read_text())
            core = record["config"]["user_inter_num_interval"]
            key = record["dataset"], core, record["candidates"][:8], record["model"]
            known = rows.setdefault(key, [])
            for seeds in known:
                if not any(differing(record["config"], one["config"]) for one in seeds.values()):
                    seeds[record["seed"]] = record
                    break
            else:
                known.append({record["seed"]: record})
    print("| dataset | model | seeds | " + " | ".join(SHOWN) + " | minutes | peak MB | candidates |")
    print("|---" * (len(SHOWN) + 6) + "|")
    for key, seeds in [(key, one) for key, parts in sorted(rows.items()) for one in parts]:
        dataset, core, candidates, model = key
        config, *_ = [record["config"] for record in seeds.values()]
        others = [record["config"] for one in rows[key] for record in one.values()]
        apart = sorted(set().union(*(differing(config, other) for other in others)))
        title = ", ".join([model, *(f"{name} {config[name]}" for name in apart)])
        table = np.array([[record["test"][metric] for metric in SHOWN] for record in seeds.values()])
        cells = [f"{value:.4f}" for value in table.mean(axis=0)]
        if len(table) > 1:
            cells = [f"{cell} ± {s:.4f}" for cell, s in zip(cells, table.std(axis=0, ddof=1))]
        minutes = max(record["seconds"] for record in seeds.values()) / 60
        memory = max(record["peak_memory_mb"] for record in seeds.values())
        names = [f"{dataset} {core}", title, ", ".join(map(str, sorted(seeds)))]
        print("| " + " | ".join([*names, *cells, f"{minutes:.1f}", f"{memory:.0f}", candidates]) + " |")


if __name__ == "__main__":
    if "--means" in sys.argv:
        means_table([one for one in sys.argv[1:] if one != "--means"])
    else:
        main(sys.argv[1:])
        print()
        stage_table(sys.argv[1:])
