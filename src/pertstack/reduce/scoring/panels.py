"""Which metrics a study computes: the fixed panels, and what its own data allow beside them.

The matched control needs plates, the landmark variants need marked genes. What the names mean is handled by
``metrics/``.
"""

from __future__ import annotations

from pertstack.design.metric_names import DEFAULT_PANEL, FULL_PANEL, SET_LEVEL, metric_names, parse_metric
from pertstack.reduce.references import References

MATCHED: tuple[str, ...] = ("r2_top20@matched", "pearson_all@matched")
"""Beside the default panel, if plates are known."""
WITHIN_PLATE = "pearson_all@plate"
"""Beside either panel, if rows say on which plate they were."""
MATCHED_FULL: tuple[str, ...] = (
    *MATCHED,
    "r2_top40@matched",
    "r2_top80@matched",
    "r2_top20_strict@matched",
    "pearson_top20@matched",
    "cod_all@matched",
    "sign_acc_top20@matched",
    "cosine_all@matched",
    "pds_l1@matched",
    "centroid_accuracy@matched",
)


def panel(references: References, *, full: bool = False) -> tuple[str, ...]:
    """Metrics to compute, each once: the out-of-fold panel, or with ``full`` everything, as for the held-out test.

    Landmark variants stand for own and pooled control, for the top 20 and all genes, and for all but the set-level
    metrics. Every further one is computed when it is named.
    """
    wanted = [*(FULL_PANEL if full else DEFAULT_PANEL)]
    if not references.plates.reason:
        wanted += MATCHED_FULL if full else MATCHED
    if references.plates.by == "plate":
        wanted += [WITHIN_PLATE, "r2_top20@plate"] if full else [WITHIN_PLATE]
    if full and references.landmarks is not None:
        names = [m for m in metric_names(tops=(20,)) if m not in SET_LEVEL]
        wanted += [f"{m}_landmark@own" for m in names if m != "spearman_all"]
        wanted += [f"{m}_landmark@pooled" for m in names if m not in ("rmse_all", "mae_all")]  # the reference cancels
    return tuple(dict.fromkeys(parse_metric(m).name for m in wanted))
