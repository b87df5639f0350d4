"""Every command the README shows runs as printed, in the order printed, in an empty directory."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PERTSTACK = Path(sys.executable).with_name("pertstack")


def shell_lines(text: str) -> list[str]:
    """Lines of all ```bash blocks, continuation lines joined, comments dropped."""
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.S)
    joined = "\n".join(blocks).replace("\\\n", " ")
    lines = [line.split("  #")[0].strip() for line in joined.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def run(words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=900, check=False)


def test_readme_commands_run_in_the_order_printed(tmp_path: Path):
    lines = shell_lines((ROOT / "README.md").read_text())
    ours = [line for line in lines if line.startswith("pertstack ")]
    assert len(ours) >= 5, "the README lost its commands"
    for line in ours:
        if line.startswith("pertstack demo"):
            continue  # ten minutes; `make demo` is the same command
        done = run([str(PERTSTACK), *shlex.split(line)[1:]], tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def test_make_targets_of_the_readme_exist():
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / "README.md").read_text(), flags=re.M))
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert {"demo", "test"} <= targets
    assert targets <= known, targets - known


@pytest.mark.parametrize("file", ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))])
def test_documented_commands_and_options_exist(file: str):
    """A command or option in the docs that the command line does not know is an error in the docs."""
    env = {**os.environ, "COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
    for line in shell_lines((ROOT / file).read_text()):
        if not line.startswith("pertstack "):
            continue
        words = shlex.split(line)
        shown = subprocess.run(
            [str(PERTSTACK), words[1], "--help"], capture_output=True, text=True, env=env, check=False
        )
        assert shown.returncode == 0, f"{file}: unknown command in {line!r}"
        for option in (w.split("=")[0] for w in words if w.startswith("--")):
            assert option in shown.stdout, f"{file}: {line!r} uses {option}, which {words[1]} does not have"
