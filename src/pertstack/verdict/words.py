"""What a number is called: metric names split, labelled and given a direction, always in the same words.

Every printed score states metric, k and reference; this module is the one place that spells them. The definitions
behind the names are the business of ``reduce/``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from pertstack._base.errors import unknown_name
from pertstack._base.shown import count_of

REFERENCES: dict[str, str] = {
    "own": "own control",
    "pooled": "pooled control",
    "matched": "matched control",
    "centroid": "centroid",
    "others": "mean of the others",
    "plate": "within plates",
    "halves": "control halves",
}
_STEMS: dict[str, str] = {
    "r2": "R²",
    "pearson": "Pearson r",
    "cod": "determination",
    "sign_acc": "sign accuracy",
    "rmse": "RMSE",
    "mae": "MAE",
    "mse": "MSE",
    "spearman": "Spearman",
    "cosine": "cosine",
    "pds": "PDS",
    "pds_l1": "PDS (L1)",
    "pds_cosine": "PDS (cosine)",
    "centroid_accuracy": "centroid accuracy",
    "slope": "slope",
    "effect_pearson": "agreement with the noise-free effect",
}
_DE: dict[str, str] = {
    "de_direction": "direction of significant genes",
    "de_jaccard": "overlap of significant genes",
    "de_auprc": "AUPRC of significant genes",
    "de_lfc_error": "error on significant genes",
}
_LOWER_IS_BETTER = ("rmse", "mae", "mse", "de_lfc_error")
_REFERENCE_FREE = ("rmse_all", "mae_all", "mse_")  # prediction minus treated: the reference cancels


def split_metric(name: str) -> tuple[str, str]:
    """Metric and reference of a full name; without a reference it means own.

    >>> split_metric("r2_top20@pooled"), split_metric("r2_top20")
    (('r2_top20', 'pooled'), ('r2_top20', 'own'))
    """
    metric, _, reference = name.partition("@")
    return metric, reference or "own"


def same_metric(a: str, b: str) -> bool:
    """True when two spellings mean one number: ``r2_top20`` is ``r2_top20@own``."""
    return split_metric(a) == split_metric(b)


def find_metric(known: Iterable[str], wanted: str) -> str | None:
    """The spelling under which ``wanted`` is known, or None when it was not computed."""
    return next((k for k in known if same_metric(k, wanted)), None)


def need_metric(known: Iterable[str], wanted: str) -> str:
    """As ``find_metric``; a metric that was not computed is an error with the near names."""
    listed = list(known)
    found = find_metric(listed, wanted)
    if found is None:
        raise unknown_name("metric", wanted, listed)
    return found


def lower_is_better(name: str) -> bool:
    """True for errors (RMSE, MAE), False for everything else."""
    return split_metric(name)[0].startswith(_LOWER_IS_BETTER)


def direction(name: str) -> int:
    """+1 where more is better, -1 where less is: ``direction * value`` may be ranked."""
    return -1 if lower_is_better(name) else 1


def metric_label(name: str, *, reference: bool = True) -> str:
    """A metric in words, with k and reference.

    >>> metric_label("r2_top20@pooled"), metric_label("r2_top20_strict"), metric_label("rmse_all")
    ('R² Top-20, pooled control', 'R² Top-20 strict, own control', 'RMSE, all genes')
    """
    metric, against = split_metric(name)
    words = _effect_words(metric)
    if words is not None:
        return words if not reference or metric.startswith("mse_") else f"{words}, {REFERENCES.get(against, against)}"
    parts = re.fullmatch(r"(?P<stem>.+?)(?:_(?P<span>top\d+|all))?(?P<strict>_strict)?(?P<rest>_landmarks?)?", metric)
    assert parts is not None  # the stem takes whatever is left
    words = _STEMS.get(parts["stem"], parts["stem"].replace("_", " "))
    if parts["span"]:
        words += ", all genes" if parts["span"] == "all" else f" Top-{parts['span'][3:]}"
    words += (" strict" if parts["strict"] else "") + (", landmark genes" if parts["rest"] else "")
    if not reference or metric.startswith(_REFERENCE_FREE):
        return words
    return f"{words}, {REFERENCES.get(against, against)}"


def _effect_words(metric: str) -> str | None:
    """An effect-level or off-target metric in words; None for any other.

    >>> _effect_words("cod_exp2"), _effect_words("mse_t50"), _effect_words("pds_l1_offtarget")
    ('determination, weights |t|^2', 'MSE, top 50 by |t|', 'PDS (L1), target genes left out')
    """
    stem, off = metric.removesuffix("_offtarget"), metric.endswith("_offtarget")
    tail = ", target genes left out" if off else ""
    if stem in _DE:
        return _DE[stem]
    if off and stem in _STEMS:
        return _STEMS[stem] + tail
    found = re.fullmatch(r"(mse|pearson|cod)_(exp|t|heg|degs|all)([0-9]*)(_corrected)?", stem)
    if found is None or (found[2] == "all" and not (off or found[4])):
        return None
    how = {
        "exp": f"weights |t|^{found[3]}",
        "t": f"top {found[3]} by |t|",
        "heg": f"{found[3]} most expressed genes",
        "degs": "significant genes",
        "all": "noise taken out" if found[4] else "all genes",
    }[found[2]]
    return f"{_STEMS[found[1]]}, {how}{tail}"


def number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """A number for people, with a real minus sign; a dash where there is none.

    >>> number(0.01234), number(-0.5, sign=True), number(None)
    ('0.012', '−0.500', '—')
    """
    if value is None or not math.isfinite(value):
        return "—"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(text) == 0:
        text = f"{0:.{digits}f}"
    return text.replace("-", "−")


def interval(bounds: tuple[float, float] | None, digits: int = 3, *, sign: bool = False) -> str:
    """An interval for people: ``[0.010, 0.020]``; empty where there is none.

    Bounds on one side of zero are never rounded to zero: as many digits are shown as it takes, up to six.

    >>> interval((0.00042, 0.0105)), interval((-0.003, 0.0))
    ('[0.0004, 0.0105]', '[−0.003, 0.000]')
    """
    if bounds is None:
        return ""
    nearest = min(abs(bounds[0]), abs(bounds[1]))
    while bounds[0] * bounds[1] > 0 and nearest >= 1e-6 and digits < 6 and float(f"{nearest:.{digits}f}") == 0:
        digits += 1
    return f"[{number(bounds[0], digits, sign=sign)}, {number(bounds[1], digits, sign=sign)}]"


def unit_words(unit: str) -> str:
    """What is resampled, as a noun.

    >>> unit_words("cell_line"), unit_words("perturbation+cell_line")
    ('cell line', 'pair of perturbation and cell line')
    """
    parts = [part.replace("_", " ") for part in unit.split("+")]
    return parts[0] if len(parts) == 1 else f"pair of {' and '.join(parts)}"


def count_units(n: int, unit: str) -> str:
    """A count of what is resampled.

    >>> count_units(11, "cell_line"), count_units(2, "perturbation+cell_line")
    ('11 cell lines', '2 pairs of perturbation and cell line')
    """
    one = unit_words(unit)
    return count_of(n, one, one.replace("pair of", "pairs of") if one.startswith("pair of") else None)
