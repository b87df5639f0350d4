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
from pertstack.data.readers.vehicles import controls_of_other_times


@dataclass(frozen=True)
class Serving:
    """Which control groups serve which sample: ``pools[of_sample[i]]`` are those of sample i."""

    pools: list[Int64]  # groups of control cells
    of_sample: Int64  # (n_samples,)
    ids: list[str]  # (n_samples,) control ids
    cells: list[int]  # control cells of each pool
    names: list[str]  # of the pools
    fallen: list[str]  # batches without control cells
    other_times: list[str]  # places and times of samples whose controls are all of other times
    by_batch: bool
    by_time: bool

    @classmethod
    def find(cls, groups: Groups, kept: Int64, sources: Sources, *, by_batch: bool, where: str) -> Serving:
        """Control cells of the cell line and batch of every group, else of its cell line; of these, those of its time
        if there are some.

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
        own = np.array(["|".join(row) for row in table[sources.place].to_numpy(dtype=object)], dtype=object)
        times = None if sources.time is None else table[sources.time].to_numpy(dtype=object)
        controls = np.arange(groups.n_samples, groups.n_groups)
        lacking = sorted({str(line) for line in lines[kept]} - {str(line) for line in lines[controls]})
        if lacking:
            raise InputError(
                f"{where}: {len(lacking):,} cell lines have perturbed cells and no control cell: {first_few(lacking)}. "
                f"Without a control there is no change to predict. Leave these lines out, or name the control with "
                f"--control-label NAME."
            )
        batched = by_batch and sources.place != [sources.cell_line]
        of_own = {str(name): controls[own[controls] == name] for name in set(own[controls])} if batched else {}
        of_line = {str(line): controls[lines[controls] == line] for line in set(lines[controls])}
        pools: dict[str, Int64] = {}
        fallen, others, ids = set(), [], []
        for g in kept:
            name, line = str(own[g]), str(lines[g])
            pool = of_own.get(name)
            if pool is None:
                if batched:
                    fallen.add(name)
                name, pool = f"{line}: whole line" if batched else line, of_line[line]
            if times is not None:
                same = pool[times[pool] == times[g]]
                if not len(same) and times[g] and (times[pool] != "").all():
                    others.append(f"{name} at {times[g]}")
                elif 0 < len(same) < len(pool):
                    name, pool = f"{name} at {times[g]}", same
            pools.setdefault(name, pool)
            ids.append(name)
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
            other_times=others,
            by_batch=batched,
            by_time=times is not None,
        )

    @property
    def reference(self) -> str:
        unit = "cell line and batch" if self.by_batch else "cell line"
        return f"control cells of the {unit}{', at the time of the sample if there are some' if self.by_time else ''}"

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
        if self.other_times:
            found.append(controls_of_other_times(self.other_times, len(self.of_sample), "control cells", where=""))
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
