"""Runs the tutorials and writes what each cell shows under it: ``python docs/tutorial_outputs.py [NAME...]``.

What a cell prints, then its last line as a notebook would show it: text as text, a matplotlib figure as a picture in
``docs/images``. ``tests/e2e/test_contributing.py`` runs the same cells and compares the words.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).resolve().parent
CELL = re.compile(r"```\{code-cell\} python\n(.*?)```\n", flags=re.S)
SHOWN = re.compile(r"\n% what it shows\n\n(?:```text\n.*?```\n|!\[[^\n]*\n)", flags=re.S)
"""What was written under a cell by an earlier run: a text block or a picture, after a MyST comment."""


def show(code: str, names: dict[str, object], label: str) -> tuple[str, object]:
    """Run a cell; what it printed and what its last line is (None where that is no expression)."""
    *before, last = ast.parse(code).body
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        if isinstance(last, ast.Expr):
            exec(compile(ast.Module(before, []), label, "exec"), names)
            value = eval(compile(ast.Expression(last.value), label, "eval"), names)
        else:
            exec(compile(code, label, "exec"), names)
    return printed.getvalue().rstrip(), value


def with_outputs(text: str, label: str, picture: Callable[[int, object], str]) -> str:
    """The page with the output of every cell under it, as run now in the working folder.

    Parameters
    ----------
    picture : keeps a figure, given the number of its cell, and returns the path to write.
    """
    names: dict[str, object] = {"__name__": "notebook"}
    count = 0

    def run(found: re.Match[str]) -> str:
        nonlocal count
        count += 1
        printed, value = show(found[1], names, f"{label}, cell {count}")
        if hasattr(value, "savefig"):
            return f"{found[0]}\n% what it shows\n\n![What cell {count} draws]({picture(count, value)})\n"
        text = "\n".join([*([printed] if printed else []), *([repr(value)] if value is not None else [])])
        return f"{found[0]}\n% what it shows\n\n```text\n{text}\n```\n" if text else found[0]

    return CELL.sub(run, SHOWN.sub("", text))


def main() -> None:
    for path in sorted((DOCS / "tutorials").glob("*.md")):
        if path.stem == "index" or (sys.argv[1:] and path.stem not in sys.argv[1:]):
            continue

        def keep(cell: int, figure: object, stem: str = path.stem) -> str:
            name = f"tutorial-{stem}-{cell}.png"
            figure.savefig(DOCS / "images" / name, dpi=90, bbox_inches="tight", metadata={"Software": None})  # type: ignore[attr-defined]
            return f"../images/{name}"

        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            made = with_outputs(path.read_text(encoding="utf-8"), path.name, keep)
        path.write_text(made, encoding="utf-8")
        sys.stderr.write(f"{os.path.relpath(path)}\n")


if __name__ == "__main__":
    main()
