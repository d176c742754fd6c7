"""Robustness of finished runs against wording and spelling: ``run_robustness.py``."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from tabulate import tabulate

import recbole_ganprompt
from recbole_ganprompt.checks import positive_integer, text
from recbole_ganprompt.config import build_config
from recbole_ganprompt.data.candidates import candidates_fingerprint
from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.errors import UserError, exit_status
from recbole_ganprompt.evaluation.evaluator import score_texts
from recbole_ganprompt.evaluation.perturbation import PERTURBATIONS
from recbole_ganprompt.evaluation.robustness import METRICS, TRAINING, robustness
from recbole_ganprompt.plugin import MODELS
from recbole_ganprompt.prompt.rendering import TitleTable
from recbole_ganprompt.prompt.wordings import load_wordings
from recbole_ganprompt.report.figure import robustness_figure, save
from recbole_ganprompt.report.names import metric_name
from recbole_ganprompt.run_folder import run_values
from recbole_ganprompt.study.cluster import run_tasks
from recbole_ganprompt.study.options import RUN_HELP, RUN_OPTIONS, demand_of, take_options
from recbole_ganprompt.study.results import refresh_page
from recbole_ganprompt.study.runs import given_gpus, reason_of
from recbole_ganprompt.writing import write_text

USAGE = f"""\
usage: python run_robustness.py --run=saved/runs/GANPrompt-ml-100k-... [--run=saved/runs/CoLLM-... ...]

Asks finished runs of {", ".join(MODELS)} about their test candidates in wordings that no training saw
(properties/prompt/held_out_wordings.yaml), and with perturbed titles and histories. Writes robustness.json, a
table (.md) and a plot. The last line printed is the path of robustness.json.
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
        An entry of ``runs`` in ``robustness.json``; ``examples``, and ``skipped``: wordings that this
        tokenizer can't be asked in, with the reason.

    Raises
    ------
    UserError
        If it is no such run, or its data are not what they were.
    """
    model, dataset, evaluation, record = open_run(folder, users, data_path)

    def scores(title=None, history=None):
        return _scores(model, dataset.titles, evaluation, title, history)

    own = model.prompts, model.answers
    baseline, variants, skipped = scores(), {}, {}
    for name, source in load_wordings("held_out").items():
        try:
            model.ask_in(source)
        except UserError as error:
            skipped[name] = str(error)
            continue
        variants[name] = scores()
    model.prompts, model.answers = own
    model.reader.answers = own[1]
    for name, perturbation in PERTURBATIONS.items():
        variants[name] = scores(perturbation.title, perturbation.history)
    groups = {name: "perturbation" if name in PERTURBATIONS else "wording" for name in variants}
    found = robustness(baseline, variants, groups)
    rows = np.unique(np.linspace(0, len(evaluation) - 1, EXAMPLES).astype(int))
    everything = {TRAINING: baseline, **variants}
    label = record["model"] + (" with prompt_diversity" if record["config"].get("prompt_diversity") else "")
    return {
        "run": str(folder),
        **{key: record[key] for key in ("dataset", "model", "seed")},
        "label": label,
        **found,
        "skipped": skipped,
        "examples": [
            {
                "dataset": record["dataset"],
                "user": str(dataset.field2id_token[dataset.uid_field][evaluation.users[row]]),
                "model": label,
                "orders": {
                    name: np.argsort(-score[row], kind="stable").tolist()
                    for name, score in everything.items()
                },
            }
            for row in rows
        ],
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
    folders = [run for one in given for run in _runs(Path(one).expanduser())]
    if not folders:
        raise UserError("Name a finished run of a language model: --run=saved/runs/GANPrompt-...")
    out = Path(options["out"] or (folders[0] if len(folders) == 1 else folders[0].parents[1] / "robustness"))
    if len(given) == 1 and (Path(given[0]) / "benchmark.json").is_file() and not options["out"]:
        out = Path(given[0])
    out.mkdir(parents=True, exist_ok=True)
    tasks = {str(folder): (str(folder), options["users"], options["data_path"]) for folder in folders}
    runs, address = {}, options["ray_address"]
    for outcome in run_tasks(measure_run, tasks, demand_of(options, address), address=address):
        if outcome.error is not None:
            print(f"{outcome.name}: failed: {reason_of(outcome.error)}", flush=True)
        else:
            runs[outcome.name] = outcome.value
            print(f"{len(runs)}/{len(tasks)} {outcome.name}", flush=True)
    if not runs:
        raise UserError("No run could be measured; what each said stands above.")
    record = _record([runs[name] for name in tasks if name in runs])
    write_text(out / "robustness.json", json.dumps(record, indent=1, ensure_ascii=False))
    table = to_markdown(record)
    write_text(out / "robustness.md", table)
    save(robustness_figure(record), out / "figures", "robustness")
    refresh_page(out)
    print(table)
    print(out / "robustness.json")
    return out / "robustness.json"


def _runs(folder: Path) -> list[Path]:
    if (folder / "benchmark.json").is_file():
        cells = json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))["cells"]
        return [Path(cell["run"]) for cell in cells if cell["run"] and cell["model"] in MODELS]
    if not (folder / "recommender.safetensors").is_file():
        raise UserError(f"{folder} is no finished run of {', '.join(MODELS)}, and no benchmark of some.")
    return [folder]


def _record(runs: list[dict]) -> dict:
    wordings = load_wordings("held_out")
    described = [
        {
            "name": name,
            "group": "wording",
            "description": source.get("text") or f"{source['instruction']} {source['input']}",
        }
        for name, source in wordings.items()
    ]
    described += [
        {"name": name, "group": "perturbation", "description": one.description}
        for name, one in PERTURBATIONS.items()
    ]
    examples = [example for run in runs for example in run.pop("examples")]
    return {"metrics": list(METRICS), "variants": described, "runs": runs, "examples": examples}


def to_markdown(record: dict) -> str:
    """The table: one row for each run and group of variants."""
    headers = ["dataset", "run", "seed", "changed", "metric", "as trained", "mean", "worst", "sd"]
    headers += ["relative drop [95 %]", "top-1 changed", "Kendall tau", "overlap@3"]
    rows = []
    for run in record["runs"]:
        for group, summary in run["summary"].items():
            for metric in ("auc", "gauc", "hit@1", "ndcg@3"):
                one = summary["metrics"][metric]
                drop = f"{100 * one['relative_drop']:.1f} % [{100 * one['low']:.1f}, {100 * one['high']:.1f}]"
                row = [run["dataset"], run["label"], run["seed"], group, metric_name(metric)]
                row += [f"{run['baseline'][metric]:.4f}", f"{one['mean']:.4f}", f"{one['worst']:.4f}"]
                row += ["" if one["sd"] is None else f"{one['sd']:.4f}", drop]
                row += [
                    _with_interval(summary[name]) for name in ("top1_changed", "kendall_tau", "overlap@3")
                ]
                rows.append(row)
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True) + "\n"


def _with_interval(value: dict) -> str:
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def main(arguments=None) -> int:
    """Run the command line: exit status 0, or 2 for a mistake that the user can mend."""
    return exit_status(study, arguments, usage=USAGE)
