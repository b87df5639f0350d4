"""The leaderboard of the stack step: out-of-fold scores with intervals, before any test is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pertstack._stats.shared_parts import Parts
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.stacking.choice import Choice
from pertstack.stacking.nested import NestedFits
from pertstack.verdict.boards.board import Leaderboard
from pertstack.verdict.boards.read_rows import rows_of
from pertstack.verdict.boards.rows import Kind
from pertstack.verdict.reading import Reading
from pertstack.verdict.resampling import GroupResampling
from pertstack.verdict.setting import Setting

_KINDS: dict[str, Kind] = {"no_change": "reference", "oracle": "ceiling", "replicate": "ceiling"}


def oof_board(
    scores: ScoreTable,
    nested: NestedFits,
    choice: Choice,
    *,
    headline: str,
    unit: str = "perturbation",
    parts: Parts | None = None,
    looks: int = 0,
    seed: int = 0,
    metrics: Sequence[str] | None = None,
) -> Leaderboard:
    """The board of a stack. Intervals resample whole groups, as the verdict's do; every row's difference is that to the
    best single model.

    Parameters
    ----------
    scores : of out-of-fold rows.
    nested : says what is a combiner.
    choice : what ships, and the deciding metric.
    headline : one sentence over the board.
    unit : what a group is, in words.
    parts : of groups that share some.
    looks : how often the test was opened.
    seed : of the resamples.
    metrics : to show beside the deciding one; None for all.
    """
    if metrics is not None:
        kept = [m for m in scores.metrics if m in {*metrics, choice.primary}]
        at = [scores.metrics.index(m) for m in kept]
        scores = replace(scores, metrics=tuple(kept), values_by_name=scores.values_by_name[:, at])
    kinds = {name: _kind(name, nested) for name in scores.names}
    marked = {name: (why,) for name, why in choice.marked.items()}
    setting = Setting(kinds, choice.primary, choice.chosen, unit, cautions=marked)
    reading = Reading("oof", scores, setting, GroupResampling(seed, parts=parts))
    return Leaderboard(
        tuple(rows_of(reading)),
        choice.primary,
        choice.chosen,
        reading.best,
        test_looks=looks,
        interval={**reading.resampling.facts, "unit": unit, "n_units": {"oof": reading.n_groups}}
        | ({"n_sharing_parts": {"oof": reading.n_sharing}} if reading.n_sharing else {}),
        headline=headline,
    )


def _kind(name: str, nested: NestedFits) -> Kind:
    if name in _KINDS:
        return _KINDS[name]
    if name not in nested.names:
        return "base"
    return "reference" if nested.combiner(name).family == "reference" else "combiner"
