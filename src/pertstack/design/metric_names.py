"""How a metric is written and read: ``r2_top20@pooled``. The formulas are in ``reduce/metrics/definitions.py``.

Grammar: ``<kind>_<all|topK>[_strict][_landmark][@reference]``; set-level: ``pds_l1``, ``pds_cosine``,
``centroid_accuracy`` (also spelled ``nir``, ``pds_l2``), each with ``_offtarget``; effect-level, weighed by the
measured effect: ``<mse|pearson|cod>_<exp1|exp2|exp4|tK|degs|hegK>``, ``<..>_all_offtarget``, ``mse_all_corrected`` and
``de_*``. Without a reference it means own, the canonical one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from pertstack._base.errors import InputError, unknown_name

Reference = Literal["own", "pooled", "centroid", "matched", "others", "plate", "halves"]
REFERENCES: tuple[Reference, ...] = ("own", "pooled", "centroid", "matched", "others", "plate", "halves")
"""What is subtracted from a profile before it is scored; see ``reduce/references.py``."""
KINDS_TOP = ("r2", "pearson", "cod", "sign_acc", "rmse", "mae")
KINDS_ALL = ("r2", "pearson", "cod", "sign_acc", "rmse", "mae", "spearman", "cosine")
SET_LEVEL = ("pds_l1", "pds_cosine", "centroid_accuracy")
DE_LEVEL = ("de_direction", "de_jaccard", "de_auprc", "de_lfc_error")
ERRORS = ("rmse", "mae", "mse", "de_lfc_error")
"""Kinds of which less is better."""
ALIASES = {"nir": "centroid_accuracy", "pds_l2": "centroid_accuracy"}
"""Names that peers use for a number of ours."""
Scope = Literal["sample", "sides", "set", "effect"]
TWO_SIDED: tuple[Reference, ...] = ("plate", "halves")
"""References that are not the same profile for truth and prediction."""
_ALLOWED: dict[Scope, tuple[Reference, ...]] = {
    "sample": ("own", "pooled", "centroid", "matched"),
    "set": ("own", "pooled", "centroid", "matched"),
    "effect": ("own", "pooled", "centroid", "others"),
}

_EFFECT = re.compile(
    r"(?P<kind>mse|pearson|cod)_(?P<weighting>exp[124]|t[0-9]+|degs|heg[0-9]+|all)(?P<off>_offtarget)?(?P<less>_corrected)?"
)
_PATTERN = re.compile(r"(?P<kind>[a-z0-9_]+?)_(?:all|top(?P<k>[0-9]+))(?P<strict>_strict)?(?P<landmark>_landmark)?")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric against one reference. ``top`` is the number of genes of largest measured change, None for all
    genes.
    """

    kind: str
    top: int | None = None
    strict: bool = False
    landmark: bool = False
    reference: Reference = "own"
    weighting: str | None = None  # effect-level: what weighs the genes, "exp2", "t50", "degs", "heg1000", "all"
    off_target: bool = False  # genes that the perturbation names are left out
    corrected: bool = False  # the noise of the measured mean is taken out

    @property
    def base(self) -> str:
        """Name without the reference."""
        off = "_offtarget" if self.off_target else ""
        if self.kind in SET_LEVEL or self.kind in DE_LEVEL:
            return f"{self.kind}{off}"
        if self.weighting is not None:
            return f"{self.kind}_{self.weighting}{off}{'_corrected' if self.corrected else ''}"
        genes = "all" if self.top is None else f"top{self.top}"
        return f"{self.kind}_{genes}{'_strict' if self.strict else ''}{'_landmark' if self.landmark else ''}"

    @property
    def name(self) -> str:
        """``metric@reference``, the reference always spelled."""
        return f"{self.base}@{self.reference}"

    @property
    def scope(self) -> Scope:
        """What is looked at: a sample against one profile, truth and prediction each against its own, all perturbations
        of a cell line at once, or a perturbation with its replicates.
        """
        if self.kind in SET_LEVEL:
            return "set"
        if self.weighting is not None or self.kind in DE_LEVEL:
            return "effect"
        return "sides" if self.reference in TWO_SIDED else "sample"

    @property
    def higher_is_better(self) -> bool:
        return self.kind not in ERRORS

    @property
    def perfect(self) -> float:
        """Value of a flawless prediction: 0 for errors, else 1."""
        return 1.0 if self.higher_is_better else 0.0

    def __str__(self) -> str:
        return self.name


def parse_metric(text: str | Metric) -> Metric:
    """A metric from its name.

    >>> metric = parse_metric("r2_top20@pooled")
    >>> metric.kind, metric.top, metric.reference
    ('r2', 20, 'pooled')
    >>> parse_metric("rmse_all").name
    'rmse_all@own'

    Raises
    ------
    UnknownNameError
        No such metric or reference; near names are shown.
    InputError
        Top-k with k < 2, where a correlation has no meaning.
    """
    if isinstance(text, Metric):
        return text
    base, at, reference = text.strip().partition("@")
    if at and reference not in REFERENCES:
        raise unknown_name("reference", reference, REFERENCES)
    chosen: Reference = next((r for r in REFERENCES if r == reference), "own")
    metric = _other_level(base, chosen) or _sample_level(text, base, chosen)
    allowed = (*_ALLOWED["sample"], *TWO_SIDED) if metric.scope in ("sample", "sides") else _ALLOWED[metric.scope]
    if metric.reference not in allowed or (metric.landmark and metric.scope == "sides"):
        raise InputError(
            f"{text!r} asks for the reference {reference!r}, which {metric.base} does not have. Write one of "
            f"{', '.join(f'{metric.base}@{r}' for r in allowed)}."
        )
    return metric


def _other_level(base: str, reference: Reference) -> Metric | None:
    """A set-level or effect-level metric, or None."""
    stem, off = base.removesuffix("_offtarget"), base.endswith("_offtarget")
    stem = ALIASES.get(stem, stem)
    if stem in SET_LEVEL:
        return Metric(stem, reference=reference, off_target=off)
    if base in DE_LEVEL:
        return Metric(base, reference=reference)
    match = _EFFECT.fullmatch(base)
    if match is None:
        return None
    off, less = match["off"] is not None, match["less"] is not None
    if (match["weighting"] == "all" and not (off or less)) or (less and base != "mse_all_corrected"):
        return None
    return Metric(match["kind"], reference=reference, weighting=match["weighting"], off_target=off, corrected=less)


def _sample_level(text: str, base: str, reference: Reference) -> Metric:
    match = _PATTERN.fullmatch(base)
    known = (*metric_names(), *effect_names(), *ALIASES)
    if match is None:
        raise unknown_name("metric", base, known)
    kind, top = match["kind"], int(match["k"]) if match["k"] else None
    strict = match["strict"] is not None
    if kind not in (KINDS_ALL if top is None else KINDS_TOP) or (strict and kind != "r2"):
        raise unknown_name("metric", base, known)
    if top is not None and top < 2:
        raise InputError(
            f"{text!r} asks for the top {top} genes; a correlation needs at least 2. Write for example r2_top20."
        )
    return Metric(kind, top, strict, landmark=match["landmark"] is not None, reference=reference)


@lru_cache(maxsize=4096)
def split_metric(name: str) -> tuple[str, str]:
    """Metric and reference of a full name; without a reference it means own.

    >>> split_metric("r2_top20@pooled"), split_metric("r2_top20")
    (('r2_top20', 'pooled'), ('r2_top20', 'own'))
    """
    metric, _, reference = name.partition("@")
    return metric, reference or "own"


def find_metric(known: Iterable[str], wanted: str) -> str | None:
    """The spelling under which ``wanted`` is known, or None when it was not computed."""
    asked = split_metric(wanted)
    return next((k for k in known if split_metric(k) == asked), None)


def need_metric(known: Iterable[str], wanted: str) -> str:
    """As ``find_metric``; a metric that was not computed is an error with the near names."""
    listed = list(known)
    found = find_metric(listed, wanted)
    if found is None:
        raise unknown_name("metric", wanted, listed)
    return found


def lower_is_better(name: str) -> bool:
    """True for errors (RMSE, MAE, MSE), False for everything else."""
    return split_metric(name)[0].startswith(ERRORS)


def direction(name: str) -> int:
    """+1 if more is better, -1 if less is: ``direction * value`` may be ranked."""
    return -1 if lower_is_better(name) else 1


def parse_metrics(texts: Iterable[str | Metric]) -> tuple[Metric, ...]:
    """Metrics in the order given; a repeated one counts once."""
    return tuple(dict.fromkeys(parse_metric(t) for t in texts))


def metric_names(tops: Iterable[int] = (20, 40, 80)) -> tuple[str, ...]:
    """The usual metric names, without references and without landmark variants."""
    names = [f"{kind}_top{k}" for kind in KINDS_TOP for k in tops] + [f"{kind}_all" for kind in KINDS_ALL]
    names += [f"r2_top{k}_strict" for k in tops] + ["r2_all_strict"]
    return (*names, *SET_LEVEL)


def effect_names() -> tuple[str, ...]:
    """The usual effect-level metrics, without references."""
    weightings = ("exp1", "exp2", "exp4", "t50", "degs", "heg1000", "all_offtarget")
    return (*(f"{kind}_{w}" for kind in ("mse", "pearson", "cod") for w in weightings), "mse_all_corrected", *DE_LEVEL)


DEFAULT_PANEL: tuple[str, ...] = (
    "r2_top20@own",
    "r2_top20@pooled",
    "r2_top40@own",
    "r2_top40@pooled",
    "r2_top80@own",
    "r2_top80@pooled",
    "r2_top20_strict@own",
    "r2_top20_strict@pooled",
    "pearson_all@own",
    "pearson_all@pooled",
    "pearson_all@centroid",
    "rmse_all@own",
    "cod_all@own",
    "sign_acc_top20@own",
    "sign_acc_top20@pooled",
)
"""What the out-of-fold board computes."""

FULL_PANEL: tuple[str, ...] = tuple(
    dict.fromkeys(
        (
            *DEFAULT_PANEL,
            *(f"{m}@own" for m in metric_names() if m not in (*SET_LEVEL, "spearman_all")),
            *(f"{m}@pooled" for m in metric_names() if m not in SET_LEVEL),
            *(f"{m}@centroid" for m in ("r2_top20", "r2_top20_strict", "pearson_top20", "cosine_all", "cod_all")),
            *(f"{m}@pooled" for m in SET_LEVEL),
        )
    )
)
"""What the held-out test computes: everything in metrics.md. Spearman's correlation stands against one reference: with
four it takes longer than all others together."""
