"""One split's scores as the verdict reads them: the deciding metric found once, the best single model named once.

Out-of-fold rows and held-out test are two readings of the same kind; what is said of them is in ``judge.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pertstack._base.arrays import Array
from pertstack._base.errors import InputError
from pertstack._stats.estimate import Difference
from pertstack.design.metric_names import direction, need_metric
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.verdict.boards.rows import Split
from pertstack.verdict.setting import Resampling, Setting
from pertstack.verdict.several import Scores
from pertstack.verdict.views import nan_mean


@dataclass(frozen=True, eq=False)
class Reading:
    """Scores of one split with what is known beside them.

    Parameters
    ----------
    split : which rows were scored, "oof" or "test".
    table : the scores, one row per sample; ``samples`` has columns group (what is resampled), cell_line, perturbation.
    setting : kinds of the rows, the deciding metric, what was chosen.
    resampling : makes the intervals.
    """

    split: Split
    table: ScoreTable
    setting: Setting
    resampling: Resampling

    @cached_property
    def primary(self) -> str:
        """The deciding metric as the table spells it; UnknownNameError if it was not computed."""
        return need_metric(self.table.metrics, self.setting.primary)

    @cached_property
    def sign(self) -> int:
        """1 if more of the deciding metric is better, -1 for errors."""
        return direction(self.primary)

    @cached_property
    def values(self) -> Array:
        """(n_names, n) float64 values of the deciding metric; NaN where undefined."""
        return self.matrix(self.primary)

    @cached_property
    def groups(self) -> Array:
        """(n,) group of every sample; whole groups are resampled."""
        groups: Array = self.table.samples["group"].to_numpy()
        return groups

    @cached_property
    def at(self) -> dict[str, int]:
        """Name -> its row in ``values``."""
        return {name: i for i, name in enumerate(self.table.names)}

    @cached_property
    def bases(self) -> Array:
        """(n_names,) mask of the base models."""
        return np.array([self.setting.kinds[name] == "base" for name in self.table.names])

    @cached_property
    def best(self) -> str:
        """The base model with the best mean; ties go to the first by name, so that the answer is always one."""
        kinds = self.setting.kinds
        means = {n: nan_mean(self.values[i]) for n, i in self.at.items() if kinds.get(n) == "base"}
        known = [(-self.sign * mean, name) for name, mean in means.items() if mean is not None]
        if not known:
            raise InputError(
                "No base model has a defined score on the primary metric, so there is no best single model to beat. "
                f"Scored names: {', '.join(self.table.names)}."
            )
        return min(known)[1]

    @cached_property
    def n_groups(self) -> int:
        """Groups with a sample on which anyone has a score on the deciding metric: what is resampled."""
        scored = np.flatnonzero(np.isfinite(self.values).any(axis=0))
        return int(self.table.samples["group"].iloc[scored].nunique())

    @property
    def n_sharing(self) -> int:
        """Of these, the ones that share a part with another, so that they vary together and intervals are wider."""
        return self.resampling.sharing(self.groups[np.isfinite(self.values).any(axis=0)])

    @property
    def scores(self) -> Scores:
        """The deciding metric of everyone, to be asked about all at once."""
        return Scores(self.table.names, self.setting.kinds, self.values, groups=self.groups, sign=self.sign)

    def matrix(self, metric: str) -> Array:
        """(n_names, n) float64 values of a metric of the table; NaN where undefined."""
        values: Array = self.table.values_by_name[:, self.table.metrics.index(metric)].astype(np.float64)
        return values

    def between(self, first: str, second: str) -> Difference:
        """The paired difference of two names on the deciding metric."""
        return self.resampling.compare(self.values[self.at[first]], self.values[self.at[second]], self.groups)
