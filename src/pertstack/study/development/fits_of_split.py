"""``--fitted-on SPLIT``: what a model saw that was trained on a split of other software, by the split itself.

Training and validation rows of a fold were seen by the model that predicts its test: early stopping looks at
validation.
"""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Any

import pandas as pd

from pertstack._base.errors import InputError, LeakError
from pertstack._base.files import read_json
from pertstack.design.plan.foreign import read_split
from pertstack.design.plan.foreign_tables import says_parts
from pertstack.study.folder import StudyFolder

SUFFIXES = {".json", ".toml", ".pkl", ".pickle", ".pt"}


def fits_of_split(path: Path, folder: StudyFolder) -> Any | None:
    """A list of ids, or fold -> ids, as ``add_predictions`` takes them; None if the file is no split.

    Raises
    ------
    LeakError
        A fold of the study mixes folds of the split, so that no model predicts it whole without having seen a part.
    InputError
        The split cannot be read or names nothing of the study.
    """
    if not path.is_file() or not _is_split(path):
        return None
    split = read_split(path, folder.samples)
    if split is None:
        return None
    table = split.table.set_index("sample_id")
    if "fold" not in table:
        return [str(s) for s in table.index[table["role"] == "development"]]
    there = table["fold"].dropna().astype(int)
    own = folder.samples.loc[folder.samples.index.isin(there.index)]
    fits: dict[int | None, list[str]] = {}
    for fold, rows in own.groupby(own["fold"].where(own["role"] != "test"), dropna=False):
        foreign = sorted(set(there.loc[rows.index]))
        if len(foreign) > 1:
            name: str = "the held-out test" if pd.isna(fold) else f"fold {int(fold)}"
            raise LeakError(
                f"{path}: {name} of this study holds samples of folds {', '.join(map(str, foreign))} of the split. "
                f"Each was predicted by a model that saw the others, so none is out of fold for the whole. Make "
                f"the study on the same split: pertstack init STUDY --data FILE --plan {quote(str(path))}"
            )
        fits[None if pd.isna(fold) else int(fold)] = [str(s) for s in there.index[there != foreign[0]]]
    if not fits:
        raise InputError(f"{path} names no sample of this study. Give the split the model was trained on.")
    return fits


def _is_split(path: Path) -> bool:
    """Whether a file is a split, rather than a list or table of ids, which is read as such."""
    suffix = path.suffix.casefold()
    if suffix in SUFFIXES:
        return not (suffix == ".json" and _is_list(path))
    return says_parts(path)


def _is_list(path: Path) -> bool:
    """Whether a JSON file is a plain list of ids."""
    try:
        value = read_json(path)
    except (ValueError, OSError):
        return True  # said by the reader of lists
    return isinstance(value, list) and all(isinstance(v, str | int) for v in value)
