"""Figures: what they show, that they need no colour, and what the command says."""

import json
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread
from safetensors.numpy import save_file

from recbole_ganprompt.report import figure

NAMES = ["day", "godfather", "lost", "star", "wars"]
VALID = {"auc": 0.7, "gauc": 0.71, "hit@1": 0.3, "hit@3": 0.6, "ndcg@1": 0.3, "ndcg@3": 0.5}


@pytest.fixture
def run(tmp_path):
    """The files of a finished GANPrompt run that figures read: its classes come apart in training."""
    folder = tmp_path / "GANPrompt-toy"
    folder.mkdir()
    random = np.random.default_rng(0)
    before = random.normal(size=(12, 1, 16)) + 0.1 * random.normal(size=(12, 6, 16))
    after = before + 4 * random.normal(size=(1, 6, 16))
    classes = {"before": before.astype(np.float16), "after": after.astype(np.float16)}
    save_file(classes, folder / "classes.safetensors")
    teacher = {"model": "SASRec", "valid": {**VALID, "gauc": 0.755}}
    record = {"model": "GANPrompt", "dataset": "toy", "attributes": NAMES, "teacher": teacher}
    (folder / "result.json").write_text(json.dumps(record))
    losses = {"reconstruction": 0.1, "adversarial": 1.5, "discriminator": 1.6}
    state = {"accuracy": 0.2, "d_total": 0.9, "cosine": 0.8}
    steps = [{"epoch": epoch, "loss": 0.5 - epoch / 10, "valid": VALID} for epoch in range(3)]
    curves = {
        "diversity encoder": [{"epoch": 0, **state}, {"epoch": 1, **state, **losses}],
        "step one": steps[:1],
        "step two": steps,
    }
    (folder / "curves.json").write_text(json.dumps(curves))
    return folder


def ablation():
    values = {"gauc": {"mean": 0.79, "sd": 0.01}, "kl": {"mean": 1.6, "sd": None}}
    rows = [
        {"label": "Div-ori", "status": "finished", "reason": None, "values": values},
        {"label": "Div-cos", "status": "failed", "reason": "No memory left.", "values": {}},
        {"label": "Div-JS", "status": "finished", "reason": None, "values": values},
    ]
    group = {"name": "diversity", "title": "Diversity constraint", "figure": "Figures 7 and 8"}
    return {
        "dataset": "toy",
        "seeds": [1, 2],
        "groups": [{**group, "measures": ["gauc", "kl"], "rows": rows}],
    }


def robustness():
    variants = [{"name": name, "group": "wording"} for name in ("polite", "terse")]
    variants += [{"name": name, "group": "perturbation"} for name in ("typos", "$lower_case$")]

    def one(dataset, terse):
        drops = {"polite": 0.01, "terse": terse, "typos": 0.08, "$lower_case$": 0.0}
        own = [
            {"name": name, "relative_drop": {"gauc": drop, "hit@1": 2 * drop}, "top1_changed": 3 * drop}
            for name, drop in drops.items()
        ]
        interval = {"mean": 0.1, "relative_drop": 0.02, "low": 0.01, "high": 0.03}
        summary = {"metrics": {"gauc": interval, "hit@1": interval}, "top1_changed": interval}
        return {
            **{"label": "GANPrompt", "dataset": dataset, "seeds": [1, 2], "variants": own},
            "baseline": {"gauc": 0.79, "hit@1": 0.42},
            "summary": {"wording": summary, "perturbation": summary},
        }

    labels = [one("toy", 0.02), one("other", 0.04)]
    return {"metrics": ["gauc", "hit@1"], "variants": variants, "runs": [], "labels": labels}


def texts(path):
    """The texts of an SVG, which are text and not outlines."""
    return " | ".join(
        "".join(node.itertext()) for node in ElementTree.parse(path).iter() if "}text" in node.tag
    )


def test_a_run_is_drawn_and_the_rise_of_the_silhouette_printed(run, capsys):
    settings = dict(matplotlib.rcParams)
    assert figure.main([f"--run={run}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (scores,) = (line.split() for line in lines if "embeddings" in line)
    before, after = float(scores[-3].rstrip(",")), float(scores[-1])
    assert before < 0.1 and after > 0.5
    for name in ("classes", "curves"):
        assert {f"{run}/figures/{name}.png", f"{run}/figures/{name}.svg"} <= set(lines)
        height, width, _ = imread(run / "figures" / f"{name}.png").shape
        assert 900 < height < 3000 and 1500 < width < 3000
    shown = texts(run / "figures" / "classes.svg")
    assert all(name in shown for name in ["plain history", *NAMES, f"silhouette {after:.3f}"])
    shown = texts(run / "figures" / "curves.svg")
    assert all(word in shown for word in ("diversity encoder", "step two", "GAUC", "teacher (SASRec)"))
    assert dict(matplotlib.rcParams) == settings


def test_the_same_data_give_the_same_bytes(tmp_path):
    drawn = [figure.ablation_figure(ablation()) for _ in range(2)]
    first, second = (figure.save(one, tmp_path / str(index), "x") for index, one in enumerate(drawn))
    assert [path.name for path in first] == ["x.png", "x.svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_figures_are_readable_without_colour(run):
    for axes in figure.classes_figure(run).axes:
        shapes = {path.vertices.tobytes() for one in axes.collections for path in one.get_paths()}
        assert len(shapes) == 6
    for axes in figure.ablation_figure(ablation()).axes:
        hatches = [bar.get_hatch() for bar in axes.patches]
        assert len(hatches) == len(set(hatches)) == 2
    (legend,) = figure.robustness_figure(robustness()).legends
    looks = {
        (handle.get_marker(), handle.get_markerfacecolor() == "none") for handle in legend.legend_handles
    }
    assert len(looks) == 4
    losses = figure.curves_figure(run).axes[1].lines
    assert len({(line.get_marker(), line.get_linestyle()) for line in losses}) == len(losses) == 2


def test_the_teacher_is_a_dashed_line_at_its_value(run):
    (gauc,) = (one for one in figure.curves_figure(run).axes[-5:] if one.get_ylabel() == "GAUC")
    curve, teacher = gauc.lines
    assert list(curve.get_xdata()) == [0, 1, 2] and list(curve.get_ydata()) == [0.71] * 3
    assert teacher.get_linestyle() == "--" and set(teacher.get_ydata()) == {0.755}


def test_studies_are_drawn_beside_their_files(tmp_path, capsys):
    (tmp_path / "ablation.json").write_text(json.dumps(ablation()))
    (tmp_path / "robustness.json").write_text(json.dumps(robustness()))
    arguments = [f"--{kind}={tmp_path}/{kind}.json" for kind in ("ablation", "robustness")]
    assert figure.main(arguments) == 0 and not capsys.readouterr().err
    shown = texts(tmp_path / "figures" / "ablation.svg")
    assert shown.count("failed") == 2 and "0.790 ± 0.010" in shown and "Figures 7 and 8" in shown
    shown = texts(tmp_path / "figures" / "robustness.svg")
    # One label on two datasets is told apart; each strip names its worst variant.
    assert "GANPrompt on toy" in shown and "GANPrompt on other" in shown
    assert shown.count("typos") == 6 and shown.count("terse") == 6 and "polite" not in shown


def test_several_runs_share_an_output_folder(run, tmp_path, capsys):
    baseline = tmp_path / "CoLLM-toy"
    baseline.mkdir()
    (baseline / "result.json").write_text(json.dumps({"model": "CoLLM", "dataset": "toy"}))
    entry = {"epoch": 0, "loss": 0.5, "valid": None}  # as under protocol: paper
    (baseline / "curves.json").write_text(json.dumps({"step one": [entry]}))
    assert figure.main([f"--run={run}", f"--run={baseline}/result.json", f"--out={tmp_path}/out"]) == 0
    names = {path.name for path in (tmp_path / "out").glob("*.svg")}
    assert names == {"GANPrompt-toy-classes.svg", "GANPrompt-toy-curves.svg", "CoLLM-toy-curves.svg"}
    assert "not drawn: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --run="),
        (["--run=nowhere"], "nowhere is no finished run"),
        (["--runs=nowhere"], "did you mean --run?"),
        (["figures"], "--key=value"),
        (["--run=SASRec"], "nothing to draw in SASRec"),
        (["--robustness=SASRec/result.json"], "holds nothing to draw"),
        (["--ablation=SASRec/log"], "can't be read as JSON"),
        (["--ablation=gone.json"], "can't be read as JSON"),
        (["--ablation=a.json", "--ablation=b.json"], "given twice"),
        (["--run=TALLRec", "--out=SASRec/log"], "Can't write to SASRec/log"),
        (["--run=SASRec", "--run=other/SASRec", "--out=out"], "of the same name"),
    ],
)
def test_mistakes_are_one_sentence(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "SASRec", tmp_path / "other" / "SASRec", tmp_path / "TALLRec"):
        folder.mkdir(parents=True)
        (folder / "result.json").write_text('{"model": "TALLRec", "dataset": "toy"}')
        (folder / "log").write_text("no JSON")
    curves = {"step one": [{"epoch": 0, "loss": 0.5, "valid": None}]}
    (tmp_path / "TALLRec" / "curves.json").write_text(json.dumps(curves))
    assert figure.main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said and said.count("\n") == 1
    assert not list(tmp_path.rglob("*.png"))
