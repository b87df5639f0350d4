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
from pertstack.data.readers.vehicles import Key, at_time, control_pools, other_times, where_placed


@dataclass(frozen=True)
class Serving:
    """Which control groups serve which sample: ``pools[of_sample[i]]`` are those of sample i."""

    pools: list[Int64]  # groups of control cells
    of_sample: Int64  # (n_samples,)
    ids: list[str]  # (n_samples,) control ids
    cells: list[int]  # control cells of each pool
    names: list[str]  # of the pools
    fallen: list[str]  # batches without control cells
    other_times: list[Finding]  # of samples whose controls are all of other times
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
        beside = [c for c in sources.place if c != sources.cell_line]
        own = np.array(["|".join(row) for row in table[beside].to_numpy(dtype=object)], dtype=object)
        times = None
        if sources.time is not None:
            times = table[sources.time].replace("", None).to_numpy(dtype=object)
        controls = np.arange(groups.n_samples, groups.n_groups)
        lacking = sorted({str(line) for line in lines[kept]} - {str(line) for line in lines[controls]})
        if lacking:
            raise InputError(
                f"{where}: {len(lacking):,} cell lines have perturbed cells and no control cell: {first_few(lacking)}. "
                f"Without a control there is no change to predict. Leave these lines out, or name the control with "
                f"--control-label NAME."
            )
        batched = by_batch and sources.place != [sources.cell_line]
        pools = control_pools(controls, lines, own if batched else None, times)
        wanted, placed = where_placed(kept, pools, lines, own if batched else None)
        lost = np.array([key != on for key, on in zip(placed, wanted, strict=True)], dtype=bool)
        keys, others = placed, list[Finding]()
        if times is not None:
            keys = [at_time(key, at, pools) for key, at in zip(placed, times[kept], strict=True)]
            others = other_times(placed, pools, times, treated=kept, ids=own[kept], what="control cell", where=where)
        named = {key: _in_words(key, sources, batched) for key in set(keys)}
        ids = [named[key] for key in keys]
        of_name = {name: pools[key] for key, name in named.items()}
        names = sorted(of_name)
        at = {name: i for i, name in enumerate(names)}
        cells = [int(groups.size[of_name[name]].sum()) for name in names]
        index = np.array([at[i] for i in ids], dtype=np.int64)
        return cls(
            [of_name[n] for n in names],
            index,
            [f"{i}:control" for i in ids],
            cells=cells,
            names=names,
            fallen=sorted({"|".join(table[sources.place].iloc[g]) for g in kept[lost]}),
            other_times=others,
            by_batch=batched,
            by_time=times is not None,
        )

    @property
    def reference(self) -> str:
        unit = "cell line and batch" if self.by_batch else "cell line"
        return f"control cells of the {unit}{', at the time of the sample if there are some' if self.by_time else ''}"

    def notes(self, choice: CellChoice) -> list[Finding]:
        found = list(self.other_times)
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


def _in_words(key: Key, sources: Sources, batched: bool) -> str:
    line, beside, time = key
    if beside is None:
        place = f"{line}: whole line" if batched else str(line)
    else:
        place = str(beside) if sources.cell_line is None else "|".join([line, beside][: len(sources.place)])
    return place if time is None else f"{place} at {time}"
