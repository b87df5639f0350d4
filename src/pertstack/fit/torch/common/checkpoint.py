"""Checkpoints of a fit that was interrupted: tensors and plain values only, recognised by digests.

One digest covers the fit rows, their groups, the values learned from and the fold plan, so that a checkpoint can never
carry what was learned on other rows into a fit: that is refused. The other covers hyper-parameters and seed; a fit with
others starts anew. A finished fit deletes its checkpoint.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pertstack._base.digests import digest_array, digest_json, digest_names
from pertstack._base.errors import CorruptionError, FoldPlanMismatchError
from pertstack._base.files import write_atomic
from pertstack.data.rows import FitRows
from pertstack.fit.torch.common.framework import torch

FORMAT = 1
_DAMAGED = (
    pickle.UnpicklingError,
    struct.error,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Identity:
    """What an unfinished fit is recognised by."""

    rows: str
    params: str


def fit_identity(rows: FitRows, model: str, params: dict[str, Any], *, plan_digest: str | None) -> Identity:
    """Digests of rows (ids, groups, genes, values, plan), and of model and hyper-parameters.

    Parameters
    ----------
    rows : fitted on.
    model : name.
    params : plain JSON.
    plan_digest : of the fold plan; None outside a study.
    """
    of_rows = [
        FORMAT,
        plan_digest,
        digest_names(map(str, rows.sample_ids)),
        digest_names(map(str, rows.group)),
        digest_names(map(str, rows.gene_names)),
        digest_array(rows.control),
        digest_array(rows.treated),
    ]
    return Identity(digest_json(of_rows), digest_json([FORMAT, model, params]))


def write_checkpoint(path: Path, identity: Identity, state: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all.

    Parameters
    ----------
    path : replaced if it is there.
    identity : of the fit; only the same one may go on from it.
    state : tensors and plain values.
    """
    stream = io.BytesIO()
    torch.save({"format": FORMAT, "rows": identity.rows, "params": identity.params, "state": state}, stream)
    write_atomic(path, stream.getvalue())


def read_checkpoint(path: Path, identity: Identity) -> dict[str, Any] | None:
    """State of an interrupted fit; None when there is no checkpoint, or one of other hyper-parameters.

    Raises
    ------
    FoldPlanMismatchError
        It belongs to other rows or another plan.
    CorruptionError
        It cannot be read.
    """
    if not path.exists():
        return None
    if not zipfile.is_zipfile(path):
        raise CorruptionError(f"{path} is no checkpoint of ours. Delete it; the fit starts anew.")
    try:
        content = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
        rows, params, state = str(content["rows"]), str(content["params"]), dict(content["state"])
    except _DAMAGED as error:
        raise CorruptionError(f"{path} is no checkpoint of ours ({error}). Delete it; the fit starts anew.") from error
    if rows != identity.rows:
        raise FoldPlanMismatchError(
            f"{path} is the checkpoint of a fit on rows {rows[:8]}, but this fit is on rows {identity.rows[:8]}: other "
            f"samples, other values or another fold plan. Going on from it could carry held-out values into this fit. "
            f"Delete it, or give each fit a separate folder."
        )
    return state if params == identity.params else None
