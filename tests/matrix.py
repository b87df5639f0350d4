"""The quick tests under every Python from 3.11 to 3.14 that this machine has: `make matrix`.

Interpreters are looked for on PATH, under pyenv, and with uv (`uv python find`). Each gets a fresh environment with the
core alone, in which the package must import and run, and then with the development extra for the quick tests.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
QUICK = (
    "tests/contract/test_public_names.py",
    "tests/unit/design",
    "tests/unit/reduce/test_metrics.py",
    "tests/unit/verdict/test_decision.py",
    "tests/unit/write/test_tables_and_export.py",
    "tests/laws",
)


def interpreter(version: str) -> str | None:
    """A Python of this version, or None."""
    places = [shutil.which(f"python{version}")]
    places += [str(p) for p in sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))]
    if shutil.which("uv"):
        places.append(
            subprocess.run(["uv", "python", "find", version], capture_output=True, text=True, check=False).stdout
        )
    for place in places:
        if place and place.strip() and Path(place.strip()).exists():
            asked = subprocess.run(
                [place.strip(), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                capture_output=True,
                text=True,
                check=False,
            )
            if asked.stdout.strip() == version:
                return place.strip()
    return None


def try_one(version: str, python: str, folder: Path) -> str:
    """What came of one interpreter, in a line."""
    began, bin_ = time.monotonic(), folder / "bin"
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    pip = [str(bin_ / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    core = subprocess.run([*pip, str(ROOT)], check=False)
    if core.returncode:
        return f"{version}: the core cannot be installed"
    seconds = time.monotonic() - began
    if subprocess.run([str(bin_ / "pertstack"), "--version"], cwd=folder, check=False).returncode:
        return f"{version}: the core does not start"
    subprocess.run(
        [*pip, "pytest", "pytest-xdist", "hypothesis", "jsonschema", "quadprog", "psutil", "xarray"], check=True
    )
    words = [str(bin_ / "python"), "-m", "pytest", "-q", "-m", "not slow and not torch", *QUICK]
    code = subprocess.run(words, cwd=ROOT, check=False).returncode
    return f"{version}: core installed in {seconds:.0f} s, quick tests {'passed' if code == 0 else 'FAILED'}"


def main() -> int:
    said = []
    for version in VERSIONS:
        python = interpreter(version)
        if python is None:
            said.append(f"{version}: not on this machine")
            continue
        with tempfile.TemporaryDirectory(prefix=f"pertstack-{version}-") as folder:
            said.append(try_one(version, python, Path(folder) / "venv"))
    print("\n".join(said))
    return sum("FAILED" in line or "cannot" in line or "does not" in line for line in said)


if __name__ == "__main__":
    sys.exit(main())
