"""All combiners by name. A new combiner is one file and one line here; the contract tests pick it up by themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pertstack._base.errors import unknown_name
from pertstack.stack.best_informed import BestInformed
from pertstack.stack.best_single import BestSingle
from pertstack.stack.calibrated import Calibrated
from pertstack.stack.cell_line_shrunken import CellLineShrunken
from pertstack.stack.combiner import Combiner
from pertstack.stack.direct import DirectOwn, DirectPooled, DirectSigned
from pertstack.stack.direct_cell_line import DirectCellLine
from pertstack.stack.direct_gene import DirectGene
from pertstack.stack.embedding_ridge import EmbeddingRidge
from pertstack.stack.feature_weighted import FeatureWeighted
from pertstack.stack.feature_weighted_sample import FeatureWeightedSample
from pertstack.stack.gene_eb import GeneEb
from pertstack.stack.gene_groups import GeneGroups
from pertstack.stack.gene_ridge import GeneRidge, GeneShrunken
from pertstack.stack.gene_simplex import GeneSimplex
from pertstack.stack.greedy import GreedyMse
from pertstack.stack.greedy_r2 import GreedyR2
from pertstack.stack.inverse_mse import GeneInverseMse, InverseMse
from pertstack.stack.mean import Mean
from pertstack.stack.median import Median
from pertstack.stack.no_change import NoChange
from pertstack.stack.nonneg import Nonneg
from pertstack.stack.rank_average import RankAverage
from pertstack.stack.ridge import Ridge
from pertstack.stack.selector import Selector
from pertstack.stack.shared_mlp import SharedMlp
from pertstack.stack.simplex import Simplex
from pertstack.stack.soft_gate import SoftGate
from pertstack.stack.standardised_mean import StandardisedMean
from pertstack.stack.trimmed_mean import TrimmedMean
from pertstack.stack.winsorised_mean import WinsorisedMean

_CLASSES: tuple[type[Combiner], ...] = (
    BestSingle,
    BestInformed,
    Mean,
    Median,
    TrimmedMean,
    WinsorisedMean,
    RankAverage,
    StandardisedMean,
    NoChange,
    InverseMse,
    Simplex,
    GreedyMse,
    GreedyR2,
    Nonneg,
    Ridge,
    GeneInverseMse,
    DirectPooled,
    DirectOwn,
    DirectSigned,
    DirectCellLine,
    DirectGene,
    CellLineShrunken,
    FeatureWeighted,
    GeneGroups,
    GeneSimplex,
    GeneShrunken,
    GeneEb,
    GeneRidge,
    Calibrated,
    Selector,
    SoftGate,
    FeatureWeightedSample,
    SharedMlp,
    EmbeddingRidge,
)
COMBINERS: dict[str, type[Combiner]] = {c.name: c for c in _CLASSES}
ALWAYS: tuple[str, ...] = (
    "best_single", "mean", "median", "trimmed_mean", "winsorised_mean", "rank_average", "standardised_mean",
    "no_change",
)  # fmt: skip
"""References that stand on every board, asked for or not."""


def make_combiner(name: str, **params: Any) -> Combiner:
    """A combiner by name, with hyper-parameters.

    Raises
    ------
    UnknownNameError
        No combiner, or no parameter of it, has this name; the message shows near ones.
    """
    if name not in COMBINERS:
        raise unknown_name("combiner", name, COMBINERS)
    return COMBINERS[name]().with_params(**params)


def make_combiners(chosen: Iterable[str | Combiner] | None = None) -> tuple[Combiner, ...]:
    """The chosen combiners, with the references that always stand on the board first.

    Default: every combiner whose class says ``default``. Those that are slow, or that vary another one, are asked for
    by name, so that a default run stays quick and fewer candidates compete to look best by chance.
    """
    wanted = [name for name, c in COMBINERS.items() if c.default] if chosen is None else list(chosen)
    made = [make_combiner(c) if isinstance(c, str) else c for c in wanted]
    names = {c.name for c in made}
    first = [make_combiner(name) for name in ALWAYS if name not in names]
    return tuple(sorted([*first, *made], key=lambda c: _place(c.name)))


def _place(name: str) -> int:
    return ALWAYS.index(name) if name in ALWAYS else len(ALWAYS)
