"""A file that says what a model was fitted on: sample ids in any list or table people write, or folds and ids.

Whether the ids are the study's is left to ``fitted.py`` and ``add.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.files import require_plain
from pertstack._base.reading.tables import as_names, as_texts, frame, is_text, numbers, read_table, without_row_numbers
from pertstack._base.reading.text_tables import UNNAMED, TextTable, text_table

ID_COLUMNS = (
    "sample_id",
    "sample_ids",
    "sample",
    "samples",
    "id",
    "ids",
    "inst_id",
    "sig_id",
    "distil_id",
    "cell",
    "barcode",
    "barcodes",
    "obs_names",
    "index",
    "name",
    "x",
    UNNAMED,
    "__index_level_0__",
)


def read_fitted_on(text: str | Path) -> Any:
    """What ``--fitted-on`` means: a word, a digest, or the content of a file of ids or of folds and ids.

    Raises
    ------
    InputError
        The file is not there, is no list and no table, or no column of it holds sample ids.
    """
    path = Path(text)
    require_plain(path, InputError)
    if not path.is_file():
        if path.suffix or "/" in str(text):
            raise InputError(
                f"--fitted-on names the file {text}, which does not exist. Give a file of sample ids, a table with "
                f"columns fold and sample_id, or one of the words plan and unknown."
            )
        return str(text)
    if path.suffix.casefold() == ".json":
        return _from_json(path)
    if is_text(path):
        table = text_table(path, blanks=False)
        content = frame(table)
        listed = _as_list(table, content)
        if listed is not None:
            return listed
    else:
        content = read_table(path)
        content = content if isinstance(content.index, pd.RangeIndex) else content.reset_index()
    return _of_table(without_row_numbers(content), path)


def _as_list(table: TextTable, content: pd.DataFrame) -> list[str] | None:
    """Ids of a file with one id per line, or all on one line; None if it is a table.

    A first line that is no known name of a column of ids is an id like the others.
    """
    if len(table.header) > 1 and len(content):
        return None
    ids = [h for h in table.header if h and h.casefold() not in ID_COLUMNS]
    ids += [] if content.empty else content.iloc[:, 0].tolist()
    return [i.strip() for i in ids if i.strip()]


def _of_table(content: pd.DataFrame, path: Path) -> Any:
    by_name = {str(c).casefold(): c for c in reversed(content.columns)}
    column = next((by_name[c.casefold()] for c in ID_COLUMNS if c.casefold() in by_name), None)
    if column is None and len(content.columns) == 1:
        column = content.columns[0]
    if column is None:
        raise InputError(
            f"{path} has the columns {first_few(content.columns)}, and none is known to hold sample ids. Name that "
            f"column sample_id; a table without a first line of names needs one."
        )
    ids = as_texts(as_names(content[column])).str.strip()
    if "fold" in by_name:
        written = content[by_name["fold"]]
        folds = numbers(written.replace("test", ""))
        if folds is None or (folds[~np.isnan(folds)] % 1).any() or (np.abs(folds) > len(folds)).any():
            raise InputError(
                f"{path}: the column 'fold' holds {first_few(written.unique())}. Folds are 0, 1, 2, ...; leave it "
                f"empty for the final fit."
            )
        return pd.DataFrame({"fold": pd.Series(folds).astype("Int64"), "sample_id": ids.to_numpy(object)})
    return [i for i in ids if i]


def _from_json(path: Path) -> Any:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(value, list) or not all(isinstance(v, str | int) for v in value):
        raise InputError(f"{path} holds no list of sample ids. Write them as a JSON list of texts, or one per line.")
    return [str(v) for v in value]


__all__ = ["read_fitted_on"]
