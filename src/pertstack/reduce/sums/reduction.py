"""The reduction: what one pass over the predictions leaves, kept per block so that any set of folds or cell lines
can be seen alone.

A nested fit receives ``reduction.select(...)`` and can reach nothing else. Arrays are put together on request. How
they are made is handled by ``one_pass.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, unknown_name
from pertstack._base.findings import Finding
from pertstack.data.rows import Names
from pertstack.design.blocks import Block
from pertstack.design.metric_names import Reference
from pertstack.reduce.sums.block_sums import BlockPart
from pertstack.reduce.sums.moments import GeneMoments, merge_moments
from pertstack.reduce.sums.sample_moments import SampleMoments
from pertstack.reduce.sums.slices import TopSlices

K = TypeVar("K")
V = TypeVar("V")
Mask = np.ndarray[Any, np.dtype[np.bool_]]


class OnRequest(Mapping[K, V]):
    """A mapping whose values are made when asked for, once."""

    def __init__(self, keys: Iterable[K], make: Callable[[K], V]) -> None:
        self._keys, self._make, self._made = tuple(keys), make, dict[K, V]()

    def __getitem__(self, key: K) -> V:
        if key not in self._made:
            if key not in self._keys:
                raise unknown_name("entry", str(key), map(str, self._keys))
            self._made[key] = self._make(key)
        return self._made[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


@dataclass(frozen=True, eq=False)
class Reduction:
    """Gene moments per block, sample moments and top-gene slices per sample, in plan order.

    Rows that some model did not predict, or has seen, are in ``samples``, ``sample`` and ``slices`` (NaN for that
    model) but not in the gene moments; ``complete`` marks the others, and ``findings`` counts what was left out.
    """

    models: tuple[str, ...]
    gene_names: Names
    parts: Mapping[Block, BlockPart]  # in plan order
    tables: Mapping[Block, pd.DataFrame]  # sample_id, block, cell_line, fold, perturbation, group
    findings: tuple[Finding, ...] = field(default=())
    scratch: Path | None = None  # folder for what is put together of the parts and too large for memory

    def __repr__(self) -> str:
        return f"Reduction({self.n_models} models, {self.n_genes:,} genes, {len(self.samples):,} samples)"

    @property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(self.parts)

    @property
    def n_models(self) -> int:
        return len(self.models)

    @property
    def n_genes(self) -> int:
        return len(self.gene_names)

    @property
    def gene(self) -> Mapping[Block, GeneMoments]:
        """Gene moments of each block."""
        return OnRequest(self.parts, lambda block: self.parts[block].gene)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One line per row: sample_id, block, cell_line, fold, perturbation, group."""
        return pd.concat([self.tables[b] for b in self.parts], ignore_index=True)

    @cached_property
    def complete(self) -> Mask:
        """(n,) rows that every model predicted without having seen them."""
        return np.concatenate([p.complete for p in self.parts.values()])

    @cached_property
    def sample(self) -> SampleMoments:
        """Sample moments of all rows."""
        parts = [p.sample for p in self.parts.values()]
        mean, triangle = (np.concatenate([getattr(p, f) for p in parts]) for f in ("mean", "triangle"))
        return SampleMoments(self.n_genes, mean, triangle)

    @cached_property
    def slices(self) -> Mapping[Reference, TopSlices]:
        """Top-gene slices of all rows, per reference; each put together when first asked for."""
        parts = list(self.parts.values())
        return OnRequest(parts[0].slices, lambda r: TopSlices.concatenate([p.slices[r] for p in parts], self.scratch))

    def moments(self) -> GeneMoments:
        """Gene moments merged over the blocks, in plan order."""
        return merge_moments((p.gene for p in self.parts.values()), self.n_genes, self.n_models)

    def select(
        self,
        *,
        folds: Iterable[int] | None = None,
        cell_lines: Iterable[str] | None = None,
        blocks: Iterable[Block] | None = None,
    ) -> Reduction:
        """The part of the reduction that meets every condition given; nothing is copied.

        Parameters
        ----------
        folds, cell_lines, blocks : to keep; None for all.

        Raises
        ------
        UnknownNameError
            A fold, cell line or block that is not here.
        InputError
            No block is left.
        """
        known: dict[str, set[Any]] = {
            "fold": {b.fold for b in self.parts},
            "cell line": {b.cell_line for b in self.parts},
            "block": set(self.parts),
        }
        wanted: dict[str, set[Any] | None] = {}
        for kind, values in (("fold", folds), ("cell line", cell_lines), ("block", blocks)):
            wanted[kind] = None if values is None else set(values)
            for value in wanted[kind] or ():
                if value not in known[kind]:
                    raise unknown_name(kind, str(value), map(str, known[kind]))
        kept = {
            b: p
            for b, p in self.parts.items()
            if _in(b.fold, wanted["fold"]) and _in(b.cell_line, wanted["cell line"]) and _in(b, wanted["block"])
        }
        if not kept:
            raise InputError(
                "No block is in all of the chosen folds, cell lines and blocks. Choose at least one that is."
            )
        mine = tuple(f for f in self.findings if not f.where or f.where in {b.id for b in kept})
        tables = {b: self.tables[b] for b in kept}
        return replace(self, parts=kept, tables=tables, findings=mine)

    def save(self, folder: Path) -> None:
        """Write everything to a folder; see ``reduction_files.py``."""
        from pertstack.reduce.sums.reduction_files import save_reduction

        save_reduction(self, Path(folder))

    @classmethod
    def load(cls, folder: Path) -> Reduction:
        """Read what ``save`` wrote; arrays stay on disk until used."""
        from pertstack.reduce.sums.reduction_files import load_reduction

        return load_reduction(Path(folder))


def _in(value: Any, wanted: set[Any] | None) -> bool:
    return wanted is None or value in wanted
