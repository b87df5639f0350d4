"""How a metric is written and read: ``r2_top20@pooled``. The formulas live in ``definitions.py``.

Grammar: ``<kind>_<all|topK>[_strict][_landmark][@own|pooled|centroid|matched]``, or a set-level metric: ``pds_l1``,
``pds_cosine``, ``centroid_accuracy``. Without a reference it means own, the canonical one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pertstack._base.errors import InputError, unknown_name
from pertstack.reduce.references import REFERENCES, Reference

KINDS_TOP = ("r2", "pearson", "cod", "sign_acc", "rmse", "mae")
KINDS_ALL = ("r2", "pearson", "cod", "sign_acc", "rmse", "mae", "spearman", "cosine")
SET_LEVEL = ("pds_l1", "pds_cosine", "centroid_accuracy")

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

    @property
    def base(self) -> str:
        """Name without the reference."""
        if self.set_level:
            return self.kind
        genes = "all" if self.top is None else f"top{self.top}"
        return f"{self.kind}_{genes}{'_strict' if self.strict else ''}{'_landmark' if self.landmark else ''}"

    @property
    def name(self) -> str:
        """``metric@reference``, the reference always spelled."""
        return f"{self.base}@{self.reference}"

    @property
    def set_level(self) -> bool:
        """Needs all perturbations of a cell line at once."""
        return self.kind in SET_LEVEL

    @property
    def higher_is_better(self) -> bool:
        return self.kind not in ("rmse", "mae")

    @property
    def null_level(self) -> float | None:
        """Mean of r2_topk for unrelated profiles, 1 / (k - 1): different k are not comparable. None for other
        metrics.
        """
        return 1.0 / (self.top - 1) if self.kind == "r2" and self.top is not None and self.top > 1 else None

    def __str__(self) -> str:
        return self.name


def parse_metric(text: str | Metric) -> Metric:
    """A metric from its name.

    >>> parse_metric("r2_top20@pooled")
    Metric(kind='r2', top=20, strict=False, landmark=False, reference='pooled')
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
    if base in SET_LEVEL:
        return Metric(base, reference=chosen)
    match = _PATTERN.fullmatch(base)
    if match is None:
        raise unknown_name("metric", base, metric_names())
    kind, top = match["kind"], int(match["k"]) if match["k"] else None
    strict = match["strict"] is not None
    if kind not in (KINDS_ALL if top is None else KINDS_TOP) or (strict and kind != "r2"):
        raise unknown_name("metric", base, metric_names())
    if top is not None and top < 2:
        raise InputError(
            f"{text!r} asks for the top {top} genes; a correlation needs at least 2. Write for example r2_top20."
        )
    return Metric(kind, top, strict, match["landmark"] is not None, chosen)


def parse_metrics(texts: Iterable[str | Metric]) -> tuple[Metric, ...]:
    """Metrics in the order given; a repeated one counts once."""
    return tuple(dict.fromkeys(parse_metric(t) for t in texts))


def metric_names(tops: Iterable[int] = (20, 40, 80)) -> tuple[str, ...]:
    """The usual metric names, without references and without landmark variants."""
    names = [f"{kind}_top{k}" for kind in KINDS_TOP for k in tops] + [f"{kind}_all" for kind in KINDS_ALL]
    names += [f"r2_top{k}_strict" for k in tops] + ["r2_all_strict"]
    return (*names, *SET_LEVEL)


DEFAULT_PANEL: tuple[str, ...] = (
    "r2_top20@own", "r2_top20@pooled", "r2_top40@own", "r2_top40@pooled", "r2_top80@own", "r2_top80@pooled",
    "r2_top20_strict@own", "r2_top20_strict@pooled", "pearson_all@own", "pearson_all@pooled", "pearson_all@centroid",
    "rmse_all@own", "cod_all@own", "sign_acc_top20@own", "sign_acc_top20@pooled",
)  # fmt: skip
"""What the out-of-fold board computes."""

FULL_PANEL: tuple[str, ...] = tuple(
    dict.fromkeys(
        (
            *DEFAULT_PANEL,
            *(f"{m}@{r}" for r in ("own", "pooled") for m in metric_names() if m not in SET_LEVEL),
            *(f"{m}@centroid" for m in ("r2_top20", "r2_top20_strict", "pearson_top20", "cosine_all", "cod_all")),
            *(f"{m}@pooled" for m in SET_LEVEL),
        )
    )
)
"""What the held-out test computes: everything in metrics.md."""
