"""Every numbered check and every probe has a sentence in the report and an anchor of the same name in the docs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import pertstack
from pertstack._base.findings import Finding
from pertstack.verdict.checks.checks import CHECKS
from pertstack.write import advice
from pertstack.write.report import render

ROOT, SRC = Path(__file__).resolve().parents[2], Path(pertstack.__file__).parent
PROBING = [*(SRC / "verdict" / "probes").glob("*.py"), SRC / "study" / "audit" / "probes_refitted.py"]


def built(page: str) -> str:
    """HTML of a page of the documentation, by the parser that the site uses."""
    pytest.importorskip("myst_parser")
    from docutils.core import publish_string
    from myst_parser.parsers.docutils_ import Parser

    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    quiet = {"report_level": 5, "output_encoding": "unicode", "embed_stylesheet": False}
    return str(publish_string(text, parser=Parser(), writer_name="html5", settings_overrides=quiet))


def codes() -> set[str]:
    """Codes that probes emit: what ``Finding`` and ``not_applicable`` are called with."""
    found = set()
    for node in (n for f in PROBING for n in ast.walk(ast.parse(f.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            place = {"Finding": 1, "not_applicable": 0}.get(node.func.id)
            if place is not None and len(node.args) > place and isinstance(node.args[place], ast.Constant):
                found.add(str(node.args[place].value))
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "code":
            found |= {str(c.value) for c in ast.walk(node.value) if isinstance(c, ast.Constant)} - {"warning"}
    return found


def test_every_check_has_an_anchor_under_its_number_and_a_sentence() -> None:
    headings = re.findall(r'<a id="check-(\d+)"></a>\s*.*?<h[23]>\1\. (\w+):', built("checks.md"), flags=re.S)
    assert [(int(n), code) for n, code in headings] == [(n, code) for n, (code, _, _) in enumerate(CHECKS, start=1)]
    assert list(advice.CHECKS) == [code for code, _, _ in CHECKS]


def test_every_probe_has_an_anchor_and_a_sentence() -> None:
    emitted = {advice.probe_of(code)[0] for code in codes()}
    assert emitted == set(advice.PROBES), "codes of probes without a sentence, or sentences without a probe"
    assert set(re.findall(r'id="probe-(\w+)"', built("probes.md"))) == set(advice.PROBES)
    assert set(advice.ACCUSATIONS) <= codes()


def test_the_report_says_what_a_probe_asks_where_it_links_to() -> None:
    from unit.write.test_report import full_input

    probes = [Finding("note", f"{name}_passed", "Nothing found.", where="mlp") for name in advice.PROBES]
    probes += [Finding("error", "test_jumps_on_the_test", "It jumps.", where="mlp")]
    page = render(full_input(probes=probes))
    linked = set(re.findall(r'<th><a href="#probe-(\w+)"', page))
    assert linked == set(advice.PROBES) == set(re.findall(r'<dt id="probe-(\w+)"', page))
    assert set(re.findall(r'<tr id="check-(\d+)"', page)) == {str(n + 1) for n in range(len(CHECKS))}
