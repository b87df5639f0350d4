"""Checkpoints of a fit that was interrupted: tensors and plain values only, recognised by a digest.

The digest covers the fit rows, their groups, the values learned from, the hyper-parameters and the fold plan, so that a
checkpoint can never carry what was learned on other rows into a fit.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from pertstack._base.digests import digest_array, digest_json, digest_names
from pertstack._base.errors import CorruptionError, FoldPlanMismatchError
from pertstack._base.files import write_atomic
from pertstack.data.rows import FitRows

FORMAT = 1


def fit_digest(rows: FitRows, model: str, params: dict[str, Any], plan_digest: str | None) -> str:
    """What a fit is recognised by: row ids, groups, treated values, hyper-parameters, plan."""
    return digest_json(
        [
            FORMAT, model, params, plan_digest, digest_names(map(str, rows.sample_ids)),
            digest_names(map(str, rows.group)), digest_names(map(str, rows.gene_names)),
            digest_array(rows.control), digest_array(rows.treated),
        ]
    )  # fmt: skip


def write_checkpoint(path: Path, digest: str, state: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    stream = io.BytesIO()
    torch.save({"format": FORMAT, "digest": digest, "state": state}, stream)
    write_atomic(path, stream.getvalue())


def read_checkpoint(path: Path, digest: str) -> dict[str, Any] | None:
    """State of an interrupted fit; None when there is no checkpoint.

    Raises
    ------
    FoldPlanMismatchError
        It belongs to other rows, another plan or other hyper-parameters.
    CorruptionError
        It cannot be read.
    """
    if not path.exists():
        return None
    try:
        content = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
        found, state = str(content["digest"]), content["state"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, ValueError) as error:
        raise CorruptionError(
            f"{path} is not a checkpoint we wrote ({error}). Delete it; the fit starts anew."
        ) from error
    if found != digest:
        raise FoldPlanMismatchError(
            f"{path} is a checkpoint of fit {found[:8]}, but this is fit {digest[:8]}: other rows, another fold plan "
            f"or other hyper-parameters. Going on from it could carry held-out values into this fit. Delete it, or "
            f"give each fit a folder of its own."
        )
    return dict(state)
