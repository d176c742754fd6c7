"""Robustness of finished runs against wording and spelling: ``run_robustness.py``."""

import itertools
import json
import shlex
from collections import defaultdict
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

import recbole_ganprompt
from recbole_ganprompt.checks import positive_integer, text
from recbole_ganprompt.config import build_config
from recbole_ganprompt.data.candidates import EvaluationSet, candidates_fingerprint
from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.errors import UserError, exit_status
from recbole_ganprompt.evaluation.evaluator import score_texts
from recbole_ganprompt.evaluation.perturbation import PERTURBATIONS
from recbole_ganprompt.evaluation.robustness import (
    METRICS,
    TRAINING,
    difference,
    in_groups,
    movement,
    robustness,
)
from recbole_ganprompt.plugin import MODELS
from recbole_ganprompt.prompt.rendering import TitleTable
from recbole_ganprompt.prompt.wordings import load_wordings
from recbole_ganprompt.provenance import provenance
from recbole_ganprompt.report.figure import robustness_figure, save
from recbole_ganprompt.report.page import write_page_again
from recbole_ganprompt.report.robustness_table import to_markdown
from recbole_ganprompt.report.table import OURS
from recbole_ganprompt.run_folder import identity, run_values
from recbole_ganprompt.study.options import RUN_HELP, RUN_OPTIONS, demand_of, take_options
from recbole_ganprompt.study.runs import given_gpus, new_defaults, reason_of
from recbole_ganprompt.study.tasks import run_tasks
from recbole_ganprompt.writing import write_text

USAGE = f"""\
usage: python run_robustness.py --run=saved/runs/GANPrompt-ml-100k-... [--run=saved/runs/CoLLM-... ...]

Asks finished runs of {", ".join(MODELS)} about their test candidates in wordings that no training saw
(properties/prompt/held_out_wordings.yaml), and with perturbed titles and histories; averages the seeds of
each model and compares the models user by user. Writes robustness.json, tables (.md) and a plot. The last
line printed is the path of robustness.json.
  --run=FOLDER            a finished run, or a benchmark's folder for all of its runs; may come several times
  --users=N               a fixed sample of so many users; all by default
  --out=FOLDER            where to write; the run's own folder, or saved/robustness for several
  --data_path=FOLDER      where the datasets are now
{RUN_HELP}"""

OPTIONS = {
    **RUN_OPTIONS,
    "users": (None, positive_integer),
    "out": (None, text),
    "data_path": (None, text),
}
EXAMPLES = 5


def measure_run(folder: str, users: int | None, data_path: str | None) -> dict:
    """Ask one finished run in all wordings and with all perturbations.

    Parameters
    ----------
    folder : path
        A run of a language model.
    users : int, optional
        Size of a fixed sample of test users.
    data_path : path, optional
        Instead of the run's own.

    Returns
    -------
    dict
        An entry of ``runs`` in ``robustness.json``, with ``skipped``: wordings that this tokenizer can't be
        asked in, with the reason; and what the study takes out of it again: ``scores`` by variant,
        ``examples``, ``settings`` and ``candidates``.

    Raises
    ------
    UserError
        If it is no such run, or its data are not what they were.
    """
    model, dataset, everyone, record = open_run(folder, data_path=data_path)
    # The users that a benchmark's page shows are always asked, whatever the sample.
    examples = np.unique(np.linspace(0, len(everyone) - 1, EXAMPLES).astype(int))
    sample = everyone if users is None else everyone.sample(users)
    measured = np.flatnonzero(np.isin(everyone.users, sample.users))
    asked = np.union1d(measured, examples)
    parts = (getattr(everyone, field.name) for field in fields(everyone))
    evaluation = EvaluationSet(*(part if part is None else part[asked] for part in parts))

    def scores(title=None, history=None):
        return _scores(model, dataset.titles, evaluation, title, history)

    own = model.prompts, model.answers
    found, skipped = {TRAINING: scores()}, {}
    for name, source in load_wordings("held_out").items():
        try:
            model.ask_in(source)
        except UserError as error:
            skipped[name] = str(error)
            continue
        found[name] = scores()
    model.prompts, model.answers = own
    model.reader.answers = own[1]
    for name, perturbation in PERTURBATIONS.items():
        found[name] = scores(perturbation.title, perturbation.history)
    tokens = dataset.field2id_token[dataset.uid_field]
    shown = []
    for row in np.searchsorted(asked, examples):
        orders = {name: np.argsort(-score[row], kind="stable").tolist() for name, score in found.items()}
        shown.append({"user": str(tokens[evaluation.users[row]]), "orders": orders})
    rows = np.searchsorted(asked, measured)
    kept = {name: score[rows] for name, score in found.items()}
    settings = identity(record["config"])
    settings = {**new_defaults(dataset.config, settings), **settings}
    return {
        "run": str(folder),
        **{key: record[key] for key in ("dataset", "model", "seed", "candidates")},
        "label": record["model"] + (" with prompt_diversity" if settings.get("prompt_diversity") else ""),
        **robustness([kept], _groups(kept)),
        "skipped": skipped,
        "scores": kept,
        "examples": shown,
        "settings": {key: value for key, value in settings.items() if key != "seed"},
    }


def _groups(variants) -> dict[str, str]:
    return {
        name: "perturbation" if name in PERTURBATIONS else "wording" for name in variants if name != TRAINING
    }


def open_run(folder: str, users: int | None = None, data_path: str | None = None) -> tuple:
    """Load a finished run with its dataset and its test candidates.

    Parameters
    ----------
    folder : path
    users : int, optional
        Size of a fixed sample of test users.
    data_path : path, optional
        Instead of the run's own.

    Returns
    -------
    (model, dataset, evaluation, record)
        The last is the run's ``result.json``.

    Raises
    ------
    UserError
        If it is no run of a language model, or its data are not what they were.
    """
    model = recbole_ganprompt.load(folder, given_gpus()).model
    record = json.loads(Path(folder, "result.json").read_text(encoding="utf-8"))
    values = run_values(Path(folder))
    values["data_path"] = data_path or values["data_path"]
    dataset = TextSequentialDataset(build_config(config_dict={**values, "gpu_id": given_gpus()}))
    sets = [dataset.evaluation_set(phase) for phase in ("valid", "test")]
    if candidates_fingerprint(*sets) != record["candidates"]:
        raise UserError(
            f"{folder}: the data in {values['data_path']} are not those of the run: give its --data_path."
        )
    return model, dataset, sets[1] if users is None else sets[1].sample(users), record


def _scores(model, titles, evaluation, title, history) -> np.ndarray:
    """Scores [users, candidates] with changed titles and histories."""
    texts = titles if title is None else [title(one) for one in titles]
    tokens = TitleTable(model.tokenizer, texts, model.config["title_tokens"])
    if history is None:
        return score_texts(model, evaluation, tokens)
    histories, lengths = np.zeros_like(evaluation.histories), evaluation.lengths.copy()
    for row, (items, count) in enumerate(zip(evaluation.histories, evaluation.lengths)):
        kept = items[:count][history(np.arange(count))]
        lengths[row] = len(kept)
        histories[row, : len(kept)] = kept
    return score_texts(model, replace(evaluation, histories=histories, lengths=lengths), tokens)


def study(arguments: list[str]) -> Path:
    """Measure the runs and write ``robustness.json``, ``robustness.md`` and the plot.

    Returns
    -------
    Path
        Of ``robustness.json``.

    Raises
    ------
    UserError
    """
    given = [one.partition("=")[2] for one in arguments if one.startswith("--run=")]
    options, rest = take_options([one for one in arguments if not one.startswith("--run=")], OPTIONS)
    if rest:
        raise UserError(f"There is no option {rest[0]}; --help shows those there are.")
    given = [Path(one).expanduser() for one in given]
    folders = [run for one in given for run in _runs(one)]
    if not folders:
        raise UserError("Name a finished run of a language model: --run=saved/runs/GANPrompt-...")
    several = folders[0].resolve().parents[1] / "robustness"
    out = Path(options["out"] or (folders[0] if len(folders) == 1 else several))
    if len(given) == 1 and (given[0] / "benchmark.json").is_file() and not options["out"]:
        out = given[0]
    out.mkdir(parents=True, exist_ok=True)
    tasks = {str(folder): (str(folder), options["users"], options["data_path"]) for folder in folders}
    runs, failed, address = {}, [], options["ray_address"]
    for outcome in run_tasks(measure_run, tasks, demand_of(options, address), address=address):
        if outcome.error is not None:
            failed.append({"run": outcome.name, "reason": reason_of(outcome.error)})
            print(f"{outcome.name}: failed: {failed[-1]['reason']}", flush=True)
        else:
            runs[outcome.name] = outcome.value
            print(f"{len(runs)}/{len(tasks)} {outcome.name}", flush=True)
    if not runs:
        raise UserError("No run could be measured; what each said stands above.")
    record = {
        "command": shlex.join(["python", "run_robustness.py", *arguments]),
        **provenance(),
        "metrics": list(METRICS),
        "variants": _variants(),
        **compared([runs[name] for name in tasks if name in runs]),
        "failed": failed,
    }
    write_text(out / "robustness.json", json.dumps(record, indent=1, ensure_ascii=False))
    table = to_markdown(record)
    write_text(out / "robustness.md", table)
    print(table)
    save(robustness_figure(record), out / "figures", "robustness")
    if (out / "benchmark.json").is_file():
        write_page_again(out)
    print(out / "robustness.json")
    return out / "robustness.json"


def _runs(folder: Path) -> list[Path]:
    if (folder / "benchmark.json").is_file():
        cells = json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))["cells"]
        return [Path(cell["run"]) for cell in cells if cell["run"] and cell["model"] in MODELS]
    if not (folder / "recommender.safetensors").is_file():
        raise UserError(f"{folder} is no finished run of {', '.join(MODELS)}, and no benchmark of some.")
    return [folder]


def _variants() -> list[dict]:
    described = [
        {
            "name": name,
            "group": "wording",
            "description": source.get("text") or f"{source['instruction']} {source['input']}",
        }
        for name, source in load_wordings("held_out").items()
    ]
    return described + [
        {"name": name, "group": "perturbation", "description": one.description}
        for name, one in PERTURBATIONS.items()
    ]


def compared(runs: list[dict]) -> dict:
    """What the runs say together: the seeds of a label averaged, and labels against each other.

    Parameters
    ----------
    runs : list of dict
        From :func:`measure_run`.

    Returns
    -------
    dict
        ``runs`` (as ``robustness.json`` has them); ``labels``: the same for each label on each dataset, over
        the variants that all runs there were asked in; ``comparisons``: each pair of labels on the same
        users, ours first, with :func:`~recbole_ganprompt.evaluation.robustness.difference` by group; and
        ``examples``, of each label's first run.
    """
    _tell_apart(runs)
    places = defaultdict(lambda: defaultdict(list))
    for run in runs:
        places[run["dataset"], run["candidates"], run["users"]][run["label"]].append(run)
    labels, comparisons, examples = [], [], []
    for (dataset, *_), own in places.items():
        asked = [list(run["scores"]) for some in own.values() for run in some]
        groups = _groups(name for name in asked[0] if all(name in each for each in asked))
        moved = {}
        for label, some in own.items():
            scores = [run["scores"] for run in some]
            moved[label] = {group: movement(scores, names) for group, names in in_groups(groups).items()}
            first = {"dataset": dataset, "label": label, "seeds": [run["seed"] for run in some]}
            labels.append({**first, **robustness(scores, groups, moved[label])})
            seed = {"dataset": dataset, "model": label, "seed": some[0]["seed"]}
            examples += [{**seed, **example} for example in some[0]["examples"]]
        ours_first = sorted(own, key=lambda label: own[label][0]["model"] != OURS)
        for first, second in itertools.combinations(ours_first, 2):
            for group in moved[first]:
                pair = {"dataset": dataset, "first": first, "second": second, "group": group}
                comparisons.append({**pair, **difference(moved[first][group], moved[second][group])})
    own = {"scores", "examples", "settings", "candidates"}
    return {
        "runs": [{key: value for key, value in run.items() if key not in own} for run in runs],
        "labels": labels,
        "comparisons": comparisons,
        "examples": examples,
    }


def _tell_apart(runs: list[dict]) -> None:
    """Runs of one label on one dataset whose settings differ are no seeds of the same, and neither are two
    runs of one seed: they get labels of their own."""
    for some in _by_label(runs):
        first = some[0]["settings"]
        for key in sorted(first.keys() | {key for run in some for key in run["settings"]}):
            if any(run["settings"].get(key) != first.get(key) for run in some):
                for run in some:
                    run["label"] += f", {key}={run['settings'].get(key)}"
    for some in _by_label(runs):
        if len({run["seed"] for run in some}) < len(some):
            for run in some:
                run["label"] += f", {Path(run['run']).name}"


def _by_label(runs: list[dict]) -> list[list[dict]]:
    labels = defaultdict(list)
    for run in runs:
        labels[run["dataset"], run["label"]].append(run)
    return list(labels.values())


def main(arguments=None) -> int:
    """Run the command line: exit status 0, or 2 for a mistake that the user can mend."""
    return exit_status(study, arguments, usage=USAGE)
