"""Are the values of every cell line, and of every plate of a line, on one scale, with genes in one order?

Tables of several laboratories are put together by hand, and one of them may hold another logarithm or z-scores. Asked
of the rows that the census keeps; treated and control together are held against each other in ``pairing.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from pertstack._base.errors import first_few
from pertstack._base.findings import Finding
from pertstack.data.checks.census import Census
from pertstack.data.checks.pairing import ALIKE, APART, FEWEST

if TYPE_CHECKING:
    from pertstack.data.file import DataFile

ROWS = 3
"""Kept rows without which nothing is asked of a plate or a line."""
LOGARITHMS = {"natural logarithms": 1.0, "log2": float(np.log(2)), "log10": float(np.log(10))}
"""What one unit of a logarithm is in natural ones."""
SURE, NEAR = 0.98, 0.05
"""Correlation of means over genes, and nearness of their ratio to that of two logarithms, by which these are told."""
BELOW = 0.2
"""Share of values below zero that tells z-scores and differences from levels, where others have none."""


def parts_on_other_scales(file: DataFile, census: Census) -> list[Finding]:
    """A warning that names cell lines and plates whose values are not like those of the others."""
    if file.delta or file.n_genes < FEWEST:
        return []
    positions, _, treated = census.kept()
    whole = np.isfinite(treated).all(axis=1)
    values, obs = treated[whole].astype(np.float64), file.obs.iloc[positions[whole]]
    lines = obs["cell_line"].astype(str).to_numpy()
    said = [f"cell line {line}: {word}" for line, word in _unlike_the_rest(values, lines, other_genes=False)]
    if "plate" in obs:
        plates = obs["plate"].astype(str).to_numpy()
        for line in np.unique(lines):
            mine = lines == line
            found = _unlike_the_rest(values[mine], plates[mine], other_genes=True)
            said += [f"plate {plate} of {line}: {word}" for plate, word in found]
    if not said:
        return []
    text = (
        f"{file.path}: values are not all on one scale, or genes not in one order: {first_few(said, 5)}. What models "
        f"learn of these samples is the scale. Bring all to one scale where the file was put together, or leave them "
        f"out."
    )
    return [Finding("warning", "parts_on_other_scales", text, len(said), tuple(said[:10]), where=file.path)]


def _unlike_the_rest(values: Any, parts: Any, *, other_genes: bool) -> Iterator[tuple[str, str]]:
    """Parts of the rows, and in what they differ from the others.

    Parameters
    ----------
    values : (n, n_genes).
    parts : (n,) names.
    other_genes : whether means of genes must be alike, as within a cell line.
    """
    names = [p for p in np.unique(parts) if (parts == p).sum() >= ROWS]
    means = {p: values[parts == p].mean(axis=0) for p in names}
    below = {p: float((values[parts == p] < 0).mean()) for p in names}
    spread = float(np.sqrt(np.mean([values[parts == p].var(axis=0).mean() for p in names]))) if names else 0.0
    for part in names if len(names) > 1 else ():
        rest = np.median([means[p] for p in names if p != part], axis=0)
        if below[part] > BELOW and not any(below[p] for p in names if p != part):
            yield part, f"{below[part]:.0%} of the values are below zero, and none of the others"
        elif (words := _other_logarithm(means[part], rest)) is not None:
            yield part, words
        elif other_genes and _other_genes(means[part], rest, spread):
            r = float(np.corrcoef(means[part], rest)[0, 1])
            yield part, f"means of genes do not follow those of the other plates (correlation {r:.2f})"


def _other_logarithm(mean: Any, rest: Any) -> str | None:
    """Which logarithm values are, and which those of the others, if a factor turns one into the other."""
    if not mean.std() or not rest.std() or np.corrcoef(mean, rest)[0, 1] < SURE:
        return None
    factor = float(mean @ rest / (mean @ mean))
    if np.abs(rest - factor * mean).mean() > 0.15 * rest.std():
        return None
    for this, one in LOGARITHMS.items():
        for other, unit in LOGARITHMS.items():
            if this != other and abs(factor / (one / unit) - 1) < NEAR:
                return f"{this} by the means of genes, where the others are {other}"
    return None


def _other_genes(mean: Any, rest: Any, spread: float) -> bool:
    """Whether means of genes have little to do with each other."""
    if not mean.std() or not rest.std():
        return False
    away = float(np.sqrt(np.square(mean - rest).mean()))
    return bool(np.corrcoef(mean, rest)[0, 1] < ALIKE and away > APART * spread)
