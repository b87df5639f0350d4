"""Can a metric be what its name says on the rows at hand? Asked before anything is decided by it.

Names and counts alone answer: genes, perturbations, plates, replicates. A metric that no row can have, or that would be
another under its name (the top 2,000 of 25 genes), is refused if somebody named it; what is only weaker than its
name is a finding. Whether it tells a replicate from a constant is asked in ``calibration.py``.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError
from pertstack._base.findings import Finding
from pertstack.design.metric_names import Metric, parse_metric
from pertstack.reduce.matched import LEAST_OTHERS
from pertstack.reduce.metrics.banks import banks
from pertstack.reduce.metrics.effect_level import named_genes
from pertstack.reduce.references import References

ALL_GENES, NOWHERE, PARTLY = "metric_of_all_genes", "metric_nowhere_defined", "metric_partly_defined"
ONE_PLATE, BORROWED = "metric_on_one_plate", "metric_without_replicates"
_PARTS = {False: "development", True: "test"}


def asked_metric(
    metric: str | Metric,
    samples: pd.DataFrame,
    gene_names: Any,
    *,
    references: References,
    named: bool = True,
    mend: str = "",
) -> tuple[Finding, ...]:
    """What must be known of a metric before it decides.

    Parameters
    ----------
    metric : which.
    samples : (n) scored rows: ``perturbation``, ``cell_line``, ``fold`` (missing on test rows), ``plate`` if known.
    gene_names : (n_genes,).
    references : of the development rows: plates and landmarks.
    named : somebody asked for it by name. A default that does not fit is a warning instead of an error.
    mend : added to an error: how another is named at this door.

    Raises
    ------
    InputError
        A named metric that would be another, or that no development row or no test row can have.
    """
    wanted = parse_metric(metric)
    found = [*_genes(wanted, gene_names, references), *_needs(wanted, samples, gene_names, references)]
    if not any(f.severity == "error" for f in found):
        found += _rows(wanted, samples)
    wrong = [f.message for f in found if f.severity == "error"]
    if wrong and named:
        raise InputError(" ".join([*wrong, "Decide on another metric, such as pearson_all@pooled.", mend]).strip())
    return tuple(found)


def _finding(severity: Any, code: str, metric: Metric, words: str) -> Finding:
    return Finding(severity, code, f"{metric.name} {words}", where=metric.name)


def _genes(metric: Metric, gene_names: Any, references: References) -> list[Finding]:
    """A set of genes that holds all there are."""
    size = re.fullmatch(r"(?:t|heg)([0-9]+)", metric.weighting or "")
    k = int(size[1]) if size else metric.top or 0
    kind, marks = "genes", references.landmarks
    n = len(gene_names)
    if metric.landmark and marks is not None:
        n, kind = int(np.sum(marks)), "landmark genes"
    if k < n or not k:
        return []
    return [
        _finding(
            "error",
            ALL_GENES,
            metric,
            f"asks for {k:,} of {n:,} {kind}: that is all of them, and the name would promise a choice that is none. "
            "Ask for fewer, or for all by name (pearson_all, rmse_all, cod_all, mse_exp2).",
        )
    ]


def _needs(metric: Metric, samples: pd.DataFrame, gene_names: Any, references: References) -> list[Finding]:
    """Plates, marked genes, targets and replicates."""
    found = []
    if metric.reference == "matched" and references.plates.reason:
        found.append(_finding("error", NOWHERE, metric, f"cannot be computed: {references.plates.reason}."))
    if metric.landmark and references.landmarks is None:
        found.append(
            _finding("error", NOWHERE, metric, "needs landmarks: mark them in var of the data (column 'is_landmark').")
        )
    if metric.off_target:
        try:
            named_genes(samples["perturbation"], gene_names)
        except InputError as error:
            found.append(_finding("error", NOWHERE, metric, f"cannot be computed. {error}"))
    if metric.reference in ("plate", "matched") and "plate" in samples and samples["plate"].nunique() == 1:
        words = "is read on a single plate: what the plate does and what a perturbation does cannot be told apart."
        found.append(_finding("warning", ONE_PLATE, metric, words))
    untested = metric.corrected or (metric.weighting or "").startswith(("heg", "all"))
    tested = metric.scope == "effect" and not untested
    if tested and not _again(samples).any():
        words = (
            "tests genes by replicates, and no perturbation was measured twice in a cell line: the spread between the "
            "other perturbations stands in, so real effects hide each other."
        )
        found.append(_finding("warning", BORROWED, metric, words))
    return found


def _rows(metric: Metric, samples: pd.DataFrame) -> list[Finding]:
    """Rows that cannot have a value, whatever is predicted."""
    if len(samples) == 0:
        return []
    test = samples["fold"].isna().to_numpy() if "fold" in samples else np.zeros(len(samples), dtype=bool)
    found = []
    for is_test in (False, True):
        part = samples[test == is_test]
        if len(part) == 0:
            continue
        able, why = _able(metric, part)
        where = f"{int((~able).sum()):,} of {len(part):,} {_PARTS[is_test]} rows"
        if not able.any():
            where = f"every one of {len(part):,} {_PARTS[is_test]} rows"
            words = f"is undefined on {where}: {why}."
            found.append(_finding("error", NOWHERE, metric, words))
        elif not able.all():
            words = f"is undefined on {where}: {why}. It speaks of the others."
            found.append(_finding("warning", PARTLY, metric, words))
    return found


def _able(metric: Metric, part: pd.DataFrame) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], str]:
    """(n,) rows that can have a value, and what the others lack."""
    line = part["cell_line"].astype(str)
    drug = part["perturbation"].astype(str)
    if metric.reference == "plate":
        if "plate" not in part or not part["plate"].notna().any():
            return np.zeros(len(part), dtype=bool), "no row says on which plate it was (column 'plate')"
        fold = part["fold"].astype(object) if "fold" in part else "all"
        others = drug.groupby([line, fold, part["plate"].astype(object)], dropna=False).transform("nunique")
        enough = (others.to_numpy() > LEAST_OTHERS) & part["plate"].notna().to_numpy()
        return enough, f"within a plate a fold must hold {LEAST_OTHERS} other perturbations of the cell line"
    if metric.corrected:
        return _again(part), "the noise of a perturbation that was measured once is not known"
    if metric.scope == "set" or (metric.scope == "effect" and metric.reference == "others"):
        key = line + "\0" + pd.Series(_banks(part), index=part.index).astype(str)
        words = "the cell line has a single perturbation there (out of fold: in the fold), so there are no others"
        return (drug.groupby(key).transform("nunique") > 1).to_numpy(), words
    if metric.scope == "effect":
        return (drug.groupby(line).transform("nunique") > 1).to_numpy(), "the cell line has a single perturbation"
    return np.ones(len(part), dtype=bool), ""


def _again(samples: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(n,) rows whose perturbation was measured more than once in the cell line."""
    keys = [samples["cell_line"].astype(str), samples["perturbation"].astype(str)]
    return np.asarray(samples.groupby(keys)["perturbation"].transform("size").to_numpy() > 1)


def _banks(part: pd.DataFrame) -> Any:
    """(n,) code of the perturbations that a row is held against, within its cell line; see ``banks``."""
    codes = np.zeros(len(part), dtype=np.int64)
    if "fold" not in part or part["fold"].isna().all():
        return codes
    for _, at in pd.Series(np.arange(len(part))).groupby(part["cell_line"].astype(str).to_numpy()):
        rows = part.iloc[at.to_numpy()]
        counts = pd.crosstab(rows["perturbation"].astype(str), rows["fold"].astype(str))
        bank = pd.Series(banks(counts.to_numpy()), index=counts.index)
        codes[at.to_numpy()] = bank.loc[rows["perturbation"].astype(str)].to_numpy()
    return codes
