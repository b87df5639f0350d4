"""Draws ``images/architecture.svg`` from the imports of the package: `python docs/architecture.py`.

A box for each folder in the order of the layering test, from top (knows nothing of perturbations) to bottom (what
people type); an arc from each folder to every folder it imports.
"""

from __future__ import annotations

import ast
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent / "src" / "pertstack"
WHAT = {
    "_base": "errors, files, names, digests",
    "_stats": "means, intervals, tests by group",
    "data": "from files to samples, genes, controls",
    "design": "fold plan, analysis plan, ledger, leaks",
    "fit": "base models, cross-fitting, jobs",
    "predictions": "the store, importers, exports",
    "reduce": "one pass: moments, slices, metrics",
    "stacking": "combiners, nested fits, choice",
    "verdict": "board, gain, checks, probes",
    "write": "tables, figures, report",
    "study": "a study folder; one file per command",
    "arrays": "ps.stack",
    "plugins": "ps.register",
    "cli": "pertstack",
    "__main__": "python -m pertstack",
}
ROW, LEFT, WIDTH = 44, 250, 400


def imports() -> dict[str, set[str]]:
    """Folder -> the folders it imports."""
    found: dict[str, set[str]] = {name: set() for name in WHAT}
    for file in sorted(ROOT.rglob("*.py")):
        mine = file.relative_to(ROOT).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            else:
                continue
            for module in modules:
                parts = module.split(".")
                if parts[0] == "pertstack" and len(parts) > 1 and mine in found and parts[1] != mine:
                    found[mine].add(parts[1])
    return found


def picture() -> str:
    """The picture as SVG text."""
    names, arrows = list(WHAT), imports()
    height = ROW * len(names) + 16
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 20} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="14">',
        "<title>Folders of pertstack and what they import</title>",
        f'<rect width="{LEFT + WIDTH + 20}" height="{height}" fill="#ffffff"/>',
    ]
    for at, name in enumerate(names):
        for other in sorted(arrows[name], key=names.index):
            to = names.index(other)
            y, z = 8 + at * ROW + 16, 8 + to * ROW + 16
            reach = LEFT - 14 - 18 * (at - to)
            out.append(
                f'<path d="M{LEFT} {y} C{reach} {y} {reach} {z} {LEFT} {z}" fill="none" stroke="#5b7083" '
                f'stroke-opacity="0.55"/>'
            )
    for at, name in enumerate(names):
        y = 8 + at * ROW
        out.append(f'<rect x="{LEFT}" y="{y}" width="{WIDTH}" height="32" rx="5" fill="#eef3f7" stroke="#33475b"/>')
        label = f'<tspan font-weight="600">{name}</tspan><tspan dx="10" fill="#33475b">{WHAT[name]}</tspan>'
        out.append(f'<text x="{LEFT + 12}" y="{y + 21}" fill="#111111">{label}</text>')
    return "\n".join([*out, "</svg>", ""])


if __name__ == "__main__":
    (HERE / "images" / "architecture.svg").write_text(picture(), encoding="utf-8")
