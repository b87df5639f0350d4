"""Splits as other software writes them, read as the places of our samples.

cell-load's TOML, GEARS' pickles, PDGrapher's ``splits.pt``, ``kfold_splits.json`` and tables of cells or perturbations
with train, val and test.
Validation rows were seen (early stopping), so they are development like training rows. A split that cuts once has no
folds: those are then drawn here, and models trained elsewhere on that split can only be judged, not combined.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pertstack._base.errors import InputError, MissingFileError, first_few
from pertstack._base.files import require_plain
from pertstack._base.reading.unpickle import load_pickle
from pertstack.data.labels import look_up
from pertstack.data.readers.pdgrapher import read_splits
from pertstack.design.plan.foreign_split import WORDS, ForeignSplit, k_folds, names_of_part, one_cut, said_once
from pertstack.design.plan.foreign_tables import places_split, table_split
from pertstack.design.plan.placing import lost_findings, strange_findings

_BY_PAIR, _BY_LINE = "perturbation+cell_line", "cell_line"


def read_split(path: Path, obs: pd.DataFrame, cells: pd.Series[Any] | None = None) -> ForeignSplit | None:
    """The places a foreign split gives to the samples of a study; None if the file is a table of our own.

    Parameters
    ----------
    path : the split.
    obs : canonical metadata, index = sample ids.
    cells : sample id by name of the cell, if samples were made of cells; None for cells in no sample.

    Raises
    ------
    MissingFileError, InputError
        It is not there, cannot be read, names nothing of the data, or puts one sample on both sides.
    """
    require_plain(path, InputError)
    if not path.is_file():
        raise MissingFileError(f"The split {path} does not exist or is no file. Check the path given with --plan.")
    suffix = path.suffix.casefold()
    if suffix == ".toml":
        return _cell_load(path, obs)
    if suffix in (".pkl", ".pickle"):
        return _parts(path, _plain(load_pickle(path)), obs, cells)
    if suffix == ".pt":
        return _parts(path, read_splits(path, [str(s) for s in obs.index]), obs, cells)
    if suffix == ".json":
        return _parts(path, _json(path), obs, cells)
    return table_split(path, obs, cells)


# -- lists of names in each part -------------------------------------------------------------------------------------


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}). Write the split again.") from error


def _plain(value: Any) -> Any:
    """Arrays and sets as lists, so that pickles and JSON read alike."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _parts(path: Path, value: Any, obs: pd.DataFrame, cells: pd.Series[Any] | None) -> ForeignSplit:
    """A split that lists names under train, val and test, once or once per fold."""
    for wrapper in ("splits", "folds", "kfold_splits"):
        if isinstance(value, Mapping) and isinstance(value.get(wrapper), Mapping | list):
            value = value[wrapper]
    several = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else []
    if len(several) == 1 and _is_one(several[0]):
        value = several[0]
    if isinstance(value, Mapping) and value and all(isinstance(v, str | int) for v in value.values()):
        return places_split(path, {str(k): str(v) for k, v in value.items()}, obs, cells)
    if _is_one(value):
        roles: dict[str, set[str]] = {}
        for part, names in value.items():
            if part.casefold() in WORDS:
                for name in names_of_part(names, part, path):
                    roles.setdefault(name, set()).add(WORDS[part.casefold()])
        return one_cut(path, roles, obs, cells=cells)
    folds = value if isinstance(value, Mapping) else dict(enumerate(value)) if isinstance(value, list) else {}
    if len(folds) < 2 or not all(_is_one(v) for v in folds.values()):
        known = first_few(list(folds), 6) if folds else type(value).__name__
        more = " Give the file without _subgroup in its name." if "test_subgroup" in folds else ""
        raise InputError(
            f"{path} is no split that is known here: expected train and test (and val) with lists of names, such a "
            f"part for each fold, or the part or fold of each name; it holds {known}.{more}"
        )
    return k_folds(path, {str(k): v for k, v in folds.items()}, obs, cells=cells)


def _is_one(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    parts = [str(k).casefold() for k, v in value.items() if isinstance(v, list)]
    return {WORDS.get(p) for p in parts} >= {"development", "test"}


# -- cell-load ---------------------------------------------------------------------------------------------------------


def _cell_load(path: Path, obs: pd.DataFrame) -> ForeignSplit:
    """cell-load: whole cell lines (zeroshot) or perturbations in a line (fewshot) to val or test, the rest to train.

    A perturbation in val and test of a line is test, as cell-load has it.
    """
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML ({error}).") from error
    if not {"training", "zeroshot", "fewshot"}.intersection(value):
        raise InputError(f"{path} is no split of cell-load: it has no [training], [zeroshot] or [fewshot].")
    sets = [*map(str, value.get("datasets", {})), *map(str, value.get("training", {}))]
    lines = obs["cell_line"].astype(str)
    whole = {_line(k, sets): _role(v, path) for k, v in value.get("zeroshot", {}).items()}
    few = {_line(k, sets): _few(v, k, path) for k, v in value.get("fewshot", {}).items()}
    named = sorted({*whole, *few})
    if named and not set(lines).intersection(named):
        raise InputError(
            f"{path} speaks of the cell lines {first_few(named)}, and the data have {first_few(sorted(set(lines)))}. "
            f"Check that split and data belong together, or name the column with --map cell_line=COLUMN."
        )
    perturbation = obs["perturbation"].astype(str)
    spelt = {line: look_up(parts, perturbation) for line, parts in few.items()}
    role: dict[tuple[str, str], str] = {}
    for line, parts in few.items():
        for name, own in spelt[line].items():
            if role.get((line, own)) != "test":
                role[line, own] = parts[name]
    places = [
        role.get((line, p)) or whole.get(line) or ("development" if value.get("training") or line in few else None)
        for line, p in zip(lines, perturbation, strict=True)
    ]
    found = {str(s): p for s, p in zip(obs.index, places, strict=True) if p is not None}
    table = pd.DataFrame({"sample_id": list(found), "role": list(found.values())})
    strange = sorted({n for line, parts in few.items() for n in parts if n not in spelt[line]})
    findings = [
        *strange_findings(path, strange, "perturbation"),
        *lost_findings(path, obs, found),
        said_once(path, table),
    ]
    by = _BY_PAIR if any("test" in parts.values() for parts in few.values()) else _BY_LINE
    learned = lines[[p == "development" for p in places]].nunique()
    return ForeignSplit(table, by if by == _BY_PAIR or learned >= 6 else _BY_PAIR, tuple(findings))


def _line(key: str, sets: Iterable[str]) -> str:
    """The cell line of ``dataset.line``."""
    own = max((s for s in sets if key.startswith(f"{s}.")), key=len, default=None)
    return key.removeprefix(f"{own}.") if own is not None else key.partition(".")[2] or key


def _role(word: Any, path: Path) -> str:
    if str(word).casefold() not in WORDS:
        raise InputError(f"{path}: {word!r} is no part of a split; cell-load knows train, val and test.")
    return WORDS[str(word).casefold()]


def _few(value: Any, key: str, path: Path) -> dict[str, str]:
    """Role by perturbation of one line; test over val."""
    if not isinstance(value, Mapping):
        raise InputError(f'{path}: [fewshot."{key}"] holds no lists. Write val = [...] and test = [...].')
    out: dict[str, str] = {}
    for part in sorted(value, key=lambda p: WORDS.get(str(p).casefold()) == "test"):
        out |= dict.fromkeys(names_of_part(value[part], str(part), path), _role(part, path))
    return out
