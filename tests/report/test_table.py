"""The same table in four formats."""

import re
import shutil
import subprocess

import pandas as pd
import pytest

from recbole_ganprompt.report.table import summarise, to_html, to_latex, to_markdown, to_text

VALUES = {
    "SASRec": [0.80, 0.82],
    "Caser_100%": [0.70, 0.74],
    "GANPrompt": [0.85, 0.87],
}


@pytest.fixture
def table():
    rows = [
        {"model": model, "seed": seed, "metric": metric, "value": value * scale}
        for model, values in VALUES.items()
        for seed, value in enumerate(values)
        for metric, scale in (("auc", 1.0), ("hit@1", 0.5))
    ]
    failed = {"DIN, seed 1": "RuntimeError: 5 < 6 & <b>"}
    models = [*VALUES, "DIN"]
    found = summarise("toy", pd.DataFrame(rows), models, ["auc", "hit@1"], failed, {"auc": "**"})
    found.paper = {"SASRec": ["0.59", "–"]}
    return found


def test_means_places_and_improvement(table):
    cell = table.rows["GANPrompt"][0]
    assert cell.mean == pytest.approx(0.86) and cell.sd == pytest.approx(0.0141421, rel=1e-4)
    assert [table.rows[model][0].place for model in (*VALUES, "DIN")] == [2, 0, 1, 0]
    label, percents = table.improvement
    assert label == "Impr. (%) of GANPrompt" and percents == pytest.approx([100 * (0.86 / 0.81 - 1)] * 2)


def test_ganprompt_may_be_worse_than_the_best(table):
    rows = pd.DataFrame(
        [{"model": m, "seed": 0, "metric": "auc", "value": v} for m, v in (("A", 0.8), ("GANPrompt", 0.6))]
    )
    assert summarise("t", rows, ["A", "GANPrompt"], ["auc"]).improvement[1] == pytest.approx([-25])


def test_text_and_markdown(table):
    text = to_text(table)
    assert "[0.8600 ± 0.0141]**" in text and "(0.8100 ± 0.0141)" in text and "SASRec (paper)" in text
    assert "DIN, seed 1: failed: RuntimeError" in text
    lines = to_markdown(table).splitlines()
    assert r"| GANPrompt | **0.8600 ± 0.0141**\*\* | **0.4300 ± 0.0071** |" in lines
    assert "| SASRec | <u>0.8100 ± 0.0141</u> | <u>0.4050 ± 0.0071</u> |" in lines


def test_html_is_escaped(table):
    page = to_html([table])
    assert "5 &lt; 6 &amp; &lt;b&gt;" in page and "<b>0.8600 ± 0.0141</b>**" in page


def test_latex_compiles(table, tmp_path):
    source = to_latex([table])
    assert r"\toprule" in source and r"\textbf{0.8600 $\pm$ 0.0141}$^{**}$" in source
    assert r"Caser\_100\%" in source and r"\underline{0.8100 $\pm$ 0.0141}" in source
    if shutil.which("pdflatex") is None:
        pytest.skip("needs pdflatex to compile the table")
    (tmp_path / "table.tex").write_text(source)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, re.sub(r"\s+", " ", done.stdout)[-500:]
    assert (tmp_path / "table.pdf").stat().st_size > 1000
