"""What the audit asks of tables and results: metadata as they were laid out, results as the verdict wrote them.

Bytes of predictions are the business of the store, the chain of the ledger that of the ledger. Results are sealed:
their digests are in the ledger, so that an edited or removed board is found.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, StackingError, first_few
from pertstack._base.files import read_json
from pertstack._base.findings import Finding
from pertstack.folder import StudyFolder
from pertstack.judging import stored_stack

SEALED = "results_written"
RESULTS = ("leaderboard.json", "leaderboard.csv", "checks.json", "verdict.json")


def seal_results(folder: StudyFolder) -> None:
    """Write digests of what the verdict wrote into the ledger."""
    files = {name: _sha256(folder.results / name) for name in RESULTS}
    folder.ledger.append(SEALED, files=files)


def sealed_results(folder: StudyFolder) -> list[Finding]:
    """Results that are not what the last verdict wrote."""
    try:
        seals = folder.ledger.of_kind(SEALED)
    except StackingError:
        return []  # a broken ledger has findings of its own
    found = []
    for name, digest in seals[-1].facts["files"].items() if seals else ():
        path = folder.results / name
        if not path.exists():
            text = f"{path} is gone, and the ledger says that the held-out test was opened: a look cannot be undone."
            found.append(Finding("error", "results_removed", f"{text} Restore it from a copy.", where=str(path)))
        elif _sha256(path) != digest:
            text = f"{path} is not what the verdict wrote on {seals[-1].time}: it was edited or damaged since."
            found.append(Finding("error", "results_edited", f"{text} Restore it from a copy.", where=str(path)))
    return found


def stale_results(folder: StudyFolder) -> list[Finding]:
    """Weights or a board of predictions that are not there any more: no damage, but no answer either."""
    weights, board = folder.results / "weights.json", folder.results / "leaderboard.json"
    found = []
    if weights.exists():
        try:
            stored_stack(folder)
        except InputError as error:
            found.append(Finding("warning", "weights_stale", str(error), where=str(weights)))
    done = folder.results / "verdict.json"
    if weights.exists() and done.exists() and read_json(done)["key"] != read_json(weights)["key"]:
        text = f"{board} speaks of other weights than {weights.name}: the study was stacked again after the verdict."
        found.append(Finding("warning", "results_stale", text, where=str(board)))
    return found


def samples_as_laid_out(folder: StudyFolder) -> list[Finding]:
    """``plan/samples.parquet`` against the metadata that stand beside the predictions, sample by sample."""
    path = folder.path("plan", "samples.parquet")
    table = pd.read_parquet(path)
    found, wrong = [], dict[str, list[str]]()
    order = [str(s) for s in folder.plan.table["sample_id"]]
    if list(map(str, table.index)) != order:
        moved = [f"row {i}: {a}" for i, (a, b) in enumerate(zip(table.index, order, strict=False)) if str(a) != b]
        text = f"{path} does not list the samples of the fold plan in its order, from {first_few(moved, 1)} on."
        found.append(
            Finding(
                "error", "samples_permuted", f"{text} Restore it from a copy.", len(moved), tuple(moved[:10]), str(path)
            )
        )
    for block in folder.store.blocks():
        ours = folder.store.obs(block)
        theirs = table.reindex(ours.index)
        for column in (c for c in table.columns if c in ours):
            for sample in ours.index[~_equal(ours[column], theirs[column])]:
                wrong.setdefault(str(sample), []).append(str(column))
    if wrong:
        examples = [f"{sample} ({', '.join(columns)})" for sample, columns in wrong.items()]
        text = f"{path} differs for {len(wrong):,} samples from what stands beside their predictions: "
        text += f"{first_few(examples, 3)}. One of the two was changed; restore it from a copy."
        found.append(Finding("error", "samples_edited", text, len(wrong), tuple(examples[:10]), str(path)))
    return found


def _equal(a: pd.Series, b: pd.Series) -> np.ndarray:
    """(n,) whether entries agree; unknown equals unknown, numbers to single precision."""
    if pd.api.types.is_numeric_dtype(a) and pd.api.types.is_numeric_dtype(b):
        return np.asarray(np.isclose(a.to_numpy(dtype=float), b.to_numpy(dtype=float), rtol=1e-6, equal_nan=True))
    same = (a.astype(object).astype(str).to_numpy() == b.astype(object).astype(str).to_numpy()) | (
        a.isna().to_numpy() & b.isna().to_numpy()
    )
    return np.asarray(same)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
