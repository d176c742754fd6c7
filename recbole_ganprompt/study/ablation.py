"""GANPrompt without its parts: ``run_ablation.py`` (the paper's Figures 7 to 9, and more of its choices)."""

import json
import shlex
from pathlib import Path

import numpy as np
from tabulate import tabulate

from recbole_ganprompt.checks import natural, text
from recbole_ganprompt.errors import UserError, exit_status
from recbole_ganprompt.provenance import provenance
from recbole_ganprompt.report.figure import ablation_figure, save
from recbole_ganprompt.report.names import metric_name
from recbole_ganprompt.report.page import write_page_again
from recbole_ganprompt.run_folder import identity, plain_values
from recbole_ganprompt.study.cells import Cell, check_datasets, complete
from recbole_ganprompt.study.options import (
    FINISHED,
    RUN_HELP,
    RUN_OPTIONS,
    run_arguments,
    scoped_arguments,
    take_options,
)
from recbole_ganprompt.study.runs import configuration
from recbole_ganprompt.writing import write_text

RECOMMENDATION = ["auc", "gauc", "hit@1", "ndcg@3"]
DIVERGENCES = ["kl", "tv", "js", "cosine"]
"""Between the classes of the trained encoder (``diversity/measure.py``)."""

GROUPS = {
    "diversity": {
        "title": "Diversity constraint",
        "figure": "Figures 7 and 8",
        "measures": [*RECOMMENDATION, *DIVERGENCES],
        "rows": {
            "Div-ori": {"diversity": "full"},
            "Div-cos": {"diversity": "no_cos"},
            "Div-JS": {"diversity": "no_js"},
            "Div-all": {"diversity": "none"},
        },
    },
    "step_two": {
        "title": "What learns in step two",
        "figure": "Figure 9",
        "measures": RECOMMENDATION,
        "rows": {
            "Rec-ori": {"step_two": "mapping"},
            "Rec-col": {"step_two": "no_collaborative"},
            "Rec-lora": {"step_two": "lora+mapping"},
            "Rec-sm": {"step_two": "teacher+mapping"},
            "Rec-lora&sm": {"step_two": "all"},
        },
    },
    "guidance": {
        "title": "The teacher's opinion in the prompt",
        "figure": None,
        "measures": RECOMMENDATION,
        "rows": {name: {"guidance": name} for name in ("off", "words", "vector", "both")},
    },
    "attributes": {
        "title": "Attributes that diversify the texts",
        "figure": None,
        "measures": RECOMMENDATION,
        # Without attributes there is nothing to reconstruct: the run that reconstructs no text.
        "rows": {"k = 0": {"reconstructed_share": 0.0}}
        | {f"k = {count}": {"attributes": count} for count in range(1, 6)},
        "note": "k = 0 is the run with a share of 0 reconstructed texts: no attribute, no text made of it.",
    },
    "reconstructed": {
        "title": "Share of reconstructed texts in training",
        "figure": None,
        "measures": RECOMMENDATION,
        "rows": {f"{share:g}": {"reconstructed_share": share} for share in (0.0, 0.5, 1.0)},
    },
}
UNCHANGED = ("diversity", "step_two", "llm_tuning", "guidance", "attributes", "reconstructed_share")
"""What a table says of the method that its variants change."""

USAGE = f"""\
usage: python run_ablation.py --dataset=ml-100k [--seeds=2024] [--key=value ...]

Trains GANPrompt without its parts, one group of variants after the other. Finished runs are kept: the same
command again does only what is missing. Writes ablation.json, a table (.md) and bar charts to
<checkpoint_dir>/ablations/<dataset>/. The last line printed is the path of ablation.json.
  --groups={",".join(GROUPS)}
  --seeds=2024            more with commas
  --out=FOLDER            instead of that folder, such as a benchmark's
  --runs=FOLDER,...       checkpoint_dirs whose finished runs count too
{RUN_HELP}
Any other key of run_recbole.py holds for all variants."""

OPTIONS = {
    **RUN_OPTIONS,
    "dataset": (None, text),
    "groups": (list(GROUPS), ("one or more of " + ", ".join(GROUPS), lambda value: value in GROUPS)),
    "seeds": ([2024], natural),
    "out": (None, text),
    "runs": ([], FINISHED),
}


def ablation(arguments: list[str]) -> Path:
    """Make the runs that are missing, and write all results.

    Parameters
    ----------
    arguments : list of str
        As on the command line.

    Returns
    -------
    Path
        Of ``ablation.json``.

    Raises
    ------
    UserError
        For a mistake in the arguments; or if every run failed.
    """
    options, rest = take_options(arguments, OPTIONS)
    dataset, seeds = options["dataset"], list(dict.fromkeys(options["seeds"]))
    if not dataset:
        raise UserError("Name a dataset: --dataset=ml-100k.")
    scopes = scoped_arguments(rest, [dataset])
    # Variants of different groups that are the same run, such as the unchanged method, share a cell.
    unchanged = configuration(run_arguments(scopes, "GANPrompt", dataset, seeds[0]))
    cells: dict[str, Cell] = {}
    wanted: dict[tuple, Cell] = {}
    for group in options["groups"]:
        for label, values in GROUPS[group]["rows"].items():
            for seed in seeds:
                given = [f"--{key}={value}" for key, value in values.items()]
                arguments_of_run = [*run_arguments(scopes, "GANPrompt", dataset, seed), *given]
                cell = Cell(f"{group}-{label}-{seed}".replace(" ", ""), arguments_of_run)
                key = json.dumps(identity(plain_values(cell.config.final_config_dict)), sort_keys=True)
                wanted[group, label, seed] = cells.setdefault(key, cell)
    saved = Path(next(iter(cells.values())).config["checkpoint_dir"])
    folder = Path(options["out"]) if options["out"] else saved / "ablations" / dataset
    check_datasets(list(cells.values()))
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "dataset": dataset,
        "seeds": seeds,
        "command": shlex.join(["python", "run_ablation.py", *arguments]),
        **provenance(),
        "unchanged": {key: unchanged[key] for key in UNCHANGED},
    }

    def write(_):
        record["groups"] = [_group(name, wanted, seeds, unchanged) for name in options["groups"]]
        write_text(folder / "ablation.json", json.dumps(record, indent=1))

    complete(list(cells.values()), options, folder / "logs", write)
    write(None)
    table = to_markdown(record)
    write_text(folder / "ablation.md", table)
    print(table)
    save(ablation_figure(record), folder / "figures", "ablation")
    if (folder / "benchmark.json").is_file():
        write_page_again(folder)
    print(folder / "ablation.json")
    return folder / "ablation.json"


def _group(name: str, wanted: dict, seeds: list[int], unchanged) -> dict:
    group = GROUPS[name]
    rows = []
    for label, changes in group["rows"].items():
        records = [wanted[name, label, seed].record for seed in seeds]
        failed = [record for record in records if record["status"] == "failed"]
        found = [_measures(record["run"]) for record in records if record["status"] == "finished"]
        row = {"label": label, "changes": changes, "values": {}}
        row["default"] = all(unchanged[key] == value for key, value in changes.items())
        row["status"] = next(
            (record["status"] for record in records if record["status"] != "finished"), "finished"
        )
        row["finished"] = len(found)
        row["failures"] = [f"seed {record['seed']}: {record['reason']}" for record in failed]
        row["runs"] = [record["run"] for record in records]
        for measure in group["measures"]:
            values = [one[measure] for one in found if measure in one]
            if values:
                sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
                row["values"][measure] = {"mean": float(np.mean(values)), "sd": sd}
        rows.append(row)
    kept = {key: group.get(key) for key in ("title", "figure", "note", "measures")}
    return {"name": name, **kept, "rows": rows}


def _measures(run: str) -> dict[str, float]:
    """Test metrics, and how far apart the classes of the diversity encoder lie."""
    record = json.loads(Path(run, "result.json").read_text(encoding="utf-8"))
    classes = record.get("diversity", {}).get("separability", {}).get("after", {})
    return {**record["test"], **{name: classes[name] for name in DIVERGENCES if name in classes}}


def to_markdown(record: dict) -> str:
    """One table for each group."""
    parts = []
    for group in record["groups"]:
        figure = f" ({group['figure']})" if group["figure"] else ""
        rows = []
        for row in group["rows"]:
            cells = [_number(row["values"].get(measure)) for measure in group["measures"]]
            mean = f"mean of {row['finished']} of {len(record['seeds'])} seeds; " if row["finished"] else ""
            note = f"{mean}failed: {'; '.join(row['failures'])}" if row["failures"] else ""
            label = f"**{row['label']}** (default)" if row["default"] else row["label"]
            rows.append([label, *cells, note])
        headers = ["", *map(metric_name, group["measures"]), ""]
        if not any(note for *_, note in rows):
            rows, headers = [row[:-1] for row in rows], headers[:-1]
        body = tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)
        parts.append(f"**{group['title']}**{figure}\n\n{body}\n")
        if group["note"]:
            parts.append(f"{group['note']}\n")
    unchanged = ", ".join(f"`{key}: {value}`" for key, value in record["unchanged"].items())
    parts.append(f"(default): as without any change, here {unchanged}. Every other row changes one thing.\n")
    return "\n".join(parts)


def _number(value: dict | None) -> str:
    if value is None:
        return "–"
    return f"{value['mean']:.4f}" + ("" if value["sd"] is None else f" ± {value['sd']:.4f}")


def main(arguments=None) -> int:
    """Run the command line: exit status 0, or 2 for a mistake that the user can mend."""
    return exit_status(
        ablation, arguments, "interrupted; the same command goes on with what is missing", usage=USAGE
    )
