"""A real browser without a window: one start shows a page at several widths, runs checks inside, brings answers back.

Needs Chromium (Debian: ``apt-get install chromium``); accessibility needs axe-core beside the virtual environment
(``make axe``). Tests that lack them are skipped with a line that says so.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
AXE = Path(os.environ.get("AXE_CORE", Path(sys.prefix) / "axe" / "node_modules" / "axe-core" / "axe.min.js"))
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--allow-file-access-from-files",
    "--disable-extensions",
    "--disable-background-networking",
    "--no-first-run",
    "--window-size=1400,1000",
    "--virtual-time-budget=20000",
)
DARK = "--blink-settings=preferredColorScheme=0"


def browser() -> str:
    """Path of a Chromium; skips the test where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed (Debian: apt-get install chromium)")
    return found


def axe_source() -> str | None:
    """The text of axe-core, or None where it was not installed."""
    return AXE.read_text(encoding="utf-8") if AXE.exists() else None


def ask(folder: Path, frames: dict[str, tuple[str, int]], script: str, *, dark: bool = False) -> dict[str, Any]:
    """Show pages in frames and run ``script`` in each; answers by name.

    Parameters
    ----------
    frames : name -> (page as HTML text, width in pixels).
    script : body of an async function of (document, window, name) that returns plain values.
    """
    parts = []
    for name, (page, width) in frames.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
        parts.append(f'<iframe name="{name}" src="{name}.html" style="width:{width}px;height:900px;border:0"></iframe>')
    asked = f"async function ask(document, window, name) {{ {script} }}"
    run = """
    window.addEventListener("load", async function () {
      var out = {};
      for (var frame of document.querySelectorAll("iframe")) {
        try { out[frame.name] = await ask(frame.contentDocument, frame.contentWindow, frame.name); }
        catch (error) { out[frame.name] = {error: String(error && error.stack || error)}; }
      }
      document.getElementById("out").textContent = JSON.stringify(out);
    });"""
    harness = folder / "harness.html"
    harness.write_text(
        f'<!doctype html><meta charset="utf-8"><pre id="out"></pre>{"".join(parts)}<script>{asked}{run}</script>',
        encoding="utf-8",
    )
    words = [browser(), *FLAGS, *([DARK] if dark else []), f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    done = subprocess.run([*words, harness.as_uri()], capture_output=True, text=True, timeout=180, check=False)
    found = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, flags=re.S)
    assert found and found.group(1), f"the browser gave no answer\n{done.stdout[-500:]}\n{done.stderr[-2000:]}"
    answers: dict[str, Any] = json.loads(html.unescape(found.group(1)))
    return answers


LAYOUT = """
  const wide = window.innerWidth, seen = [], out = [];
  const scrolls = e => { for (; e && e !== document.body; e = e.parentElement) {
    const s = window.getComputedStyle(e); if (/auto|scroll|hidden/.test(s.overflowX)) return true; } return false; };
  for (const e of document.body.querySelectorAll("*")) {
    const r = e.getBoundingClientRect(), style = window.getComputedStyle(e);
    if (!r.width || !r.height || style.visibility === "hidden") continue;
    if (r.right > wide + 1 && !scrolls(e)) out.push(e.tagName + "." + e.className + " " + Math.round(r.right));
    const text = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    const drawn = text || e.tagName === "svg" || e.tagName === "I";
    if (drawn) seen.push([r.top + window.scrollY, r.bottom + window.scrollY]);
  }
  seen.sort((a, b) => a[0] - b[0]);
  let end = 0, blank = 0;
  for (const [top, bottom] of seen) { blank = Math.max(blank, top - end); end = Math.max(end, bottom); }
  const layout = {beyond: out.slice(0, 8), blank: blank, height: end,
    sideways: document.documentElement.scrollWidth - document.documentElement.clientWidth};
"""
"""What of the page lies beyond its width, and the tallest stretch without anything on it; ``layout`` in the script."""

ACCESSIBLE = """
  const tag = document.createElement("script"); tag.textContent = AXE; document.head.appendChild(tag);
  const checked = await window.axe.run(document, {resultTypes: ["violations"]});
  const faults = checked.violations.filter(v => ["serious", "critical"].includes(v.impact))
    .map(v => v.id + ": " + v.nodes.slice(0, 3).map(n => n.html.slice(0, 120) + " " + (n.any[0] || {}).message));
"""
"""Serious and critical findings of axe-core; ``faults`` in the script, which needs ``AXE`` to hold its source."""
