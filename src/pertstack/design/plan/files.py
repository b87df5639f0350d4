"""A fold plan on disk: ``folds.parquet`` (the rows) and ``plan.json`` (digests and choices); format 1.

``folds.parquet`` carries the same facts as ``plan.json`` in its metadata and is the one that counts: it is written
first and in one piece. So a stop between the two files leaves the new plan whole, with a ``plan.json`` that is one
batch behind.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pertstack._base.digests import canonical_json
from pertstack._base.errors import ConflictError, CorruptionError, MissingFileError
from pertstack._base.files import read_json, write_atomic, write_json
from pertstack._base.reading.damage import require_modest_table
from pertstack._base.reading.tables import plain_texts
from pertstack.design.plan.rows import COLUMNS, FORMAT, digest_of

ROWS, FACTS = "folds.parquet", "plan.json"
_KEY = b"pertstack.plan"


def write_plan(folder: Path, table: pd.DataFrame, facts: dict[str, Any]) -> None:
    """Write both files, rows first.

    Parameters
    ----------
    folder : of the plan.
    table : rows, see ``rows.make_rows``.
    facts : plain JSON with ``digest`` and, per batch, ``digests``.

    Raises
    ------
    ConflictError
        The folder holds a plan that this one does not extend: assignments never change.
    """
    if (folder / ROWS).exists():
        _, there = read_plan(folder)
        if there["digest"] not in facts["digests"]:
            raise ConflictError(
                f"{folder} holds another fold plan (digest {there['digest'][:12]}, grouped by {there['group_by']}; "
                f"this one is {facts['digest'][:12]}, by {facts['group_by']}). A plan only grows, since predictions "
                "rest on it. Make a new study for a new plan."
            )
    rows = pa.Table.from_pandas(table, preserve_index=False)
    rows = rows.replace_schema_metadata({**(rows.schema.metadata or {}), _KEY: canonical_json(facts).encode()})
    buffer = io.BytesIO()
    pq.write_table(rows, buffer)
    write_atomic(folder / ROWS, buffer.getvalue())
    write_json(folder / FACTS, facts)


def read_plan(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Rows and facts of a plan, verified.

    Raises
    ------
    MissingFileError
        One of the two files is not there.
    CorruptionError
        Rows, digests or ``plan.json`` do not belong together.
    """
    path = folder / ROWS
    if not path.exists():
        raise MissingFileError(f"{path} does not exist: there is no fold plan. `pertstack init` makes one.")
    try:
        require_modest_table(path)
        rows = pq.read_table(path)
        facts = json.loads(rows.schema.metadata[_KEY])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CorruptionError(
            f"{path} cannot be read as a fold plan ({type(error).__name__}: {error}). It was written whole by "
            "pertstack, so something changed it since; restore it from a copy."
        ) from error
    table = plain_texts(rows.to_pandas())
    missing = [c for c in COLUMNS if c not in table.columns]
    if missing or facts.get("format") != FORMAT:
        raise CorruptionError(
            f"{path} has format {facts.get('format')} and lacks the columns {missing}; this version reads format "
            f"{FORMAT}. Use the version of pertstack that wrote it."
        )
    table = table.loc[:, list(COLUMNS)].astype({"fold": "Int64", "segment": "int64"})
    check_digests(table, facts["digests"], facts["group_by"], n_folds=facts["n_folds"], where=str(path))
    beside = read_json(folder / FACTS)
    if not isinstance(beside, dict) or beside.get("digest") not in facts["digests"]:
        said = str(beside.get("digest"))[:12] if isinstance(beside, dict) else "nothing readable"
        raise CorruptionError(
            f"{folder / FACTS} speaks of plan {said}, {path.name} of {facts['digest'][:12]}. One of the two was "
            "changed or copied from another study; restore both from the same copy."
        )
    return table, facts


def check_digests(table: pd.DataFrame, digests: Sequence[str], group_by: str, *, n_folds: int, where: str) -> None:
    """Every batch of rows has the digest that was taken when it was added.

    Parameters
    ----------
    table : rows with their batch in ``segment``.
    digests : one per batch, in order.
    group_by, n_folds : of the plan; part of the digest.
    where : the file, for messages.

    Raises
    ------
    CorruptionError
        It has not: somebody added, removed or moved rows.
    """
    for batch, digest in enumerate(digests):
        part = table[table["segment"] <= batch]
        if digest_of(part, group_by, n_folds) != digest:
            raise CorruptionError(
                f"{where}: the assignments up to batch {batch} ({len(part):,} samples) are not the ones with digest "
                f"{digest[:12]}. Rows were added, removed or moved to another fold by hand. Scores made with it could "
                "not be trusted; restore the plan from a copy."
            )
    if len(table) and int(table["segment"].max()) >= len(digests):
        raise CorruptionError(f"{where} holds rows of a batch that was never finished; restore the plan from a copy.")
