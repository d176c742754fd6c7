"""The page of a benchmark whose titles, names and figures try to break out of it."""

import csv
import json
import shutil
from html.parser import HTMLParser

import pytest

from recbole_ganprompt.errors import UserError
from recbole_ganprompt.report.page import page_context, write_page

TITLES = [
    "</script><script>window.broken = alert(1)</script>",
    '<img src=x onerror="window.broken = alert(2)">',
    "\"'><svg onload=alert(3)><a href='javascript:alert(4)'>",
    "{{ 7 * 7 }} {% raw %} ${alert(5)} <!-- --> ]]>",
    "\u202eסרט על ילדים",
    "🎬🍿 emoji",
    "x" * 300,
    "http://example.com/picture.png",
    "&lt;b&gt; &amp; \\u003c",
    "half a pair \ud83c",
]
EVIL = '"><b onclick=alert(6)>Model'
SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9" onload="alert(7)">
<title>Drop by wording</title><metadata><description>A bar for each model.</description>
<source>Gone-1, Low-1</source></metadata>
<script>window.top.broken = alert(8)</script>
<image href="http://example.com/x.png"/><rect width="5" height="9"/></svg>"""
FIRST = "Amazon_Beauty"  # of which the paper has rows
GAUC = {"Low": [0.5, 0.52], EVIL: [0.80, 0.84], "Mid": [0.75]}  # Mid's other seed failed


def cell(dataset, model, seed, seconds=None, reason=None):
    finished = reason is None
    run = f"saved/runs/{model if model != EVIL else 'Evil'}-{seed}" if finished else None
    status = {"status": "finished" if finished else "failed", "reason": reason, "run": run}
    return {
        "dataset": dataset,
        "model": model,
        "seed": seed,
        **status,
        "attempts": 1,
        "seconds": seconds,
        "peak_memory_mb": 700.0 if finished else None,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work") / "saved" / "benchmarks" / "hostile"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "drops.svg").write_text(SVG)
    cells = [cell(FIRST, "None", 1, reason=TITLES[0] * 5)]
    cells += [cell(FIRST, "Low", 1, 100.5), cell(FIRST, "Low", 2, 9.5), cell(FIRST, EVIL, 1, 20.0)]
    cells += [cell(FIRST, EVIL, 2, 21.0), cell(FIRST, "Mid", 1, 22.0)]
    cells += [cell(FIRST, "Mid", 2, reason=TITLES[1])]
    cells += [cell("<second>", "Low", 3, 30.0)]
    with (folder / "runs.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["dataset", "model", "seed", "split", "metric", "value"])
        rows = [(FIRST, model, seed, value) for model in GAUC for seed, value in enumerate(GAUC[model], 1)]
        for dataset, model, seed, value in [*rows, ("<second>", "Low", 3, 0.6)]:
            for split, shift in (("valid", 0.1), ("test", 0.0)):
                for metric in ("gauc", "hit@1", "ndcg@3", "mrr@5"):
                    writer.writerow([dataset, model, seed, split, metric, value + shift])
    for done in cells:
        if done["run"]:
            directory = folder.parents[2] / done["run"]
            directory.mkdir(parents=True)
            rate = 0.5 if done["model"] == EVIL else 0.001
            (directory / "config.yaml").write_text(f"epochs: 3\nlearning_rate: {rate}\nitem_text: '</pre>'\n")
    statistics = {"users": 12, "items": 2000, "interactions": 345, "sparsity": 98.5, "candidates": "ab12"}
    test = {"dataset": FIRST, "metric": "gauc", "best": EVIL, "second": "Mid", "difference": 0.07}
    test["confidence"] = 0.975
    unclear = {
        **test,
        "metric": "hit@1",
        "low": 0.01,
        "high": 0.1,
        "p": 0.3,
        "p_corrected": 0.6,
        "stars": "",
    }
    benchmark = {
        "name": "</title><script>alert(9)</script>",
        "command": "python run_benchmark.py --name='<b>' --paper",
        "date": "2026-01-02T03:04:05",
        "commit": None,
        "machine": {"processor": "<i>", "cores": 2, "memory_gb": 24, "gpu": None},
        "metrics": ["gauc", "hit@1", "ndcg@3", "mrr@5"],
        "datasets": {FIRST: statistics, "<second>": statistics},
        "cells": cells,
        "significance": [
            {**test, "low": 0.01, "high": 0.1, "p": 0.001, "p_corrected": 0.004, "stars": "**"},
            unclear,
        ],
    }
    candidates = [{"item": str(i), "title": title, "target": i == 2} for i, title in enumerate(TITLES)]
    scores = {"Low": [0.5] * 10, EVIL: [0.1 * i for i in range(10)]}
    example = {"user": "u<1>", "history": TITLES, "candidates": candidates, "scores": scores}
    other = {**example, "user": "u2", "history": ["A quiet film"]}
    orders = {"training": list(range(10)), "polite": [1, 0, *range(2, 10)]}
    summary = {
        "metrics": {"gauc": {"mean": 0.7, "worst": 0.6, "sd": 0.02, "relative_drop": -0.01}},
        "top1_changed": {"mean": 0.1, "low": 0.05, "high": 0.2},
        "kendall_tau": {"mean": 0.9, "low": 0.8, "high": 0.95},
        "overlap@3": {"mean": 0.9, "low": 0.8, "high": 0.95},
    }
    summary["metrics"]["gauc"] |= {"low": -0.02, "high": 0.01}
    changed = {"top1_changed": 0.1, "kendall_tau": 0.9, "overlap@3": 0.9}
    changed |= {"name": "polite", "metrics": {"gauc": 0.7}, "relative_drop": {"gauc": -0.01}}
    study = {"run": "saved/runs/Evil-1", "dataset": FIRST, "model": EVIL, "label": EVIL, "seed": 1}
    study |= {"users": 12, "baseline": {"gauc": 0.69}, "variants": [changed], "summary": {"wording": summary}}
    study["skipped"] = {"terse": TITLES[2]}
    low, nothing = {**study, "label": "Low", "seeds": [1, 2]}, {"difference": None, "low": None, "high": None}
    clear = {"difference": -0.0234, "low": -0.03, "high": -0.01}
    pair = {"dataset": FIRST, "first": EVIL, "second": "Low", "group": "wording"}
    pair |= {"relative_drop": {"gauc": clear}, "top1_changed": nothing}
    pair |= {"kendall_tau": {"difference": 0.02, "low": -0.01, "high": 0.05}, "overlap@3": nothing}
    robustness = {
        "date": benchmark["date"],
        "metrics": ["gauc"],
        "variants": [{"name": "polite", "group": "wording", "description": TITLES[0]}],
        "runs": [study],
        "labels": [{**study, "seeds": [1]}, low],
        "comparisons": [pair],
        "failed": [{"run": "saved/runs/Broken-1", "reason": TITLES[3]}],
        "examples": [{"dataset": FIRST, "user": "u<1>", "model": EVIL, "seed": 1, "orders": orders}],
    }
    kl = {"kl": {"mean": 0.2, "sd": 0.1}}
    rows = [
        {"label": "Div-ori", "status": "finished", "failures": [], "values": kl},
        {"label": "Div-cos", "status": "failed", "failures": ["seed 2: " + TITLES[0]], "values": kl},
        {"label": "<Div-all>", "status": "failed", "failures": [TITLES[0], TITLES[1]], "values": {}},
    ]
    for row, finished in zip(rows, (2, 1, 0)):
        row |= {"finished": finished, "default": finished == 2}
    group = {"name": "diversity", "title": "Diversity", "figure": None, "note": None}
    group |= {"measures": ["kl"], "rows": rows}
    ablation = {"dataset": FIRST, "seeds": [1, 2], "date": benchmark["date"], "groups": [group]}
    ablation["unchanged"] = {"step_two": "all"}
    files = {"benchmark": benchmark, "examples": {FIRST: [example], "<second>": [other]}}
    files |= {"robustness": robustness, "ablation": ablation}
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return write_page(folder)


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text between them."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def test_nothing_breaks_out_and_nothing_is_loaded(page):
    html = page.read_text(encoding="utf-8")
    found = Elements(html)
    assert [tag for tag, _ in found.elements].count("script") == 1
    assert {tag for tag, _ in found.elements}.isdisjoint({"b", "i", "svg", "link", "iframe", "second"})
    for _, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith(("#", "../../runs/"))
    for title in TITLES[:-1]:
        assert title in found.text
    assert "half a pair ?" in found.text and "http://example.com/picture.png" in found.text
    (policy,) = (
        a["content"] for tag, a in found.elements if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'") and "http" not in policy
    (image,) = (a for tag, a in found.elements if tag == "img")
    assert image["alt"] == "Drop by wording. A bar for each model."
    assert "of Gone-1, which is not in the table" in found.text


def test_it_says_what_was_compared_and_what_was_left_out(page):
    html = page.read_text(encoding="utf-8")
    shown = " ".join(Elements(html).text.split())
    assert f"{EVIL} − Low" in shown and "<strong>−2.3 (−3.0 to −1.0)</strong>" in html
    assert "0.020 (−0.010 to 0.050)" in shown and "<strong>0.020" not in html
    assert f"Not asked in terse: {EVIL} on {FIRST}, seed 1: {TITLES[2]}" in shown
    assert f"Failed: saved/runs/Broken-1: {TITLES[3]}" in shown and "under each wording, seed 1." in shown
    assert "Div-ori (default)" in shown and "here step_two: all" in shown and "None of the paper" not in shown
    assert f"Div-cos is the mean of 1 of 2 seeds; failed: seed 2: {TITLES[0]}." in shown
    assert "The paper’s numbers are from its own extract" in shown and html.count("(paper)") == 3


def test_the_numbers_are_those_of_the_test_split(folder):
    context = page_context(folder)
    first = context["datasets"][0]
    failed, _, best, second = first["rows"]
    assert best["cells"][0]["mean"] == pytest.approx(0.82)
    assert best["cells"][0]["sd"] == pytest.approx(0.02 * 2**0.5)
    assert (best["cells"][0]["mark"], best["cells"][0]["stars"]) == ("best", "**")
    assert second["cells"][0]["mark"] == "second" and second["cells"][0]["sd"] is None
    assert (second["finished"], second["seeds"]) == (1, 2)
    assert first["improvements"][0] == pytest.approx(100 * 0.07 / 0.75)
    assert failed["finished"] == 0 and "</script>" in failed["failures"][0]
    user = context["users"][0]
    assert [candidate["ranks"][EVIL] for candidate in user["candidates"]] == list(range(10, 0, -1))
    assert {candidate["ranks"]["Low"] for candidate in user["candidates"]} == {5.5}  # all tied
    moved = [(moved["rank"], moved["rose"]) for moved in user["wordings"][0]["rows"][1]["cells"]]
    assert moved[:3] == [(2, -1), (1, 1), (3, 0)]
    evil = context["runs"][3]
    assert evil["different"] == "learning_rate: 0.5\n" and evil["folder"] == "../../runs/Evil-1"
    assert "epochs: 3" in evil["same"]


def test_a_folder_without_a_benchmark_is_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match="run_benchmark.py"):
        write_page(tmp_path)
    (tmp_path / "runs.csv").write_text("")
    (tmp_path / "benchmark.json").write_text("{")
    with pytest.raises(UserError, match="benchmark.json is not JSON"):
        write_page(tmp_path)
    (tmp_path / "benchmark.json").write_text('{"cells": [], "metrics": []}')  # of one that goes on
    with pytest.raises(UserError, match="no results of a finished benchmark"):
        write_page(tmp_path)


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("selenium")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs Chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--force-prefers-reduced-motion",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    yield browser
    browser.quit()


@pytest.fixture
def opened(browser, page):
    browser.get(page.as_uri())
    return browser


PAPER = ["–", "–", "+1.3"]
PAPERS = ["SASRec (paper)", "BERT4Rec (paper)", "Impr. (%) (paper)"]


def column(browser, table, index):
    """First line of each cell of a column, the header's left out."""
    text = "row => row.cells[arguments[1]]?.innerText.split('\\n')[0]"
    return browser.execute_script(f"return [...arguments[0].rows].slice(1).map({text})", table, index)


def test_a_header_sorts_by_mouse_and_by_keyboard(opened):
    table = opened.find_element("css selector", "#results table")
    gauc = table.find_elements("css selector", "thead th")[1]
    button = gauc.find_element("tag name", "button")
    failed = column(opened, table, 1)[0]
    button.click()
    assert gauc.get_attribute("aria-sort") == "descending"
    assert column(opened, table, 1) == ["0.8200**", "0.7500", "0.5100", failed, "+9.3", *PAPER]
    assert opened.find_element("id", "announcement").text == "Sorted by GAUC, descending."
    button.send_keys("\ue007")  # Enter
    assert gauc.get_attribute("aria-sort") == "ascending"
    assert column(opened, table, 1) == ["0.5100", "0.7500", "0.8200**", failed, "+9.3", *PAPER]
    table.find_element("css selector", "thead th button").send_keys(" ")
    assert column(opened, table, 0) == [EVIL, "Low", "Mid", "None", "Impr. (%) of best over second", *PAPERS]
    assert gauc.get_attribute("aria-sort") is None
    # The failed model's one cell stands in all metrics' columns: it is last in each of them, either way.
    another = table.find_elements("css selector", "thead button")[2]
    for _ in range(2):
        another.click()
        assert column(opened, table, 0)[3] == "None"
    runs = opened.find_element("css selector", "#runs table")
    runs.find_elements("css selector", "thead button")[4].click()
    seconds = column(opened, runs, 4)
    assert seconds == ["100.5", "30.0", "22.0", "21.0", "20.0", "9.5", "–", "–"]


def test_choosing_a_user_shows_that_user_alone(opened):
    def shown():
        return [a.text for a in opened.find_elements("css selector", "#users article") if a.is_displayed()]

    select = opened.find_element("id", "user")
    (loud,) = shown()
    select.send_keys("\ue015")  # arrow down
    (quiet,) = shown()
    select.send_keys("\ue013")  # arrow up
    assert shown() == [loud]
    assert "A quiet film" in quiet and "A quiet film" not in loud
    assert "★ target" in loud and "▲1" in loud and "▼1" in loud and "▲1" not in quiet


def test_it_runs_no_foreign_script_and_asks_for_nothing(opened):
    assert opened.execute_script("return window.broken") is None
    assert opened.execute_script("return document.images[0].naturalWidth") > 0
    assert [entry["message"] for entry in opened.get_log("browser")] == []
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert asked and {url.split(":")[0] for url in asked} <= {"file", "data"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits_a_phone(opened, scheme):
    axe = pytest.importorskip("axe_core_python.selenium")
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    size = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        opened.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
        width = opened.execute_script("return [document.scrollingElement.scrollWidth, innerWidth]")
        assert width[1] == 360 and width[0] <= 360
        for table in opened.find_elements("tag name", "table"):
            assert table.find_elements("css selector", "caption")
        result = axe.Axe().run(opened)
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in result["violations"]] == []
    assert "color-contrast" in {rule["id"] for rule in result["passes"]}
    assert opened.find_element("id", "user").accessible_name == "User"
