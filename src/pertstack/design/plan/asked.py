"""Is what will be predicted what was scored? Two sets of rows compared in what was known of them when predicted.

Weights and choice are learned on scored rows. Where the rows to come ask another question of the fits (genes that were
never measured, another cell line, farther compounds, higher doses), neither the weights nor the scores are about them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pertstack._base.findings import Finding

DIFFERS = "asked_differs_from_scored"
SPEAK = 0.5
"""Least share of the scored rows that must speak for those asked for: ``1 / sum(q^2 / p)`` over levels with shares p
scored and q asked for, the effective sample size of rows weighed to the new mix (Kish 1965)."""
NEVER = 0.05
"""A kind of row that was never scored counts from this share on."""
LEAST, SURE = 0.2, 0.01
"""Numbers differ when their distributions do by ``LEAST`` somewhere and chance is below ``SURE``."""


@dataclass(frozen=True)
class Known:
    """What was known of rows (n,) at fit time: levels by view (``parts seen``), numbers by view (``dose``; NaN where
    unknown), and the perturbation and cell line that rows share, which count once."""

    levels: Mapping[str, Sequence[str]]
    numbers: Mapping[str, Any]
    units: Sequence[str]


def compare(scored: Known, asked: Known, where: str) -> tuple[list[dict[str, str]], list[Finding]]:
    """A table (known at fit time, level, scored, asked, differs) and a warning if they differ.

    Parameters
    ----------
    scored, asked : what was known of the rows that are scored, and of those to be predicted.
    where : what asks, for the message.
    """
    lines: list[dict[str, str]] = []
    said: list[str] = []
    numbers: dict[str, Any] = {}
    for view in dict.fromkeys([*scored.levels, *asked.levels]):
        mine, theirs = _shares(scored, view), _shares(asked, view)
        if not mine or not theirs:
            continue
        levels = sorted({*mine, *theirs})
        speak = _speaking(mine, theirs)
        for level in levels:
            cells = f"{mine.get(level, 0.0):.0%}", f"{theirs.get(level, 0.0):.0%}"
            lines.append(_line(view, level, *cells, speak < SPEAK))
        numbers[view] = {x: [mine.get(x, 0.0), theirs.get(x, 0.0)] for x in levels}
        if speak < SPEAK:
            told = ", ".join(f"{x} {mine.get(x, 0.0):.0%} against {theirs.get(x, 0.0):.0%}" for x in levels)
            new = [x for x in levels if x not in mine and theirs[x] >= NEVER]
            why = (
                f"no scored row is {' or '.join(new)}"
                if new
                else f"in effect {speak:.0%} of the scored rows speak for it"
            )
            said.append(f"{view}: {told} ({why})")
    for view in scored.numbers:
        here, there = (_distinct(k, np.asarray(k.numbers.get(view, []), dtype=np.float64)) for k in (scored, asked))
        if not len(here) or not len(there):
            continue
        differs = _apart(here, there)
        lines.append(_line(view, "5 %, median, 95 %", _spread(here), asked=_spread(there), differs=differs))
        numbers[view] = [[float(q) for q in np.quantile(v, (0.05, 0.5, 0.95))] for v in (here, there)]
        if differs:
            said.append(f"{view}: {_spread(here)} against {_spread(there)} (5 %, median, 95 %)")
    if not said:
        return lines, []
    text = f"What {where} asks for is not what is scored out of fold, in what was known at fit time. Scored against "
    text += f"asked for: {'; '.join(said)}. Weights, choice and scores answer for the scored rows. Make the plan ask "
    text += "the question of use: --group and --plan say what is held out, --support what is always known."
    return lines, [Finding("warning", DIFFERS, text, len(said), where=where, numbers=numbers)]


def _line(view: str, level: str, scored: str, asked: str, differs: bool) -> dict[str, str]:
    return {
        "known at fit time": view,
        "level": level,
        "scored": scored,
        "asked": asked,
        "differs": "yes" if differs else "",
    }


def _once(known: Known, view: str) -> list[str]:
    """The level of every perturbation and cell line; the rows of one are no independent evidence."""
    levels = known.levels.get(view)
    return [] if levels is None else sorted(x for _, x in set(zip(known.units, levels, strict=True)))


def _shares(known: Known, view: str) -> dict[str, float]:
    levels = _once(known, view)
    return {x: levels.count(x) / len(levels) for x in dict.fromkeys(levels)}


def _speaking(scored: Mapping[str, float], asked: Mapping[str, float]) -> float:
    """Share of the scored rows that is left, in effect, when they are weighed to the mix asked for."""
    if any(q >= NEVER and x not in scored for x, q in asked.items()):
        return 0.0
    common = {x: q for x, q in asked.items() if x in scored}
    return sum(common.values()) ** 2 / sum(q * q / scored[x] for x, q in common.items())


def _distinct(known: Known, values: Any) -> Any:
    """One value per perturbation and cell line and value, NaN left out."""
    kept = {(u, float(v)) for u, v in zip(known.units, values, strict=False) if np.isfinite(v)}
    return np.array(sorted(v for _, v in kept))


def _apart(here: Any, there: Any) -> bool:
    from scipy.stats import ks_2samp

    found = ks_2samp(here, there)
    return bool(found.statistic >= LEAST and found.pvalue < SURE)


def _spread(values: Any) -> str:
    return ", ".join(f"{q:.3g}" for q in np.quantile(values, (0.05, 0.5, 0.95)))
