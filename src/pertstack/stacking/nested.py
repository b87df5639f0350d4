"""Nested fits: every combiner once without each fold, and once on all development rows.

Whatever a combiner chooses (weights, penalties, calibration, which model is best) is chosen inside its evidence, which
never holds the fold it will be scored on. Scoring is handled by ``reduce.score``; choosing, by ``choose.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pertstack._base.errors import InputError, LeakError, StackingError, first_few
from pertstack.data.rows import Float32
from pertstack.reduce.tile import Combine, Tile
from pertstack.stacking.combiner import FLEXIBLE, Combiner, FittedCombiner
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.registry import make_combiners
from pertstack.stacking.sums import Reference

if TYPE_CHECKING:
    from pertstack.predictions.source import BlockSource
    from pertstack.reduce.references import References
    from pertstack.reduce.sums.reduction import Reduction

Left = Literal["fold", "cell_line"]
FINAL = "final"
_EXPECTED = (StackingError, ValueError, ArithmeticError, RuntimeError, ImportError)  # LinAlgError is a ValueError
_NUMBER = re.compile(r"[0-9][0-9,.e+-]*")


@dataclass(frozen=True)
class Failure:
    """A combiner that could not be fitted somewhere: it is left out of the board, and this says why."""

    combiner: str
    left_out: int | str  # the fold or cell line left out, or "final"
    error: str  # kind and message

    def __str__(self) -> str:
        where = "on all development rows" if self.left_out == FINAL else f"without {self.left_out}"
        return f"{self.combiner} could not be fitted {where}: {self.error}"


@dataclass(frozen=True)
class NestedFits:
    """Per combiner the fits that left one fold (or cell line) out, and the final one.

    Combiners that failed anywhere are only in ``failures``.
    """

    combiners: tuple[Combiner, ...]
    left: Left
    fits: Mapping[str, Mapping[Any, FittedCombiner]]  # name -> {fold or cell line: fit without it}
    final: Mapping[str, FittedCombiner]
    failures: tuple[Failure, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.combiners)

    def combiner(self, name: str) -> Combiner:
        """The combiner of this name."""
        return next(c for c in self.combiners if c.name == name)

    def combines(self, *, without: Sequence[str] = ("no_change",)) -> dict[str, Any]:
        """For ``reduce.score`` on out-of-fold rows: each row meets the fit that never saw its fold (or cell line).

        ``no_change`` is left out by default, because ``score`` adds it itself.
        """
        names = [n for n in self.names if n not in without]
        if self.left == "fold":
            return {n: dict(self.fits[n]) for n in names}
        return {n: _by_cell_line(self.fits[n]) for n in names}

    def final_combines(self, *, without: Sequence[str] = ("no_change",)) -> dict[str, Combine]:
        """For ``reduce.score`` on the held-out test: the final fits. On development rows these are in-sample."""
        return {n: self.final[n] for n in self.names if n not in without}

    def cautions(self) -> dict[str, tuple[str, ...]]:
        """Cautions of each combiner's final and nested fits; those that differ in numbers alone are given once."""
        found = {}
        for name in self.names:
            fits = [self.final[name], *self.fits[name].values()]
            alike: dict[str, list[str]] = {}
            for fit in fits:
                for text in dict.fromkeys(fit.cautions):
                    alike.setdefault(_NUMBER.sub("#", text), []).append(text)
            found[name] = tuple(
                texts[0] if len(set(texts)) == 1 else f"{texts[0]} ({len(texts)} of {len(fits)} fits, numbers differ.)"
                for texts in alike.values()
            )
        return found


def fit_nested(
    combiners: Sequence[str | Combiner] | None,
    reduction: Reduction,
    *,
    source: BlockSource | None = None,
    references: References | None = None,
    reference: Reference = "pooled",
    primary: str = "r2_top20@pooled",
    seed: int = 0,
    left: Left = "fold",
    level_one: Mapping[int, tuple[Reduction, BlockSource]] | None = None,
    on_done: Callable[[str], None] | None = None,
) -> NestedFits:
    """Fit every combiner without each fold (or each cell line), and once on everything.

    Parameters
    ----------
    combiners : names or combiners; None for the default ones. The references of every board are added.
    reduction : development rows only; a test block is refused.
    source, references : for combiners that read rows; they only touch the blocks of their evidence.
    reference : what weights are learned against; "own" learns the noise of the shared control too.
    primary : metric that combiners choose by, if they do.
    seed : of combiners that draw.
    left : "fold", or "cell_line" for how well weights carry over to a line never seen.
    level_one : per fold, the level-one rows for scoring it: predictions of the other folds by base models that never
        saw it. Without them the nesting is partial: base models behind the other folds' rows saw the scored fold,
        and flexible weights can read its means out of them (Varma and Simon 2006; methods F11).
    on_done : called with a combiner's name after each of its fits, for progress.

    Raises
    ------
    InputError
        Fewer than two folds (cell lines): nothing can be left out. Genes that no model predicts anywhere.
    UnknownNameError
        A combiner that does not exist.
    """
    chosen = make_combiners(combiners)
    if reference not in ("pooled", "own"):
        raise InputError(f"Weights are learned against the reference 'pooled' or 'own'; {reference!r} is neither.")
    test = [b for b in reduction.gene if b.role == "test"]
    if test:
        raise InputError(f"Combiners learn from development rows; the reduction holds the test block {test[0]}.")
    keys = _left_out(reduction, left)
    _refuse_genes_without_model(reduction, source)
    fits: dict[str, dict[Any, FittedCombiner]] = {c.name: {} for c in chosen}
    final: dict[str, FittedCombiner] = {}
    failures: list[Failure] = []
    fully = left == "fold" and level_one is not None
    for key in [*keys, FINAL]:
        plain = Evidence(
            _without(reduction, left, key, keys), reference, primary, seed=seed, source=source, references=references
        )
        nested = _level_one(level_one, key, plain) if fully and key != FINAL else plain
        for combiner in chosen:
            evidence = nested if combiner.family in FLEXIBLE else plain
            fitted = _fit(combiner, evidence, key, failures)
            if fitted is not None and key == FINAL:
                final[combiner.name] = fitted
            elif fitted is not None:
                fits[combiner.name][key] = fitted
            if on_done is not None:
                on_done(combiner.name)
    failed = {f.combiner for f in failures}
    kept = tuple(c for c in chosen if c.name not in failed)
    return NestedFits(
        kept,
        left,
        {c.name: fits[c.name] for c in kept},
        final={c.name: final[c.name] for c in kept},
        failures=tuple(failures),
        settings={"reference": reference, "primary": primary, "seed": seed, "nesting": "full" if fully else "partial"},
    )


def _level_one(level_one: Mapping[int, tuple[Reduction, BlockSource]] | None, fold: int, plain: Evidence) -> Evidence:
    """Evidence for scoring a fold from base models that never saw it."""
    assert level_one is not None
    rows, source = level_one[fold]
    held = [b for b in rows.gene if b.fold == fold or b.role == "test"]
    if held:
        raise LeakError(f"The level-one rows for scoring fold {fold} hold block {held[0]}, which it is scored on.")
    return replace(plain, reduction=rows, source=source)


def _fit(combiner: Combiner, evidence: Evidence, key: Any, failures: list[Failure]) -> FittedCombiner | None:
    try:
        return combiner.fit(evidence)
    except _EXPECTED as error:
        failures.append(Failure(combiner.name, key, f"{type(error).__name__}: {error}"))
        return None


def _refuse_genes_without_model(reduction: Reduction, source: BlockSource | None) -> None:
    """A gene that no model predicts leaves every sample without a whole profile, hence without a score."""
    if source is None:
        return
    known = np.zeros(reduction.n_genes, dtype=bool)
    for block in reduction.blocks:
        for model in reduction.models:
            known |= source.genes_of(block, model)
    if not known.all():
        lost = [str(g) for g in np.asarray(reduction.gene_names)[~known]]
        raise InputError(
            f"No model predicts {len(lost):,} of {reduction.n_genes:,} genes ({first_few(lost)}), so no combination "
            f"has a whole profile to be scored. Leave these genes out of the data, or add a model that predicts them."
        )


def _left_out(reduction: Reduction, left: Left) -> list[Any]:
    if left == "fold":
        keys: list[Any] = sorted({b.fold for b in reduction.gene if b.fold is not None})
    elif left == "cell_line":
        keys = sorted({b.cell_line for b in reduction.gene})
    else:
        raise InputError(f"left is {left!r}; leave out one 'fold' or one 'cell_line' at a time.")
    if len(keys) < 2:
        raise InputError(
            f"There is only one {left.replace('_', ' ')} ({keys[0] if keys else 'none'}): without a second, no weights "
            f"can be scored on rows they were not learned from. Make the fold plan with at least 2 folds."
        )
    return keys


def _without(reduction: Reduction, left: Left, key: Any, keys: Sequence[Any]) -> Reduction:
    if key == FINAL:
        return reduction
    rest = [k for k in keys if k != key]
    return reduction.select(folds=rest) if left == "fold" else reduction.select(cell_lines=rest)


def _by_cell_line(fits: Mapping[Any, FittedCombiner]) -> Combine:
    def combine(tile: Tile) -> Float32:
        return fits[tile.block.cell_line].combine(tile)

    return combine
