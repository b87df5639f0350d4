"""What the judge is handed beside the scores: what the study knows, and how intervals are made.

Facts and a protocol only; they are put to use through ``reading.py``, and ``resampling.py`` draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import pandas as pd

from pertstack._base.arrays import Array
from pertstack._stats.estimate import Difference
from pertstack._stats.shared_parts import Parts
from pertstack.design.blocks import SUPPORT
from pertstack.design.plan.groups import apart
from pertstack.design.plan.known import known_levels
from pertstack.verdict.boards.rows import Kind
from pertstack.verdict.several import SeveralResampling

BEST_SINGLE = "best_single"
"""The reference that picks the best base model on the rows it may learn from (``best_single.py``)."""
NO_DRUG = (
    "no_change",
    "mean_shift",
    "mean_shift_cell_line",
    "mean_treated",
    "mean_treated_cell_line",
    "per_gene_linear",
)
"""Base models that never see the perturbation; the best of them is the floor of the scaled score."""
FEW_GROUPS = 20
"""Below this many groups an interval is called a rough guide."""


class Resampling(SeveralResampling, Protocol):
    """How intervals are made: whole groups are drawn, never single samples."""

    @property
    def facts(self) -> dict[str, Any]:
        """level, resamples, method: printed under the table."""
        ...

    def sharing(self, groups: Array) -> int:
        """How many of the groups (n,) are combinations that share a part with another, which intervals count."""
        ...

    def intervals(self, values: Array, groups: Array) -> list[tuple[float, float] | None]:
        """One interval per row of ``values`` (n_names, n) for its mean over valid samples."""
        ...

    def compare(self, first: Array, second: Array, groups: Array) -> Difference:
        """Paired difference of two rows over the samples on which both are defined.

        Parameters
        ----------
        first, second : (n,) scores per sample, NaN where undefined.
        groups : (n,), resampled whole.
        """
        ...

    def differences(self, values: Array, second: Array, groups: Array) -> list[Difference]:
        """Paired differences of every row to one.

        Parameters
        ----------
        values : (n_names, n) scores per sample, NaN where undefined.
        second : (n,).
        groups : (n,), resampled whole.
        """
        ...

    def versus_best(self, values: Array, candidates: Array, groups: Array, *, sign: int) -> list[Difference]:
        """Every row minus the best candidate, whichever of them that is; bounds hold against all of them.

        Parameters
        ----------
        values : (n_names, n) scores per sample, NaN where undefined.
        candidates : (n_names,) mask.
        groups : (n,), resampled whole.
        sign : 1 where more is better, -1 for errors.
        """
        ...


@dataclass(frozen=True)
class Setting:
    """What the study knows and the scores do not say.

    ``kinds`` maps every scored name to base / combiner / reference / ceiling. ``fitted`` lists the perturbations of the
    fit rows by fold (``design.plan.known``; None: not known). ``no_drug`` names baselines that never see the
    perturbation; ``replicate`` names the replicate predictor if there is one.
    """

    kinds: Mapping[str, Kind]
    primary: str = "r2_top20@pooled"
    chosen: str | None = None
    unit: str = "perturbation"
    plan_digest: str = ""
    test_looks: int = 0
    exploratory: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
    cautions: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by row name
    fitted: Mapping[int, tuple[str, ...]] | None = None
    no_drug: tuple[str, ...] = NO_DRUG
    replicate: str | None = "replicate"
    alone: str | None = None  # the base model that ships when ``chosen`` is the reference best_single
    planned_looks: int = 1
    accused: Mapping[str, Sequence[str]] = field(default_factory=dict)  # model of the stack -> what a probe says of it
    accused_gravely: frozenset[str] = frozenset()  # of these, the ones a probe accuses with severity "error"
    simulated: bool = False
    metric_doubt: str = ""  # why the deciding metric may not be able to decide; empty if it is calibrated
    evaluated: bool = False  # predictions of a test that the user had: nothing was held out, learned or chosen by us
    refused: tuple[str, ...] = ()  # models that were not stacked because a probe accuses them
    accepted: tuple[str, ...] = ()  # accused models that were stacked all the same, by name
    parts: Parts | None = None  # of groups that share some (``design.plan.groups.shared_parts``); not in older files
    no_vote: tuple[str, ...] = ()  # metrics that contradict no gain, settled by the stack step; not in older files
    between_named: bool = False  # what ships is settled between what was named before the test; not in older files
    constants: tuple[str, ...] = ()  # base models found to say the same for every perturbation; not in older files
    unproven: bool = False  # the chosen combination ships without a proven gain: by the rule safe_gain

    def known_levels(self, samples: pd.DataFrame) -> dict[str, list[str]]:
        """What was known of each row of a score table when it was predicted, by view; ``fitted`` must be known."""
        fitted = self.fitted or {}
        return known_levels(samples["perturbation"], samples["fold"], fitted, apart=apart(self.unit))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: with the scores, all that a verdict is derived from."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("parts", "no_vote", "constants", "between_named"):
            if not plain[name]:
                del plain[name]
        return {"format": 1, **{k: _plain(v) for k, v in plain.items()}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Setting:
        """What ``to_json`` gave."""
        known = {k: v for k, v in value.items() if k != "format"}
        for name in ("cautions", "accused", *(["parts"] if "parts" in known else [])):
            known[name] = {k: tuple(v) for k, v in known[name].items()}
        before = known.pop("seen", None)  # files of older versions: all of them, whatever their fold
        by_fold = known.get("fitted") if before is None else {str(SUPPORT): before}
        known["fitted"] = None if by_fold is None else {int(k): tuple(v) for k, v in by_fold.items()}
        known["accused_gravely"] = frozenset(known["accused_gravely"])
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in known.items()}
        return cls(**plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    return list(value) if isinstance(value, list | tuple) else value
