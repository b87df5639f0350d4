"""All combiners by name. A new combiner is one file and one line here; the contract tests pick it up by themselves."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any

from pertstack._base.errors import ConflictError, InputError, unknown_name
from pertstack._base.names import refuse_unusable_names
from pertstack.predictions.store.files.names import refuse_kept_name
from pertstack.stacking.combiner import Combiner
from pertstack.stacking.combiners.gene_weights.calibrated import Calibrated
from pertstack.stacking.combiners.gene_weights.gene_eb import GeneEb
from pertstack.stacking.combiners.gene_weights.gene_groups import GeneGroups
from pertstack.stacking.combiners.gene_weights.gene_ridge import GeneRidge, GeneShrunken
from pertstack.stacking.combiners.gene_weights.gene_simplex import GeneSimplex
from pertstack.stacking.combiners.global_weights.direct import DirectOwn, DirectPooled, DirectSigned
from pertstack.stacking.combiners.global_weights.greedy import GreedyMse
from pertstack.stacking.combiners.global_weights.greedy_r2 import GreedyR2
from pertstack.stacking.combiners.global_weights.inverse_mse import GeneInverseMse, InverseMse
from pertstack.stacking.combiners.global_weights.nonneg import Nonneg
from pertstack.stacking.combiners.global_weights.ridge import Ridge
from pertstack.stacking.combiners.global_weights.simplex import Simplex
from pertstack.stacking.combiners.references.best_informed import BestInformed
from pertstack.stacking.combiners.references.best_single import BestSingle
from pertstack.stacking.combiners.references.mean import Mean
from pertstack.stacking.combiners.references.median import Median
from pertstack.stacking.combiners.references.no_change import NoChange
from pertstack.stacking.combiners.references.rank_average import RankAverage
from pertstack.stacking.combiners.references.standardised_mean import StandardisedMean
from pertstack.stacking.combiners.references.trimmed_mean import TrimmedMean
from pertstack.stacking.combiners.references.winsorised_mean import WinsorisedMean
from pertstack.stacking.combiners.row_weights.cell_line_shrunken import CellLineShrunken
from pertstack.stacking.combiners.row_weights.direct_cell_line import DirectCellLine
from pertstack.stacking.combiners.row_weights.feature_weighted import FeatureWeighted
from pertstack.stacking.combiners.row_weights.parts_shrunken import PartsShrunken
from pertstack.stacking.combiners.row_weights.selector import Selector
from pertstack.stacking.combiners.row_weights.soft_gate import SoftGate
from pertstack.stacking.experimental.direct_gene import DirectGene
from pertstack.stacking.experimental.embedding_ridge import EmbeddingRidge
from pertstack.stacking.experimental.feature_weighted_sample import FeatureWeightedSample
from pertstack.stacking.experimental.shared_mlp import SharedMlp

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
    PartsShrunken,
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
    "best_single",
    "mean",
    "median",
    "trimmed_mean",
    "winsorised_mean",
    "standardised_mean",
    "no_change",
)
"""References that are on every board, asked for or not."""


ENTRY_POINT_GROUP = "pertstack.combiners"
_registered: dict[str, type[Combiner]] = {}


def register_combiner(combiner: type[Combiner]) -> type[Combiner]:
    """Make a combiner known by name for this session; your own package uses the entry point group instead.

    Raises
    ------
    ConflictError
        Another combiner already has this name.
    """
    present = list_combiners().get(combiner.name)
    if present is not None and present is not combiner:
        raise ConflictError(
            f"A combiner named {combiner.name!r} already exists ({present.__module__}.{present.__qualname__}). Give "
            f"{combiner.__qualname__} another name."
        )
    _registered[combiner.name] = combiner
    return combiner


def list_combiners() -> dict[str, type[Combiner]]:
    """Name -> class: ours, those of installed packages (entry points ``pertstack.combiners``), registered ones.

    Raises
    ------
    InputError
        An installed package names a combiner that cannot be loaded.
    """
    found = dict(COMBINERS)
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda p: p.name):
        try:
            combiner = point.load()
        except (ImportError, AttributeError) as error:
            raise InputError(
                f"The combiner {point.name!r} of an installed package ({point.value}) cannot be loaded: {error}. Mend "
                f"or uninstall that package."
            ) from error
        found.setdefault(combiner.name, combiner)
    return found | _registered


def make_combiner(name: str, **params: Any) -> Combiner:
    """A combiner by name, with hyper-parameters.

    Raises
    ------
    UnknownNameError
        No combiner, or no parameter of it, has this name; the message shows near ones.
    """
    known = COMBINERS if name in COMBINERS else list_combiners()
    if name not in known:
        raise unknown_name("combiner", name, known)
    return known[name]().with_params(**params)


def make_combiners(chosen: str | Combiner | Iterable[str | Combiner] | None = None) -> tuple[Combiner, ...]:
    """The chosen combiners, with the references that are always on the board first.

    Default: every combiner of ours whose class says ``default``. Those that are slow, that vary another one, or that
    come from another package are asked for by name, so that a default run stays quick and fewer candidates compete to
    look best by chance.
    """
    chosen = [chosen] if isinstance(chosen, str | Combiner) else chosen
    wanted = [name for name, c in COMBINERS.items() if c.default] if chosen is None else list(chosen)
    made = [make_combiner(c) if isinstance(c, str) else c for c in wanted]
    names = {c.name for c in made}
    first = [make_combiner(name) for name in ALWAYS if name not in names]
    return tuple(sorted([*first, *made], key=lambda c: _place(c.name)))


def _place(name: str) -> int:
    return ALWAYS.index(name) if name in ALWAYS else len(ALWAYS)


RESERVED = frozenset({*COMBINERS, "oracle", "replicate", "ensemble"})


def refuse_reserved(name: str) -> None:
    """A model must not be called like a row of the leaderboard that is not a model, nor like measured values in the
    store, nor so that it moves a cursor.

    Raises
    ------
    InputError
        The name is taken, or holds control characters.
    """
    refuse_unusable_names([name], "names of models")
    refuse_kept_name(name)
    if name in RESERVED:
        raise InputError(
            f"{name!r} is the name of a combiner or reference, so the leaderboard could not tell the two apart. Choose "
            f"another name, such as '{name}_model'."
        )
