"""Figures of finished runs and studies: ``python -m recbole_ganprompt.report.figure --run=FOLDER``."""

import json
import re
import sys
from pathlib import Path

from recbole_ganprompt.checks import nearest
from recbole_ganprompt.errors import UserError, exit_status
from recbole_ganprompt.report.bars import ablation_figure
from recbole_ganprompt.report.classes import class_maps, classes_figure
from recbole_ganprompt.report.curves import curves_figure
from recbole_ganprompt.report.spread import robustness_figure
from recbole_ganprompt.report.style import save

__all__ = ["ablation_figure", "classes_figure", "curves_figure", "draw", "robustness_figure", "save"]

USAGE = """\
usage: python -m recbole_ganprompt.report.figure --run=saved/runs/GANPrompt-... [--key=value ...]

Draws what there is, each figure as PNG and SVG, readable without colour:
  --run=FOLDER       t-SNE of the classes before and after the diversity encoder, with the silhouette
                     score of each, and loss and metrics by epoch; may be given several times
  --ablation=FILE    what each variant of an ablation.json reaches
  --robustness=FILE  how far the metrics of a robustness.json move over wordings and perturbations
  --out=FOLDER       instead of figures/ in the run's folder or beside the file"""

_STUDIES = {"ablation": (ablation_figure, "groups"), "robustness": (robustness_figure, "labels")}


def draw(arguments) -> list[Path]:
    """Draw every figure that the arguments' runs and files have data for.

    Parameters
    ----------
    arguments : list of str
        As ``USAGE`` says.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    UserError
        If a folder or file is not what it should be, or if there is nothing to draw.
    """
    values = _values(arguments)
    out = values["out"][-1] if values["out"] else None
    runs = [_run_folder(text) for text in dict.fromkeys(values["run"])]
    if out and len({run.name for run in runs}) < len(runs):
        raise UserError("Two runs have folders of the same name: draw each with an --out of its own.")
    studies = [(kind, Path(text)) for kind in _STUDIES for text in values[kind]]
    written = []

    def keep(figure, folder, name) -> None:
        try:
            written.extend(save(figure, folder, name))
        except OSError as error:
            raise UserError(f"Can't write to {folder} ({error.strerror}): give another --out.") from error
        print("\n".join(map(str, written[-2:])), flush=True)

    missing = []
    for run in runs:
        folder = Path(out or run / "figures")
        prefix = f"{run.name}-" if out and len(runs) > 1 else ""
        try:
            maps = class_maps(run)
        except UserError as error:
            missing.append(str(error))
        else:
            keep(classes_figure(run, maps), folder, f"{prefix}classes")
            for title, attribute in (("embeddings", "silhouette"), ("t-SNE map", "map_silhouette")):
                before, after = (getattr(maps[when], attribute) for when in ("before", "after"))
                print(f"silhouette of the classes' {title}: before {before:.4f}, after {after:.4f}")
        try:
            curves = curves_figure(run)
        except UserError as error:
            missing.append(str(error))
        else:
            keep(curves, folder, f"{prefix}curves")
    for kind, path in studies:
        function, key = _STUDIES[kind]
        keep(function(_study(path, kind, key)), Path(out or path.parent / "figures"), kind)
    if not written:
        raise UserError(
            f"There is nothing to draw in {', '.join(map(str, runs))}: no curves.json, as in runs of older "
            "versions, and no classes.safetensors, which only GANPrompt writes."
        )
    for sentence in missing:
        print(f"not drawn: {sentence}")
    return written


def _values(arguments) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {key: [] for key in ("run", "ablation", "robustness", "out")}
    for argument in arguments:
        match = re.fullmatch(r"--([^=\s]+)=(.+)", argument, re.DOTALL)
        if not match:
            raise UserError(f"Arguments are written --key=value, not '{argument}'; --help lists them.")
        if match[1] not in values:
            close = nearest(match[1], values)
            remedy = f"did you mean --{close}?" if close else "--help lists the arguments."
            raise UserError(f"--{match[1]}: {remedy}")
        if values[match[1]] and match[1] != "run":
            raise UserError(f"--{match[1]} is given twice: only --run may be.")
        values[match[1]].append(match[2])
    if not any(values[key] for key in ("run", *_STUDIES)):
        raise UserError("Nothing to draw: give --run=saved/runs/..., --ablation=FILE or --robustness=FILE.")
    return values


def _run_folder(text: str) -> Path:
    path = Path(text)
    folder = path.parent if path.name == "result.json" else path
    if not (folder / "result.json").is_file():
        raise UserError(f"{folder} is no finished run: it has no result.json, which a run writes at its end.")
    return folder


def _study(path: Path, kind: str, key: str) -> dict:
    try:
        study = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read as JSON: {error}.") from None
    if not isinstance(study, dict) or not study.get(key):
        raise UserError(f"{path} holds nothing to draw: give the {kind}.json that the study wrote.")
    return study


def main(arguments=None) -> int:
    """Run the command line: exit status 0, or 2 for a mistake that the user can mend."""
    return exit_status(draw, arguments, usage=USAGE)


if __name__ == "__main__":
    sys.exit(main())
