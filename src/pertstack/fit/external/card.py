"""Model cards: a TOML file that says how to run somebody else's model, what it needs, and whose work it is.

Building its environment is handled by ``environment.py``, running it by ``external.py``.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from pertstack._base.digests import digest_json
from pertstack._base.errors import InputError, MissingFileError, StackingError, unknown_name
from pertstack._base.files import require_plain
from pertstack.data.side.side import FEATURE_KINDS
from pertstack.fit.base import Needs
from pertstack.fit.registry import RegistryRow

CARDS = Path(__file__).parents[1] / "cards"
_KINDS: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "a list of words in quotes": (list,),
    "a number above zero": (int, float),
    "a whole number of bytes above zero": (int,),
}
_OF_RUN = {
    "script": "text",
    "command": "a list of words in quotes",
    "requirements": "a list of words in quotes",
    "interpreter": "text",
    "python_version": "text",
    "time_limit": "a number above zero",
    "memory": "a whole number of bytes above zero",
    "file_size": "a whole number of bytes above zero",
}
"""What the keys of [run] are; of the others the few allowed words are checked."""
Scale = Literal["treated", "delta"]
Files = Literal["h5ad", "csv", "cells"]
_TOP = ("format", "name", "summary", "licence", "citation", "run", "needs", "params")
_RUN = (
    "script",
    "command",
    "requirements",
    "interpreter",
    "python_version",
    "scale",
    "time_limit",
    "files",
    "memory",
    "file_size",
)


@dataclass(frozen=True)
class ModelCard:
    """One external model. Exactly one of ``script`` (a Python file beside the card) and ``command`` is given.

    A script runs with an existing ``interpreter``, or in an environment built from ``requirements``, or, with neither,
    with the interpreter that runs pertstack. In ``command`` the words ``{folder}``, ``{card}`` and ``{python}`` are
    replaced by the exchange folder, the card's folder and the interpreter.
    """

    name: str
    path: Path
    digest: str  # of the card's content and its script
    summary: str = ""
    licence: str = ""
    citation: str = ""
    script: str | None = None
    command: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    interpreter: str | None = None
    python_version: str | None = None  # as "3.11", if the requirements exist for one version only
    scale: Scale = "treated"  # of what it predicts
    files: Files = "h5ad"  # form of the exchange folder
    time_limit: float = 3600.0  # seconds per fit and prediction
    memory: int | None = None  # bytes its processes may each hold; None: what the machine has
    file_size: int = 64 * 2**30  # bytes of the largest file it may write
    needs: Needs = field(default_factory=Needs)
    params: Mapping[str, Any] = field(default_factory=dict)  # hyper-parameters with their defaults

    @property
    def row(self) -> RegistryRow:
        """The card as a registry row; the digest makes a changed card another model."""
        shipped = self.path.parent == CARDS
        fixed = {"card": self.path.stem if shipped else str(self.path), "card_digest": self.digest}
        target = "pertstack.fit.external:ExternalModel"
        return RegistryRow(
            self.name, target, self.needs, summary=self.summary, kind="external", fixed=fixed, problem=self._problem()
        )

    def _problem(self) -> str | None:
        program = self.interpreter or (self.command[0] if self.command else None)
        if program is None or program.startswith("{") or shutil.which(self.locate(program)):
            return None
        return f"its card {self.path.name} runs {program!r}, which is not found on this machine"

    def locate(self, program: str) -> str:
        """A program named relative to the card becomes a full path; a bare name stays for the search path."""
        return (
            str((self.path.parent / program).resolve()) if "/" in program and not program.startswith("/") else program
        )


def load_card(card: str | Path) -> ModelCard:
    """Read a card from a path, or a shipped one by its file's name.

    Raises
    ------
    MissingFileError
        No such file.
    InputError
        Not TOML, a key missing, of the wrong kind or contradictory.
    UnknownNameError
        A key that cards do not have.
    """
    shipped = CARDS / f"{card}.toml"
    try:
        path = shipped if isinstance(card, str) and "/" not in card and shipped.is_file() else Path(card).resolve()
        require_plain(path, InputError)
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except FileNotFoundError as error:
        known = ", ".join(sorted(p.stem for p in CARDS.glob("*.toml")))
        raise MissingFileError(f"The model card {str(card)!r} does not exist. Shipped cards: {known}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"The model card {path} is not valid TOML: {error}. Mend the line it names.") from error
    except (OSError, RuntimeError) as error:  # a folder, a link to itself
        raise InputError(f"The model card {str(card)!r} cannot be read ({error}). Name a TOML file.") from error
    run = content.get("run", {})
    _check_keys(path, content, _TOP)
    _check_keys(path, run, _RUN)
    needs = _needs(path, content.get("needs", {}))
    _check_run(path, content, run)
    if run.get("files") == "cells":
        needs = replace(needs, cells=True)
    script = run.get("script")
    code = "" if script is None else _code(path, script)
    text_of = {key: str(content.get(key, "")) for key in ("summary", "licence", "citation")}
    return ModelCard(
        content["name"],
        path,
        digest_json([text, code])[:16],
        summary=text_of["summary"],
        licence=text_of["licence"],
        citation=text_of["citation"],
        script=script,
        command=tuple(run.get("command", ())),
        requirements=tuple(run.get("requirements", ())),
        interpreter=run.get("interpreter"),
        python_version=run.get("python_version"),
        scale=run.get("scale", "treated"),
        files=run.get("files", "h5ad"),
        needs=needs,
        params=content.get("params", {}),
        **{key: run[key] for key in ("time_limit", "memory", "file_size") if key in run},
    )


def _check_keys(path: Path, table: Any, known: tuple[str, ...]) -> None:
    if not isinstance(table, dict):
        raise InputError(f"{path}: {table!r} stands where a table should. Write [run], [needs] and [params] as tables.")
    for key in table:
        if key not in known:
            raise unknown_name(f"key of a model card ({path.name})", key, known)


def _needs(path: Path, table: Any) -> Needs:
    _check_keys(path, table, tuple(f.name for f in fields(Needs) if f.name != "extra"))
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    for key, value in values.items():
        if key == "features":
            known = FEATURE_KINDS
            if not isinstance(value, tuple) or not all(v in known for v in value):
                raise InputError(f"{path}: features is {table[key]!r}; write a list of {', '.join(map(repr, known))}.")
        elif key == "predicts":
            if value not in ("treated", "delta"):
                raise InputError(f"{path}: predicts is {value!r}; a model predicts 'treated' or 'delta'.")
        elif not isinstance(value, bool):
            raise InputError(f"{path}: {key} is {value!r}; write true or false.")
    return Needs(**values)


def _check_kinds(path: Path, run: Mapping[str, Any]) -> None:
    for key, kind in _OF_RUN.items():
        if key not in run:
            continue
        value = run[key]
        good = isinstance(value, _KINDS[kind]) and not isinstance(value, bool)
        if good and isinstance(value, str | list):
            words = [value] if isinstance(value, str) else value
            good = all(isinstance(w, str) and "\0" not in w for w in words)
        if good and isinstance(value, int | float):
            good = 0 < value < 2**63
        if not good:
            raise InputError(f"{path}: {key} is {value!r}; write {kind}.")


def _check_run(path: Path, content: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    name = content.get("name")
    if content.get("format") != 1 or not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"{path}: a card starts with 'format = 1' and a name of letters, digits, '_', '-' and '.'.")
    _check_kinds(path, run)
    params = content.get("params", {})
    _check_keys(path, params, tuple(params) if isinstance(params, dict) else ())
    if ("script" in run) == bool(run.get("command")):
        raise InputError(
            f"{path}: [run] needs exactly one of 'script' (a Python file) and 'command' (a list of words)."
        )
    if "requirements" in run and "interpreter" in run:
        raise InputError(f"{path}: 'requirements' build an environment, 'interpreter' names one. Give one of the two.")
    if run.get("scale", "treated") not in ("treated", "delta"):
        raise InputError(f"{path}: scale is {run['scale']!r}; a model predicts 'treated' or 'delta'.")
    if run.get("files", "h5ad") not in get_args(Files):
        raise InputError(f"{path}: files is {run['files']!r}; the folder can hold 'h5ad' or 'csv' files, or 'cells'.")


def _code(path: Path, script: str) -> str:
    """The text of a card's script."""
    try:
        place = (path.parent / script).resolve()
        if not place.is_relative_to(path.parent.resolve()):
            raise InputError(
                f"{path} runs {script!r}, which lies outside the card's folder: its digest could not vouch for it. Put "
                "the script beside the card."
            )
        if not place.is_file():
            raise MissingFileError(f"{path} runs {script!r}, which is not beside it.")
        return place.read_text(encoding="utf-8")
    except StackingError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # bytes that are no text, a link to itself, an impossible name
        raise InputError(
            f"{path} runs {script!r}, which cannot be read ({error}). Put a Python file in UTF-8 beside the card."
        ) from error
