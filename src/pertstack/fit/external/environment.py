"""Isolated Python environments for external models, built once from a card's pins and kept in a cache.

Built by uv where it is there, else by venv and pip. No index address is written anywhere: what pip's own settings say
is handed to uv when it runs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from pertstack._base.digests import digest_json
from pertstack._base.errors import ModelFailedError
from pertstack._base.files import write_json
from pertstack._base.machine.cache import cache_folder
from pertstack.fit.external.card import ModelCard

BUILD_SECONDS = 3600
_HANDED_ON = (
    ("PIP_FIND_LINKS", "UV_FIND_LINKS"),
    ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"),
    ("PIP_EXTRA_INDEX_URL", "UV_INDEX"),
    ("PIP_CERT", "SSL_CERT_FILE"),
)
_NOT_HANDED_ON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSAFEPATH")


def interpreter_for(card: ModelCard, log: Path) -> str:
    """The Python that runs a card's script: the one it names, an environment built from its pins, or the running one.

    Raises
    ------
    ModelFailedError
        The environment cannot be built; the log says what the installer said.
    """
    if card.interpreter is not None:
        return card.locate(card.interpreter)
    if not card.requirements:
        return sys.executable
    version = card.python_version or f"{sys.version_info.major}.{sys.version_info.minor}"
    key = digest_json([sorted(card.requirements), version, sys.platform, os.uname().machine])[:12]
    folder = cache_folder() / "environments" / f"{card.name}-{key}"
    if not (folder / "complete.json").is_file():
        _build(card, version, folder, log)
    return str(_python_in(folder))


def clean_environment() -> dict[str, str]:
    """The caller's environment without what leads another Python to our packages, and with pip's settings for uv."""
    found = {k: v for k, v in os.environ.items() if k not in _NOT_HANDED_ON}
    for pip_name, uv_name in _HANDED_ON:
        if found.get(pip_name) and uv_name not in found:
            separator = "," if uv_name == "UV_FIND_LINKS" else " "
            found[uv_name] = separator.join(found[pip_name].split())
    return found


def find_uv() -> str | None:
    """The uv program: on the search path, or brought by its Python package."""
    found = shutil.which("uv")
    if found is None and find_spec("uv") is not None:
        from uv import find_uv_bin

        found = str(find_uv_bin())
    return found


def _build(card: ModelCard, version: str, folder: Path, log: Path) -> None:
    """Build aside, then rename: an environment that is there is whole. Whoever comes second throws its own away."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside, started = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent)), time.monotonic()
    try:
        for command in _commands(card, version, aside):
            _run(card, command, log)
        facts = {"format": 1, "requirements": list(card.requirements), "python": version}
        write_json(aside / "complete.json", {**facts, "seconds": round(time.monotonic() - started, 1)})
        if not (folder / "complete.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _commands(card: ModelCard, version: str, folder: Path) -> list[list[str]]:
    uv, python = find_uv(), str(_python_in(folder))
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if uv is not None:
        wanted = sys.executable if version == here else version
        return [
            [uv, "venv", "--quiet", "--allow-existing", "--python", wanted, str(folder)],
            [uv, "pip", "install", "--python", python, *card.requirements],
        ]
    if version != here:
        raise ModelFailedError(
            f"{card.name} needs Python {version}, and {here} is running. Install uv (pip install "
            f"'pertstack[external]'), which can find or bring another Python, or run pertstack with Python {version}."
        )
    return [
        [sys.executable, "-m", "venv", str(folder)],
        [python, "-m", "pip", "install", *card.requirements],
    ]


def _run(card: ModelCard, command: list[str], log: Path) -> None:
    with log.open("ab") as stream:
        stream.write(f"$ {' '.join(command)}\n".encode())
        stream.flush()
        try:
            ended = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=clean_environment(),
                timeout=BUILD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ModelFailedError(
                f"{card.name}: building its environment took over {BUILD_SECONDS} s; see {log}."
            ) from error
    if ended.returncode != 0:
        raise ModelFailedError(
            f"{card.name}: its environment could not be built (exit code {ended.returncode}). {last_lines(log)} The "
            f"package index must be reachable once; afterwards the environment is kept in {cache_folder()}. Log: {log}"
        )


def last_lines(log: Path, n: int = 5) -> str:
    """The last lines of a log for a message."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("$ ")]  # "$ ": our own
    return "It wrote nothing." if not lines else "It ended with: " + " | ".join(line[:200] for line in lines[-n:])


def _python_in(folder: Path) -> Path:
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"
