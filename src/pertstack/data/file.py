"""A data file as everyone else sees it: samples with canonical metadata, genes, and rows read when they are needed.

Nothing here loads a whole matrix. Who reads which format is in ``readers/``; what is wrong
with the values is found by ``data/checks/validate.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.findings import Finding
from pertstack._base.reading.damage import damage_named
from pertstack.data.readers.matrices import Float32, Positions, RowSource, SubsetRows, take

if TYPE_CHECKING:
    from pertstack.data.card import Card
    from pertstack.data.checks.validate import Examination


@dataclass(frozen=True)
class Chunk:
    """Rows start..stop of a data file, float32 (n_rows, n_genes)."""

    start: int
    stop: int
    control: Float32
    treated: Float32
    effect: Float32 | None = None  # noise-free treated minus true basal, where a simulation wrote it
    halves: tuple[Float32, Float32] | None = None  # treated, of two disjoint halves of the cells

    @property
    def delta(self) -> Float32:
        """treated - control."""
        return self.treated - self.control


@dataclass
class DataFile:
    """Treated profiles, the control given with each, and what is known about every sample.

    ``obs`` has one row per sample (index: sample ids, str) with canonical columns (see ``columns.py``) followed by the
    source's own. ``control`` is zero for differential data (``delta=True``), so treated and delta coincide.
    """

    path: str
    obs: pd.DataFrame
    var: pd.DataFrame  # index: gene names
    treated: RowSource
    control: RowSource
    effect: RowSource | None = None
    halves: tuple[RowSource, RowSource] | None = None  # treated profiles of two disjoint halves of each sample's cells
    delta: bool = False
    control_reference: str = ""  # which layer, file or wells the control came from
    source_dtype: str = "float32"
    uns_reader: Callable[[], dict[str, Any]] | None = None
    notes: list[Finding] = field(default_factory=list)  # found while reading
    made: str = ""  # how samples were made of cells, in words; empty if rows of the file are samples
    counts_meant: bool = False  # values are sums of counts because the user asked for them
    cells: pd.Series[Any] | None = None  # sample id by name of the cell (None: of no sample), if cells were summed
    beside: Mapping[str, Path] = field(default_factory=dict)  # files of what is known of its perturbations, by kind

    def __post_init__(self) -> None:
        shape = (len(self.obs), len(self.var))
        for name, source in (("treated", self.treated), ("control", self.control), ("effect", self.effect)):
            if source is not None and tuple(source.shape) != shape:
                raise InputError(
                    f"{self.path}: the {name} values have shape {tuple(source.shape)}, but the metadata describe "
                    f"{shape[0]:,} samples x {shape[1]:,} genes. The file is incomplete or two files were mixed."
                )

    @property
    def n_samples(self) -> int:
        return len(self.obs)

    @property
    def n_genes(self) -> int:
        return len(self.var)

    @cached_property
    def gene_names(self) -> np.ndarray[Any, np.dtype[Any]]:
        """(n_genes,) str, in the order of the columns."""
        return np.array([str(g) for g in self.var.index], dtype=object)

    @property
    def sample_ids(self) -> np.ndarray[Any, np.dtype[Any]]:
        return np.asarray(self.obs.index, dtype=object)

    @property
    def has_effect(self) -> bool:
        """Whether the noise-free effect is known (simulated data)."""
        return self.effect is not None

    @cached_property
    def uns(self) -> dict[str, Any]:
        """Unstructured extras of the file (targets, gene graph), read on first use; {} if there are none."""
        return self.uns_reader() if self.uns_reader is not None else {}

    @cached_property
    def examination(self) -> Examination:
        """What one pass over the values found: findings and card. Kept, so the pass is made once."""
        from pertstack.data.checks.validate import examine

        return examine(self)

    @property
    def card(self) -> Card:
        """The preprocessing card; the first use reads the whole file once, in chunks."""
        return self.examination.card

    def chunks(self, rows: int = 512, *, halves: bool = False) -> Iterator[Chunk]:
        """The file from front to end, ``rows`` samples at a time; with the halves of each sample's cells, if asked."""
        for start in range(0, self.n_samples, rows):
            stop = min(start + rows, self.n_samples)
            with damage_named(self.path):
                effect = None if self.effect is None else self.effect.rows(start, stop)
                parts = self.halves if halves else None
                found = None if parts is None else (parts[0].rows(start, stop), parts[1].rows(start, stop))
                control, treated = self.control.rows(start, stop), self.treated.rows(start, stop)
            yield Chunk(start, stop, control, treated=treated, effect=effect, halves=found)

    def read(self, rows: Sequence[int] | Positions | slice) -> tuple[Float32, Float32]:
        """(control, treated) of chosen rows, each (n, n_genes) float32, in the order asked for.

        ``rows`` are integer positions, a boolean mask or a slice; for sample ids see ``positions``.
        """
        at = self._positions(rows)
        with damage_named(self.path):
            return take(self.control, at), take(self.treated, at)

    def read_control(self, rows: Sequence[int] | Positions | slice) -> Float32:
        """Controls alone, for code that must not touch the treated values."""
        at = self._positions(rows)
        with damage_named(self.path):
            return take(self.control, at)

    def only(self, sample_ids: Sequence[str], notes: Sequence[Finding] = ()) -> DataFile:
        """The file with some of its samples, and more notes; the values are read from where they are."""
        at = self.positions(sample_ids)
        treated, control = SubsetRows(self.treated, at), SubsetRows(self.control, at)
        effect = None if self.effect is None else SubsetRows(self.effect, at)
        a, b = self.halves or (None, None)
        halves = None if a is None or b is None else (SubsetRows(a, at), SubsetRows(b, at))
        return replace(
            self,
            obs=self.obs.iloc[at],
            treated=treated,
            control=control,
            effect=effect,
            halves=halves,
            notes=[*self.notes, *notes],
        )

    def positions(self, sample_ids: Iterable[str]) -> Positions:
        """Row positions of sample ids; InputError names ids the file does not have."""
        wanted = [str(s) for s in sample_ids]
        at = self.obs.index.get_indexer(pd.Index(wanted, dtype=object))
        if (at < 0).any():
            missing = [w for w, i in zip(wanted, at, strict=True) if i < 0]
            raise InputError(
                f"{self.path} has no sample {first_few(missing)} ({len(missing):,} of {len(wanted):,} asked for). "
                f"Its ids look like {first_few(self.obs.index[:3])}."
            )
        return np.asarray(at, dtype=np.int64)

    def _positions(self, rows: Sequence[int] | Positions | slice) -> Positions:
        if isinstance(rows, slice):
            return np.arange(self.n_samples, dtype=np.int64)[rows]
        at = np.asarray(rows)
        if at.dtype == bool:
            if len(at) != self.n_samples:
                raise InputError(f"A mask of {len(at):,} values does not fit {self.n_samples:,} samples.")
            return np.flatnonzero(at).astype(np.int64)
        at = at.astype(np.int64)
        if len(at) and (at.min() < -self.n_samples or at.max() >= self.n_samples):
            raise InputError(f"Row positions {at.min()}..{at.max()} lie outside 0..{self.n_samples - 1}.")
        return np.where(at < 0, at + self.n_samples, at)
