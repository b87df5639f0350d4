"""Evidence: exactly what a combiner may learn from, already restricted to the rows it may see.

``nested.py`` makes one evidence per scored fold (without that fold) and one for the final fit; combiners share what is
computed from it. Inner splits, for penalties and strengths, are taken inside the evidence only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pertstack.stacking.single_scores import SingleScores, score_singles
from pertstack.stacking.sums import Reference, Sums, merge_sums, merge_within, regression_sums

if TYPE_CHECKING:
    from pertstack.design.blocks import Block
    from pertstack.predictions.source import BlockSource
    from pertstack.reduce.references import References
    from pertstack.reduce.sums.reduction import Reduction


@dataclass(frozen=True, eq=False)
class Evidence:
    """A reduction restricted to visible blocks, and how to look at it.

    ``source`` and ``references`` are there for combiners that need rows; they must read only ``blocks``.
    """

    reduction: Reduction
    reference: Reference = "pooled"
    primary: str = "r2_top20@pooled"
    seed: int = 0
    source: BlockSource | None = None
    references: References | None = None

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self.reduction.models)

    @property
    def gene_names(self) -> tuple[str, ...]:
        return tuple(str(g) for g in self.reduction.gene_names)

    @property
    def n_models(self) -> int:
        return len(self.models)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Visible blocks in their fixed order."""
        return tuple(sorted(self.reduction.blocks))

    @cached_property
    def folds(self) -> tuple[int, ...]:
        """Visible folds, ascending."""
        return tuple(sorted({b.fold for b in self.blocks if b.fold is not None}))

    @cached_property
    def cell_lines(self) -> tuple[str, ...]:
        return tuple(sorted({b.cell_line for b in self.blocks}))

    @cached_property
    def cautions(self) -> tuple[str, ...]:
        """What every combiner that learns from these sums should say: rows and genes some models did not predict."""
        said = [f.message for f in self.reduction.findings if f.severity != "note"]
        more = f" (and {len(said) - 1:,} more findings of this kind in the reduction)" if len(said) > 1 else ""
        return (f"{said[0]}{more}",) if said else ()

    @cached_property
    def fold_sums(self) -> dict[int, Sums]:
        """Sums of each visible fold."""
        return {k: self._over([b for b in self.blocks if b.fold == k]) for k in self.folds}

    @cached_property
    def line_sums(self) -> dict[str, Sums]:
        """Sums of each visible cell line."""
        found = {line: [b for b in self.blocks if b.cell_line == line] for line in self.cell_lines}
        return {line: self._over(blocks) for line, blocks in found.items() if blocks}

    @cached_property
    def line_fold_sums(self) -> dict[tuple[str, int], Sums]:
        """Sums of each visible cell line and fold that has rows."""
        found: dict[tuple[str, int], list[Block]] = {}
        for b in self.blocks:
            if b.fold is not None:
                found.setdefault((b.cell_line, b.fold), []).append(b)
        return {key: self._over(blocks) for key, blocks in found.items()}

    @cached_property
    def sums(self) -> Sums:
        """Sums of all visible rows."""
        return merge_sums([self.fold_sums[k] for k in self.folds])

    def sums_against(self, reference: Reference) -> Sums:
        """Sums of all visible rows from another reference than the evidence's own."""
        if reference == self.reference:
            return self.sums
        return merge_sums([regression_sums(self.reduction.gene[b], reference) for b in self.blocks])

    @cached_property
    def inner_splits(self) -> list[tuple[Sums, Sums]]:
        """(learn on, judge on) pairs for inner choices: leave one fold out, else one cell line, else none."""
        parts = list(self.fold_sums.values()) if len(self.folds) > 1 else list(self.line_sums.values())
        if len(parts) < 2:
            return []
        return [(merge_sums([p for j, p in enumerate(parts) if j != i]), held) for i, held in enumerate(parts)]

    @cached_property
    def within(self) -> Sums:
        """Sums of all visible rows, centred within folds: for slopes that come with an intercept per gene."""
        return merge_within(list(self.fold_sums.values()))

    @cached_property
    def splits_within(self) -> list[tuple[Sums, Sums]]:
        """As ``inner_splits``, what is learned on being centred within folds."""
        if len(self.folds) < 2:
            return self.inner_splits
        parts = list(self.fold_sums.values())
        return [(merge_within([p for j, p in enumerate(parts) if j != i]), held) for i, held in enumerate(parts)]

    @cached_property
    def ranking(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(n_genes, M) models from smallest to largest squared error per gene; unavailable ones last, ties by
        position."""
        errors = np.einsum("gmm->gm", self.sums.error_gram()).copy()
        totals = np.where(self.sums.available, errors, 0.0).sum(axis=0)
        unseen = np.asarray(self.sums.count == 0)
        errors[unseen] = totals
        errors = np.where(self.sums.available | unseen[:, None], errors, np.inf)
        return np.asarray(np.argsort(errors, axis=1, kind="stable"))

    @cached_property
    def singles(self) -> SingleScores:
        """Score of every base model alone on the primary metric."""
        return score_singles(self.reduction, self.primary, self.sums, source=self.source, references=self.references)

    def _over(self, blocks: Sequence[Block]) -> Sums:
        return merge_sums([regression_sums(self.reduction.gene[b], self.reference) for b in blocks])
