"""A metric in words, always the same ones: kind, genes and reference. The names are read by ``metric_names.py``."""

from __future__ import annotations

from pertstack._base.errors import StackingError
from pertstack.design.metric_names import DE_LEVEL, Metric, Reference, parse_metric, split_metric

REFERENCE_LABELS: dict[Reference, str] = {
    "own": "own control",
    "pooled": "pooled control",
    "matched": "matched control",
    "centroid": "centroid",
    "others": "mean of the others",
    "plate": "within plates",
    "halves": "control halves",
}
_KINDS: dict[str, str] = {
    "r2": "R²",
    "pearson": "Pearson r",
    "cod": "determination",
    "sign_acc": "sign accuracy",
    "rmse": "RMSE",
    "mae": "MAE",
    "mse": "MSE",
    "spearman": "Spearman",
    "cosine": "cosine",
    "pds_l1": "PDS (L1)",
    "pds_cosine": "PDS (cosine)",
    "centroid_accuracy": "centroid accuracy",
    "de_direction": "direction of significant genes",
    "de_jaccard": "overlap of significant genes",
    "de_auprc": "AUPRC of significant genes",
    "de_lfc_error": "error on significant genes",
}
_OTHERS: dict[str, str] = {
    "mse_all": "MSE, all genes",
    "slope": "slope",
    "effect_pearson": "agreement with the noise-free effect",
}
"""Numbers outside the grammar of metric names, made by choice and simulations."""


def metric_label(name: str, *, reference: bool = True) -> str:
    """A metric in words, with k and reference.

    >>> metric_label("r2_top20@pooled"), metric_label("r2_top20_strict"), metric_label("rmse_all")
    ('R² Top-20, pooled control', 'R² Top-20 strict, own control', 'RMSE, all genes')
    >>> metric_label("cod_exp2"), metric_label("pds_l1_offtarget", reference=False)
    ('determination, weights |t|^2, own control', 'PDS (L1), target genes left out')
    """
    stem, against = split_metric(name)
    metric = _known(stem)
    words = _OTHERS.get(stem, stem.replace("_", " ")) if metric is None else _words(metric)
    if not reference or _reference_cancels(stem, metric):
        return words
    return f"{words}, {dict(REFERENCE_LABELS).get(against, against)}"  # type: ignore[call-overload]


def _known(stem: str) -> Metric | None:
    try:
        return parse_metric(stem)
    except StackingError:  # a number outside the grammar keeps its own name
        return None


def _reference_cancels(stem: str, metric: Metric | None) -> bool:
    """Errors over all genes, or over genes weighed by the measured effect: prediction minus treated."""
    if metric is None:
        return stem == "mse_all"
    return metric.kind == "mse" or (metric.kind in ("rmse", "mae") and metric.top is None)


def _words(metric: Metric) -> str:
    words = _KINDS[metric.kind] + _genes(metric)
    words += " strict" if metric.strict else ""
    words += ", landmark genes" if metric.landmark else ""
    return words + (", target genes left out" if metric.off_target else "")


def _genes(metric: Metric) -> str:
    """Which genes count and how much."""
    if metric.weighting is None:
        whole = metric.scope == "set" or metric.kind in DE_LEVEL
        return "" if whole else ", all genes" if metric.top is None else f" Top-{metric.top}"
    if metric.weighting.startswith("exp"):
        return f", weights |t|^{metric.weighting[3:]}"
    if metric.weighting.startswith("heg"):
        return f", {metric.weighting[3:]} most expressed genes"
    if metric.weighting == "degs":
        return ", significant genes"
    if metric.weighting == "all":
        return ", noise taken out" if metric.corrected else ", all genes"
    return f", top {metric.weighting[1:]} by |t|"
