"""Lists of fit rows beside the records: one file per list, named by its digest, shared by every record that cites
it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pertstack._base.digests import digest_names
from pertstack._base.errors import CorruptionError
from pertstack._base.files import read_json, write_atomic
from pertstack.design.provenance import FittedOn


def ids_file(root: Path, digest: str) -> Path:
    return root / "provenance" / f"{digest}.json"


def write_fit_ids(root: Path, fitted_on: FittedOn) -> None:
    """Keep an explicit list of fit rows before any record points to it."""
    if fitted_on.kind != "ids" or fitted_on.ids_digest is None:
        return
    path = ids_file(root, fitted_on.ids_digest)
    if not path.exists():
        write_atomic(path, json.dumps(sorted(fitted_on.fit_ids), ensure_ascii=False).encode())


def read_fit_ids(root: Path, record: Mapping[str, Any]) -> frozenset[str]:
    """The list a record cites; empty when it cites none.

    Raises
    ------
    CorruptionError
        The file is missing or does not have the digest it is named by: then the fit rows are unknown.
    """
    fitted = record.get("fitted_on")
    if not fitted or fitted["kind"] != "ids":
        return frozenset()
    path = ids_file(root, fitted["ids_digest"])
    ids = read_json(path) if path.is_file() else None
    if not isinstance(ids, list) or digest_names(ids) != fitted["ids_digest"]:
        raise CorruptionError(
            f"{path} is missing or changed: it says which rows {record['model']!r} was fitted on. Without it no row "
            f"can be shown to be out of fold; restore it, or withdraw the model and add it again."
        )
    return frozenset(ids)
