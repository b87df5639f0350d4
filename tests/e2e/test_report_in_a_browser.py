"""The report in a real browser: three widths, dark, paper; nothing overflows, nothing is blank, everything works."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import browser
from pertstack._base.findings import Finding
from pertstack.verdict.checks.checks import run_checks
from pertstack.verdict.checks.facts import Facts
from pertstack.verdict.judge import judge
from pertstack.verdict.setting import Setting
from pertstack.write.report import render
from pertstack.write.report_input import ReportInput
from references.judged_world import KINDS, shifts, world
from references.plain_resampling import PlainResampling

MORE = {f"combiner_with_a_long_name_{i:02d}": {"own": 0.001 * i, "pooled": 0.001 * i} for i in range(9)}
MODELS = ["mlp", "ridge", "knn", "mean_treated"]


def page() -> str:
    """Nineteen rows, so that some are folded away; every part of the page filled."""
    kinds = KINDS | dict.fromkeys(MORE, "combiner")
    setting = Setting(
        kinds,
        chosen="direct_pooled",
        test_looks=1,
        plan_digest="9f2c44e0a1b2" * 4,
        versions={"numpy": "2.4"},
        cautions={"simplex": ("weights did not settle",)},
        simulated=True,
    )
    verdict = judge(world(24, by_name=shifts() | MORE), None, setting, resampling=PlainResampling(20))
    correlation = pd.DataFrame(np.eye(4) * 0.2 + 0.8, MODELS, MODELS)
    content = ReportInput(
        "study: lincs_level3.h5ad",
        verdict,
        data={"samples": 72, "cell lines": ["A375", "HT29"]},
        plan={"primary": "r2_top20", "combiners": []},
        ledger=[{"time": "2026-01-01T00:00:00Z", "who": "ana", "kind": "look", "facts": {"key": "a" * 64}}],
        weights={"direct_pooled": dict(zip(MODELS, (0.8, 0.3, -0.1, 0.0), strict=True))},
        prediction_correlation=correlation,
        error_correlation=correlation,
        diversity={"effective number": 2.371},
        ladder=[{"name": "direct_pooled", "outcome": "kept", "reason": "gains"}],
        checks=run_checks(Facts(verdict, correlation)),
        findings=[Finding("warning", "shared_control", "14 control rows are shared.", 14)],
        probes=[Finding("warning", "fold_fingerprint", "knn carries the mark of other folds.", where="knn")],
        absent=[{"name": "transigen", "reason": "loss became NaN"}],
        coverage=pd.DataFrame({"cell_line": ["A375"], "coverage": [0.91], "width": [1.0]}),
        slopes={"mlp": 1.02, "knn": 0.6},
        made={"look": "2026-01-01 00:00", "command": "pertstack report study"},
        simulated=True,
        mean_name="plain_mean",
    )
    return render(dataclasses.replace(content))


@cache
def pages_by_headline() -> dict[str, str]:
    """The report in every state of its headline, as docs/headlines.py draws them."""
    path = Path(__file__).resolve().parents[2] / "docs" / "headlines.py"
    spec = importlib.util.spec_from_file_location("headlines", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {state: module.page(state, PlainResampling(20)) for state in module.STATES}


WORKS = """
  const forest = document.querySelector("figure.forest");
  const lines = () => [...forest.querySelectorAll("li.row")].filter(r => !r.hidden);
  const all = forest.querySelector("button.all"), filter = forest.querySelector("input.filter"), first = lines().length;
  all.click(); const opened = lines().length; all.click();
  filter.value = "ridge"; filter.dispatchEvent(new window.Event("input"));
  const ridge = lines().map(r => r.dataset.name);
  filter.value = ""; filter.dispatchEvent(new window.Event("input"));
  const table = document.querySelector("table.board"), shown = () => [...table.tBodies[0].rows].filter(r => !r.hidden);
  const folded = shown().length, column = [...table.tHead.rows[0].cells].findIndex(c => c.textContent.includes("RMSE"));
  const press = table.tHead.rows[0].cells[column].querySelector("button"); press.click(); press.click();
  const sorted = shown().map(r => parseFloat(r.cells[column].dataset.v));
  forest.querySelector("li.row").dispatchEvent(new window.Event("mouseenter"));
  const told = forest.querySelector(".readout").textContent;
  forest.querySelector("li.row button.name").click();
  const works = {first, opened, ridge, folded, sorted, told,
    marked: [...document.querySelectorAll(".marked")].map(x => x.dataset.name),
    saves: [...document.querySelectorAll("button.save")].map(b => b.textContent)};
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    axe, text = browser.axe_source(), page()
    paper = text.replace("@media print", "@media all").replace("@media screen", "@media speech")
    frames = {"phone": (text, 400), "tablet": (text, 800), "desk": (text, 1280)}
    script = browser.LAYOUT + (browser.ACCESSIBLE if axe else "const faults = null;")
    script = f"const AXE = {json.dumps(axe)};".replace("</", "<\\/") + script
    light = browser.ask(
        tmp_path_factory.mktemp("light"),
        {**frames, "paper": (paper, 700)},
        script + WORKS + "return {layout, faults, works};",
    )
    dark = browser.ask(
        tmp_path_factory.mktemp("dark"),
        frames,
        script
        + """
        const ground = window.getComputedStyle(document.body).backgroundColor;
        return {layout, faults, ground};""",
        dark=True,
    )
    return {**light, **{f"{name} in the dark": found for name, found in dark.items()}}


VIEWS = ("phone", "tablet", "desk", "paper", "phone in the dark", "tablet in the dark", "desk in the dark")


BROKEN = """
  const broken = [], range = document.createRange();
  for (const cell of document.querySelectorAll("th, td")) {
    const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    for (let text; (text = texts.nextNode()); ) for (const word of text.textContent.matchAll(/[A-Za-z]+/g)) {
      range.setStart(text, word.index); range.setEnd(text, word.index + word[0].length);
      const lines = new Set([...range.getClientRects()].map(r => Math.round(r.top)));
      if (lines.size > 1) broken.push(word[0] + " in " + cell.textContent.slice(0, 60));
    }
  }
"""
"""Words of tables that stand on two lines."""


def test_no_word_of_a_table_is_broken_on_paper(tmp_path):
    """ "outco-me", "passe-d", "stru-ctur-es": columns on paper were squeezed to a letter."""
    paper = page().replace("@media print", "@media all").replace("@media screen", "@media speech")
    found = browser.ask(tmp_path, {"paper": (paper, 690)}, browser.LAYOUT + BROKEN + "return {layout, broken};")[
        "paper"
    ]
    assert found["broken"] == [] and found["layout"]["beyond"] == [] and found["layout"]["sideways"] <= 0, found


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_overflows_and_nothing_is_blank(answers, view):
    found = answers[view]
    assert "error" not in found, found
    assert found["layout"]["beyond"] == [] and found["layout"]["sideways"] <= 0, found["layout"]
    assert found["layout"]["blank"] < 600 and found["layout"]["height"] > 1000


@pytest.mark.parametrize("view", [v for v in VIEWS if v != "paper"])
def test_axe_core_finds_no_serious_fault(answers, view):
    if answers[view]["faults"] is None:
        pytest.skip("axe-core is not installed: make axe")
    assert answers[view]["faults"] == []


@pytest.mark.parametrize("dark", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["light", "dark"])
def test_axe_core_finds_no_serious_fault_in_any_state_of_the_headline(tmp_path, dark):
    axe = browser.axe_source()
    if axe is None:
        pytest.skip("axe-core is not installed: make axe")
    frames = {state: (text, 400) for state, text in pages_by_headline().items()}
    script = f"const AXE = {json.dumps(axe)};".replace("</", "<\\/") + browser.LAYOUT + browser.ACCESSIBLE
    found = browser.ask(tmp_path, frames, script + "return {layout, faults};", dark=dark)
    assert len(found) >= 7
    assert {s: a.get("faults", a) for s, a in found.items() if a.get("faults", a)} == {}
    assert all(a["layout"]["beyond"] == [] and a["layout"]["sideways"] <= 0 for a in found.values())


def test_dark_is_dark(answers):
    assert answers["desk in the dark"]["ground"] == "rgb(21, 24, 28)"


@pytest.mark.parametrize("view", ["phone", "tablet", "desk"])
def test_show_all_filter_sort_hover_and_marks_work(answers, view):
    found = answers[view]["works"]
    assert (found["first"], found["opened"], found["folded"]) == (11, 19, 11)  # best ten and the best single model
    assert found["ridge"] == ["ridge"]
    assert found["sorted"] == sorted(found["sorted"]) and len(found["sorted"]) == 10
    assert found["told"].startswith("direct_pooled (combiner); R² Top-20") and "n 72 of 72" in found["told"]
    assert set(found["marked"]) == {"direct_pooled"} and len(found["marked"]) == 2
    assert {"SVG", "PNG", "CSV"} <= set(found["saves"])


def test_it_is_one_small_file_that_asks_no_network():
    text = page()
    assert len(text.encode()) < 1_500_000 and "src=" not in text.split("<script>")[0]
