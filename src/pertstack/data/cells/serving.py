"""Which control cells serve a group of treated ones, and how that is said."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pertstack._base.errors import InputError, first_few
from pertstack._base.findings import Finding
from pertstack._base.reading.tables import as_texts
from pertstack.data.cells.choice import CellChoice
from pertstack.data.cells.entries import Int64
from pertstack.data.cells.groups import ONE_LINE, Groups, Sources


@dataclass(frozen=True)
class Serving:
    """Which control groups serve which sample: ``pools[of_sample[i]]`` are those of sample i."""

    pools: list[Int64]  # groups of control cells
    of_sample: Int64  # (n_samples,)
    ids: list[str]  # (n_samples,) control ids
    cells: list[int]  # control cells of each pool
    names: list[str]  # of the pools
    fallen: list[str]  # batches without control cells
    by_batch: bool

    @classmethod
    def find(cls, groups: Groups, kept: Int64, sources: Sources, *, by_batch: bool, where: str) -> Serving:
        """Control cells of the cell line and batch of every group, else of its cell line.

        Parameters
        ----------
        groups : groups of cells, those of control cells last.
        kept : groups that become samples.
        sources : which columns say what.
        by_batch : whether batches have controls of their own.
        where : the file, for messages.

        Raises
        ------
        InputError
            A cell line has no control cell.
        """
        table = as_texts(groups.obs[sources.context]).apply(lambda c: c.str.strip())
        lines = table[sources.cell_line].to_numpy(dtype=object) if sources.cell_line else np.full(len(table), ONE_LINE)
        own = np.array(["|".join(row) for row in table.to_numpy(dtype=object)], dtype=object)
        controls = np.arange(groups.n_samples, groups.n_groups)
        lacking = sorted({str(line) for line in lines[kept]} - {str(line) for line in lines[controls]})
        if lacking:
            raise InputError(
                f"{where}: {len(lacking):,} cell lines have perturbed cells and no control cell: {first_few(lacking)}. "
                f"Without a control there is no change to predict. Leave these lines out, or name the control with "
                f"--control-label NAME."
            )
        batched = by_batch and sources.context != [sources.cell_line]
        of_own = {str(own[g]): g for g in controls} if batched else {}
        pools: dict[str, Int64] = {}
        fallen, ids = set(), []
        for g in kept:
            name, line = str(own[g]), str(lines[g])
            if name in of_own:
                pools.setdefault(name, np.array([of_own[name]]))
                ids.append(name)
            else:
                if batched:
                    fallen.add(name)
                pools.setdefault(f"{line}: whole line" if batched else line, controls[lines[controls] == line])
                ids.append(f"{line}: whole line" if batched else line)
        names = sorted(pools)
        at = {name: i for i, name in enumerate(names)}
        cells = [int(groups.size[pools[name]].sum()) for name in names]
        index = np.array([at[i] for i in ids], dtype=np.int64)
        return cls(
            [pools[n] for n in names],
            index,
            [f"{i}:control" for i in ids],
            cells=cells,
            names=names,
            fallen=sorted(fallen),
            by_batch=batched,
        )

    @property
    def reference(self) -> str:
        unit = "cell line and batch" if self.by_batch else "cell line"
        return f"control cells of the {unit}"

    def notes(self, choice: CellChoice) -> list[Finding]:
        found = []
        if self.fallen:
            found.append(
                Finding(
                    "warning",
                    "controls_from_other_plates",
                    f"{len(self.fallen):,} batches have no control cells: {first_few(self.fallen)}. Their "
                    f"samples are compared with the control cells of the whole cell line, so what is particular to the "
                    f"batch looks like an effect.",
                    count=len(self.fallen),
                    examples=tuple(self.fallen[:10]),
                )
            )
        small = [n for n, c in zip(self.names, self.cells, strict=True) if c < choice.min_cells]
        if small:
            found.append(
                Finding(
                    "warning",
                    "few_control_cells",
                    f"{len(small):,} controls are made of fewer than {choice.min_cells} cells: {first_few(small)}. "
                    f"Their noise is in every sample they serve; --controls line_mean takes the whole cell line's.",
                    count=len(small),
                    examples=tuple(small[:10]),
                )
            )
        return found
