"""A picture of every state of a report's headline, from score tables of known gains: ``python docs/headlines.py``.

Writes ``docs/images/headline-*.png``; needs Chromium (Debian: ``apt-get install chromium``). ``--check FOLDER`` writes
each state at three widths, dark and as a printed page instead, for looking at.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import browser  # noqa: E402
from pertstack.verdict.judge import judge  # noqa: E402
from pertstack.verdict.resampling import GroupResampling  # noqa: E402
from pertstack.verdict.setting import Resampling, Setting  # noqa: E402
from pertstack.write.report import render  # noqa: E402
from pertstack.write.report_input import ReportInput  # noqa: E402
from references.judged_world import KINDS, shifts, world  # noqa: E402

SEEN = {"mlp": ("mlp repeats the noise of single measurements that it should not know (z = 41).",)}
STATES = {
    "green": ("direct_pooled", 60, {}, {}),
    "amber-few-groups": ("direct_pooled", 12, {}, {}),
    "within-noise": ("direct_pooled", 60, {"own": 0.002, "pooled": 0.001, "centroid": 0.0, "rmse": 0.0}, {}),
    "between-named": (
        "direct_pooled",
        60,
        {"own": 0.0005, "pooled": 0.0005, "centroid": 0.0, "rmse": 0.0},
        {"alone": "ridge", "between_named": True},
    ),
    "best-single-alone": ("best_single", 60, {}, {"alone": "mlp"}),
    "red": ("direct_own", 60, {}, {}),
    "do-not-trust": ("direct_pooled", 60, {}, {"accused": SEEN, "accused_gravely": frozenset({"mlp"})}),
    "simulated": ("direct_pooled", 60, {}, {"simulated": True}),
}
"""Name -> what was chosen out of fold, number of perturbations, gains that differ, what else is known."""


def page(state: str, resampling: Resampling = GroupResampling(0)) -> str:  # noqa: B008  (frozen)
    """The report of a state, as far as a score table tells."""
    chosen, n, gains, known = STATES[state]
    kinds = KINDS | ({"best_single": "reference"} if chosen == "best_single" else {})
    by_name = shifts(**gains) | ({"best_single": {}} if chosen == "best_single" else {})
    setting = Setting(kinds, chosen=chosen, test_looks=1, plan_digest="9f2c44e0a1b2" * 4, **{"alone": "mlp", **known})
    tables = world(n, by_name=by_name), world(n, seed=6, by_name=by_name)
    verdict = judge(*tables, setting, resampling=resampling)
    made = {"test opened": "2026-01-01 00:00 UTC", "command": "pertstack report study"}
    facts = {"title": "study: screen.h5ad", "verdict": verdict, "made": made, "simulated": setting.simulated}
    return render(ReportInput(**facts))


def shoot(html: str, target: Path, size: tuple[int, int], *, dark: bool = False) -> None:
    """One picture of a page at a width and height in pixels."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "page.html"
        source.write_text(html, encoding="utf-8")
        flags = [f for f in browser.FLAGS if not f.startswith("--window-size")]
        words = [browser.browser(), *flags, *([browser.DARK] if dark else []), f"--user-data-dir={folder}/profile"]
        words += [f"--window-size={size[0]},{size[1]}", f"--screenshot={target}", source.as_uri()]
        subprocess.run(words, capture_output=True, timeout=180, check=True)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--check", type=Path)
    folder = asked.parse_args().check
    for state in STATES:
        html = page(state)
        if folder is None:
            shoot(html, ROOT / "docs" / "images" / f"headline-{state}.png", (900, 560))
            continue
        folder.mkdir(parents=True, exist_ok=True)
        # a window of Chromium is at least 500 wide: the phone is a frame inside it
        (folder / f"{state}.html").write_text(html, encoding="utf-8")
        framed = f'<iframe src="file://{folder / state}.html" style="width:400px;height:1800px;border:0"></iframe>'
        shoot(f"<!doctype html><body style='margin:0'>{framed}", folder / f"{state}-400.png", (500, 1800))
        shoot(html, folder / f"{state}-800.png", (800, 1500))
        shoot(html, folder / f"{state}-1280.png", (1280, 1500))
        shoot(html, folder / f"{state}-dark.png", (1000, 1500), dark=True)
        paper = html.replace("@media print", "@media all").replace("@media screen", "@media speech")
        shoot(paper, folder / f"{state}-paper.png", (700, 1500))


if __name__ == "__main__":
    main()
