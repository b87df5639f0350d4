"""Hyper-parameters by profile: ``paper``, ``default`` and ``fast`` for each model, and a study's ``models.toml``.

Biolord has a fourth one, ``published``: the choices of the package of that name, for comparing the two.
``profiles.toml`` beside this file holds what a profile changes; what it does not name keeps the model's default.
Reading needs no torch. What the values do is up to the models.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pertstack._base.errors import InputError, MissingFileError, UnknownNameError, unknown_name
from pertstack._base.files import require_plain
from pertstack.fit.registry import build, get_row, model_class
from pertstack.fit.torch.common.make_settings import make_settings
from pertstack.fit.torch.common.settings import SETTINGS

PROFILES = ("paper", "default", "fast")
PUBLISHED = "published"  # for models that have a published package beside them


@cache
def _shipped() -> dict[str, dict[str, dict[str, Any]]]:
    text = files("pertstack.fit").joinpath("profiles.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def profile(name: str, model: str) -> dict[str, Any]:
    """All hyper-parameters of a model under a profile, as plain JSON values.

    Models that have no profiles (the baselines) give an empty dict: their defaults.

    >>> profile("fast", "TranSiGen")["epochs"] < profile("default", "TranSiGen")["epochs"]
    True
    """
    _known(name)
    row = get_row(model)
    if row.name not in SETTINGS:
        return {}
    if name == PUBLISHED and row.name not in _shipped()[name]:
        raise InputError(
            f"{row.name} has no profile {name!r}; only {', '.join(_shipped()[name])} has one. Name it in the table of "
            f"that model in models.toml, and one of {', '.join(PROFILES)} for the others."
        )
    return make_settings(SETTINGS[row.name], row.name, _shipped().get(name, {}).get(row.name, {})).to_json()


def hyper_parameters(model: str, changes: Mapping[str, Any] | None = None, *, name: str = "default") -> dict[str, Any]:
    """A profile with changes on top, as plain values.

    Parameters
    ----------
    model : in the registry.
    changes : hyper-parameter -> value.
    name : of the profile: "paper", "default" or "fast".

    Raises
    ------
    UnknownNameError
        A key that the model does not have; near ones are shown.
    InputError
        A value of the wrong kind or outside its range.
    """
    row = get_row(model)
    changes = dict(changes or {})
    if row.name in SETTINGS:
        return make_settings(SETTINGS[row.name], row.name, {**profile(name, model), **changes}).to_json()
    if changes:
        known = model_class(row)(**row.fixed).params()
        for key in changes:
            if key not in known:
                raise unknown_name(f"hyper-parameter of {row.name}", key, known or ["(it has none)"])
        build(model_class(row), {**row.fixed, **changes}, row.name)  # refuses values of another kind or range
    return changes


def load_models_toml(path: Path | str) -> dict[str, dict[str, Any]]:
    """Hyper-parameters from a study's ``models.toml``: model name -> all its values.

    The file names a profile for all (``profile = "fast"``, else "default") and has a table per model, which may name a
    profile and change single values::

        profile = "fast"

        [TranSiGen]
        latent = 64

        [Biolord]
        profile = "default"
        infer = "zero"

    Models without a table are not in the result; ``hyper_parameters(model, name=file_profile(path))`` gives theirs.

    Raises
    ------
    MissingFileError, InputError
        No such file; not TOML; a value of another kind or outside its range.
    UnknownNameError
        A model, profile or hyper-parameter that does not exist; near names are shown.
    """
    content, general = _read(Path(path)), file_profile(path)
    out: dict[str, dict[str, Any]] = {}
    for model, table in content.items():
        if model == "profile":
            continue
        if not isinstance(table, dict):
            raise InputError(
                f"{path}: {model} = {table!r} is outside a table. Write hyper-parameters under the name of their "
                f"model, such as [TranSiGen]; only 'profile' is allowed at the top."
            )
        own = dict(table)
        chosen = own.pop("profile", general)
        try:
            out[get_row(model).name] = hyper_parameters(model, own, name=str(chosen))
        except (UnknownNameError, InputError) as error:
            raise type(error)(f"{path}: {error}") from error
    return out


def file_profile(path: Path | str) -> str:
    """The profile a ``models.toml`` names for all models; "default" when it names none."""
    try:
        return _known(str(_read(Path(path)).get("profile", "default")))
    except UnknownNameError as error:
        raise UnknownNameError(f"{path}: {error}") from error


def _known(name: str) -> str:
    if name not in (*PROFILES, PUBLISHED):
        raise unknown_name("profile", name, (*PROFILES, PUBLISHED))
    return name


def _read(path: Path) -> dict[str, Any]:
    require_plain(path, InputError)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} does not exist.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML: {error}. Mend the line it names.") from error
