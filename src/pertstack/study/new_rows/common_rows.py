"""Samples on which models are ranked: those that all of them predict, if these are enough."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pertstack._base.errors import MisalignedError, first_few
from pertstack._base.findings import Finding
from pertstack.data import DataFile

LEAST_COMMON = 0.5
"""Share of the samples that all models must predict together, below which no ranking is worth giving."""
MOST_LINES = 50
"""Cell lines that a command names at most."""


def common_rows(predicted: Mapping[str, Any], truth: DataFile) -> tuple[Any, list[Finding]]:
    """(n,) samples that every model predicts; a warning says who lacks how many.

    Parameters
    ----------
    predicted : model -> (n,) which samples it predicts.
    truth : the samples.

    Samples that no model predicts were not to be predicted: the truth of a whole screen may be given with
    predictions of its test.

    Raises
    ------
    MisalignedError
        Fewer than ``LEAST_COMMON`` of the samples that some model predicts.
    """
    samples, common = truth.obs, np.logical_and.reduce(list(predicted.values()))
    n = len(samples)
    if common.all():
        return common, []
    some = np.logical_or.reduce(list(predicted.values()))
    if len(predicted) > 1 and np.array_equal(common, some):
        text = (
            f"Scored on the {int(common.sum()):,} of {n:,} samples that the models predict, the same for every model. "
            f"None predicts the other {int((~common).sum()):,} "
            f"({first_few(samples['perturbation'][~common].unique(), 5)}), so nothing is known of those."
        )
        return common, [Finding("warning", "samples_common", text, int((~common).sum()), numbers={"same": True})]
    told = ", ".join(f"{m} predicts {int(p.sum()):,} of {n:,}" for m, p in predicted.items() if not p.all())
    fewest = min(predicted, key=lambda m: int(predicted[m].sum()))
    if common.mean() < LEAST_COMMON:
        raise MisalignedError(
            f"Only {int(common.sum()):,} of {n:,} samples are predicted by every model ({told}), and a ranking on them "
            f"says little of the rest. "
            + (f"Leave {fewest} out" if len(predicted) > 1 else "Predict the others too")
            + f", or give a truth file of only the samples that were to be predicted{_part_of(truth, common)}."
        )
    text = f"Scored on {int(common.sum()):,} of {n:,} samples, those that every model predicts: {told}."
    return common, [Finding("warning", "samples_common", text, int((~common).sum()))]


def _part_of(truth: DataFile, common: Any) -> str:
    """The command that leaves whole cell lines out of the truth, if that is what the models do; else nothing."""
    lines, path = truth.obs["cell_line"].astype(str), Path(truth.path)
    taken: Mapping[str, Any] = next((f.numbers["sources"] for f in truth.notes if f.code == "columns_taken"), {})
    column = str(taken.get("cell_line", "cell_line"))
    kept = sorted(set(lines[common]))
    if path.suffix != ".h5ad" or column.startswith("const:") or not 0 < len(kept) <= MOST_LINES:
        return ""
    if len(kept) == lines.nunique():
        return ""
    return (
        f', here of {first_few(kept)}: python -c "import anndata; a = anndata.read_h5ad({str(path)!r}); '
        f"a[a.obs[{column!r}].astype(str).str.strip().isin({kept})].write_h5ad('part.h5ad')\", then evaluate part.h5ad"
    )
