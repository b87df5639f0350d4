"""Anchor files of a store: one set of rows as every fit embeds them, so that frames of different fits can be aligned.

One small file per fit, ``anchors/<fit>.npz``, written before the fit's first block. The fit is named by the digest of
its job and of its fit rows, as they are in the record of every block it predicted.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pertstack._base.digests import digest_array, digest_json, digest_names, own_digest_fits, with_own_digest
from pertstack._base.errors import CorruptionError
from pertstack._base.files import write_atomic
from pertstack.data.rows import Float32
from pertstack.predictions.store.files.record import Record

FOLDER = "anchors"
FORMAT = 1


@dataclass(frozen=True, eq=False)
class Anchors:
    """Anchor rows as one fit embeds them."""

    sample_ids: tuple[str, ...]
    values: Float32  # (a, d)
    model: str
    fit: str

    @property
    def ids_digest(self) -> str:
        return digest_names(self.sample_ids)


def fit_name(job_digest: str, fit_ids_digest: str) -> str:
    """By which a fit is known: what was fitted (model, parameters, folds left out) and on which rows."""
    return digest_json([job_digest, fit_ids_digest])[:32]


def fit_of(record: Record) -> str | None:
    """The fit a record comes from; None for predictions made elsewhere."""
    job, fitted = record.meta.get("job_digest"), record.fitted_on
    if not isinstance(job, str) or fitted is None or fitted.ids_digest is None:
        return None
    return fit_name(job, fitted.ids_digest)


def anchor_file(root: Path, fit: str) -> Path:
    return root / FOLDER / f"{fit}.npz"


def write_anchors(root: Path, store_uuid: str, anchors: Anchors) -> None:
    """Write one fit's anchors, whole or not at all.

    Parameters
    ----------
    root : of the store.
    store_uuid : by which a file copied from another store is known.
    anchors : of one fit.
    """
    facts = with_own_digest(
        {
            "format": FORMAT,
            "store_uuid": store_uuid,
            "model": anchors.model,
            "fit": anchors.fit,
            "shape": list(anchors.values.shape),
            "samples_sha256": anchors.ids_digest,
            "values_xxh3_128": digest_array(anchors.values),
        }
    )
    arrays: dict[str, Any] = {
        "values": anchors.values,
        "sample_ids": np.asarray(anchors.sample_ids, dtype=str),
        "facts": np.asarray(json.dumps(facts, sort_keys=True)),
    }
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_atomic(anchor_file(root, anchors.fit), buffer.getvalue())


def read_anchors(root: Path, store_uuid: str, fit: str) -> Anchors | None:
    """One fit's anchors; None when it embedded none (as fits of earlier versions).

    Parameters
    ----------
    root, store_uuid : of the store.
    fit : name, from job and fit rows.

    Raises
    ------
    CorruptionError
        The file is not what was written, or was copied here from another fit or store.
    """
    path = anchor_file(root, fit)
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as found:
            facts = json.loads(str(found["facts"]))
            values, ids = np.asarray(found["values"], dtype=np.float32), tuple(map(str, found["sample_ids"]))
        whole = (
            own_digest_fits(facts)
            and facts["format"] == FORMAT
            and facts["store_uuid"] == store_uuid
            and facts["fit"] == fit
            and facts["samples_sha256"] == digest_names(ids)
            and facts["values_xxh3_128"] == digest_array(values)
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path, type(error).__name__) from error
    if not whole:
        raise _damaged(path, "its digests do not fit")
    return Anchors(ids, values, str(facts["model"]), fit)


def damaged_anchors(root: Path, store_uuid: str) -> Iterator[tuple[Path, str]]:
    """Every anchor file that is not what was written, with the reason."""
    for path in sorted((root / FOLDER).glob("*")):
        try:
            if path.suffix != ".npz" or read_anchors(root, store_uuid, path.stem) is None:
                yield path, f"{path} is not part of a store; move it out."
        except CorruptionError as error:
            yield path, str(error)


def _damaged(path: Path, why: str) -> CorruptionError:
    return CorruptionError(
        f"{path} is not the anchor file that was written ({why}). Embeddings of its fit would be turned wrongly; "
        f"restore it from a copy, or withdraw the model and fit it under another name."
    )
