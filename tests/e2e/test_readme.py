"""Every command the README shows runs as printed, in the order printed, in an empty directory."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pertstack.cli.entry import app

from .conftest import pertstack

ROOT = Path(__file__).resolve().parents[2]


def shell_lines(text: str) -> list[str]:
    """Lines of all ```bash blocks, continuation lines joined, comments dropped."""
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.S)
    joined = "\n".join(blocks).replace("\\\n", " ")
    lines = [line.split("  #")[0].strip() for line in joined.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def shown_in_the_tutorial() -> str:
    """What the tutorial prints under `pertstack evaluate`."""
    page = (ROOT / "docs" / "tutorials" / "outside-models.md").read_text(encoding="utf-8")
    return page.split("```text\n")[1].split("```")[0]


def test_readme_commands_run_in_the_order_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "100")
    script = ROOT / "docs" / "tutorials" / "perturb_seq_files.py"
    assert script.name in (ROOT / "README.md").read_text()
    subprocess.run([sys.executable, str(script)], cwd=tmp_path, check=True, timeout=300)
    lines = shell_lines((ROOT / "README.md").read_text())
    ours = [line for line in lines if line.startswith("pertstack ")]
    assert len(ours) >= 5, "the README lost its commands"
    for line in ours:
        if line.startswith("pertstack demo"):
            continue  # ten minutes; `make demo` is the same command
        done = pertstack(*shlex.split(line)[1:], cwd=tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        if line.startswith("pertstack evaluate"):
            assert done.stdout.split() == shown_in_the_tutorial().split()


def test_make_targets_of_the_readme_exist():
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / "README.md").read_text(), flags=re.M))
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert {"demo", "test"} <= targets
    assert targets <= known, targets - known


PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]


@cache
def help_of(command: str) -> tuple[int, str]:
    """Exit code and text of ``pertstack COMMAND --help``, wide enough that no option is broken over two lines."""
    runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"})
    shown = runner.invoke(app, [command, "--help"])
    return shown.exit_code, shown.output


@pytest.mark.parametrize("file", PAGES)
def test_documented_commands_and_options_exist(file: str):
    """A command or option in the docs that the command line does not know is an error in the docs."""
    for line in shell_lines((ROOT / file).read_text()):
        if not line.startswith("pertstack ") or line.split()[1].startswith("-"):
            continue
        words = shlex.split(line)
        code, text = help_of(words[1])
        assert code == 0, f"{file}: unknown command in {line!r}"
        for option in (w.split("=")[0] for w in words if w.startswith("--")):
            assert option in text, f"{file}: {line!r} uses {option}, which {words[1]} does not have"
