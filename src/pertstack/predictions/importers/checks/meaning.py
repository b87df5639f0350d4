"""What the values of predictions say of their scale and of the names of their columns, over all rows and line by line.

Asked by both doors, ``add`` and ``evaluate``, of rows whose measured values may be seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pertstack._base.errors import first_few
from pertstack._base.findings import Finding
from pertstack.data.rows import Float32
from pertstack.predictions.importers.checks.scale import (
    FEWEST_ROWS,
    LONG,
    PLAINLY,
    Scale,
    check_scale,
    on_another_scale,
    other_logarithm,
    scale_finding,
    scale_numbers,
)

SAME_GENES = 0.5
"""Correlation over genes of predicted and measured means below which columns are in another order."""
FEWEST_GENES = 12
"""Genes below which nothing is said of their names."""
ALIKE, UNLIKE = 0.25, 0.25
"""Spreads of genes, as standard deviation of their logarithm: predicted ones are alike below this share of the measured
ones', if these differ by more than that."""
FOLLOW, SHIFT, STEEP = 0.95, 0.25, 1.25
"""Means of genes that correlate so much with the measured ones are the same within so many of their standard deviations
over genes, and within such a slope."""
OFF = 0.5
"""Means of genes are off if they are so many standard deviations (of the measured means over genes) apart."""


def check_meaning(
    values: Float32,
    treated: Float32,
    control: Float32,
    *,
    scale: Scale,
    name: str,
    lines: Sequence[str],
    by_position: bool,
) -> list[Finding]:
    """What values say of their scale and of the names of their columns, in all rows and in each cell line.

    Parameters
    ----------
    values : (n, n_genes), as given.
    treated, control : (n, n_genes), measured.
    scale : as declared.
    name : of the model.
    lines : (n,) cell lines.
    by_position : columns got their names by position.
    """
    found = check_scale(values, treated, control, scale=scale, name=name)
    if any(f.severity == "error" for f in found):
        return found
    found += _of_lines(values, treated, control, scale=scale, name=name, lines=lines)
    found += _levels_off(found[0].numbers if found else {}, values, treated, scale=scale, name=name)
    found += _standardised(values if scale == "delta" else values - control, treated - control, lines, name=name)
    if scale == "treated" and by_position:
        found += check_gene_order(values, treated, name)
    elif scale == "treated" and control.any():
        found += check_gene_names(values, treated, name, lines=lines)
    return found


def _by_line(lines: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Each of several cell lines and the positions of its rows, where there are enough of them."""
    names = np.asarray(lines, dtype=object)
    for line in sorted(set(names.tolist())) if len(set(names.tolist())) > 1 else []:
        rows = np.flatnonzero(names == line)
        if len(rows) >= FEWEST_ROWS:
            yield line, rows


def _of_lines(
    values: Float32, treated: Float32, control: Float32, *, scale: Scale, name: str, lines: Sequence[str]
) -> list[Finding]:
    """Cell lines whose rows are on another scale than the rest: an error where one line is plainly the declared scale
    and another plainly the other; a warning for what else is odd."""
    other: Scale = "delta" if scale == "treated" else "treated"
    seen = {line: scale_numbers(values[at], treated[at], control[at], scale) for line, at in _by_line(lines)}
    mine, theirs = f"rms_as_{scale}", f"rms_as_{other}"
    wrong = [line for line, n in seen.items() if n[mine] > PLAINLY * n[theirs]]
    right = [line for line, n in seen.items() if n[theirs] > PLAINLY * n[mine]]
    odds: dict[str, str] = {}
    if wrong and right:
        both = [f"{line} by {seen[line][mine]:.3g} and {seen[line][theirs]:.3g}" for line in (wrong[0], right[0])]
        text = (
            f"{name}: its cell lines are on two scales. Values of {first_few(wrong)} are {other!r}, those of "
            f"{first_few(right)} are {scale!r}, as declared: read as {scale!r} and as {other!r}, they differ from the "
            f"measured ones in {' and in '.join(both)} (root mean square). Bring all lines to one scale, and leave out "
            f"lines that the model does not predict (values near 0)."
        )
        return [scale_finding("error", "scale_wrong", name, scale=scale, numbers=seen[wrong[0]], text=text)]
    for line, found in seen.items():
        numbers = {**found, "outside": 0.0}  # of few rows, the range says little
        logs = other_logarithm(numbers["level_slope"], numbers["level_r"], numbers["level_offset"])
        odd = on_another_scale(f"{name} in {line}", numbers, scale, other, differences=not control.any())
        if logs is not None and scale == "treated":
            odd = f"{name} in {line}: values look like {LONG[logs[0]]} where the study has {LONG[logs[1]]}."
        if odd is not None:
            odds[line] = odd
    if not odds:
        return []
    text = f"{next(iter(odds.values()))} This is so in {len(odds):,} of {len(seen):,} cell lines ({first_few(odds)})."
    line = next(iter(odds))
    return [
        scale_finding("warning", "scale_of_line", name, scale=scale, numbers={**seen[line], "line": line}, text=text)
    ]


def _levels_off(
    numbers: Mapping[str, Any], values: Float32, treated: Float32, *, scale: Scale, name: str
) -> list[Finding]:
    """A warning if means of genes follow the measured ones, and are not them: another depth, logarithm or unit."""
    if scale == "delta" or numbers.get("level_r", 0.0) < FOLLOW:
        return []
    slope, spread = numbers["level_slope"], float(np.std(treated.mean(axis=0)))
    given, level = values.mean(axis=0, dtype=np.float64), treated.mean(axis=0, dtype=np.float64)
    there = np.isfinite(given)
    given, level = given[there], level[there]
    shift = float(np.mean(given - level))
    if abs(shift) < SHIFT * spread and 1 / STEEP < slope < STEEP:
        return []
    text = (
        f"{name}: means of genes follow the measured ones (correlation {numbers['level_r']:.3f}), and are not them: "
        f"{shift:+.2f} on average, and one unit predicted is {slope:.2f} measured. Were counts brought to another "
        f"depth, or another logarithm taken, than in the data?"
    )
    counts, own = (np.expm1(np.clip(a, 0, 30)) for a in (given, level))
    high = own >= np.median(own)
    times = float(np.median(own[high] / np.maximum(counts[high], 1e-12)))
    better = np.log1p(times * counts)
    if np.std(better - level) < 0.5 * np.std(given - level) or abs(np.mean(better - level)) < 0.25 * abs(shift):
        text += (
            f" As natural logarithms they would be those of {1 / times:.3g} times the depth; then write "
            f"numpy.log1p({times:.4g} * numpy.expm1(x)) for them."
        )
    told = {"shift": shift, "slope": slope, "depth": 1 / max(times, 1e-12)}
    return [Finding("warning", "levels_off", text, where=name, numbers=told)]


def _standardised(predicted: Any, measured: Any, lines: Sequence[str], *, name: str) -> list[Finding]:
    """A warning if every gene's predicted change has one spread, near 1, in each cell line or over all of them, and the
    measured ones have not."""
    if len(predicted) < FEWEST_ROWS:
        return []
    together = [np.arange(len(predicted))]
    for parts in ([at for _, at in _by_line(lines)] or together, together):
        p, y = (np.array(a, dtype=np.float64) for a in (predicted, measured))
        for at in parts:
            p[at], y[at] = p[at] - p[at].mean(axis=0), y[at] - y[at].mean(axis=0)
        spread, own = p.std(axis=0), y.std(axis=0)
        moving = np.isfinite(spread) & (spread > 0) & (own > 0)
        spread, own = spread[moving], own[moving]
        if len(spread) < 12 or not 0.5 < np.median(spread) < 2 or np.log(own).std() < UNLIKE:
            continue
        if np.log(spread).std() > ALIKE * np.log(own).std() or not _follows(p[:, moving] / spread, y[:, moving] / own):
            continue
        low, high = (float(q) for q in np.quantile(spread, [0.05, 0.95]))
        slow, fast = (float(q) for q in np.quantile(own, [0.05, 0.95]))
        text = (
            f"{name}: predicted changes have one spread in all genes (standard deviation {low:.2g} to {high:.2g} in "
            f"nine of ten), measured ones have not ({slow:.2g} to {fast:.2g}): predicted z-scores look like that, and "
            f"they are no differences of the study's values. If they are z-scores, multiply by each gene's standard "
            f"deviation."
        )
        numbers = {"low": low, "high": high, "measured_low": slow, "measured_high": fast}
        return [Finding("warning", "perhaps_z_scores", text, where=name, numbers=numbers)]
    return []


def _follows(p: Any, y: Any) -> bool:
    """Whether rows of two standardised tables agree: noise of one spread does not."""
    r = (p * y).sum(axis=1) / np.maximum(np.sqrt((p * p).sum(axis=1) * (y * y).sum(axis=1)), 1e-12)
    return bool(r.mean() > 3 * r.std() / np.sqrt(len(r)))


def check_gene_order(values: Float32, treated: Float32, model: str) -> list[Finding]:
    """An error if the means of genes do not follow those of the genes whose names they were given by position.

    Parameters
    ----------
    values, treated : (n, n_genes), treated scale; genes with NaN are left out.
    model : for the message.
    """
    if not len(values):
        return []
    p, y = values.mean(axis=0, dtype=np.float64), treated.mean(axis=0, dtype=np.float64)
    p, y = p[np.isfinite(p)], y[np.isfinite(p)]  # genes that are not predicted are NaN
    if p.size < 2 or p.std() <= 0 or y.std() <= 0:
        return []
    r = float(np.corrcoef(p, y)[0, 1])
    if r >= SAME_GENES:
        return []
    text = (
        f"{model}: its columns have no names, and taken by position their means do not follow the "
        f"measured ones (correlation over genes {r:.2f}; above 0.9 is usual). They are in another order, or the list "
        f"of genes is. Name the columns where they were made, or give their order with --genes FILE."
    )
    return [Finding("error", "gene_order", text, where=model, numbers={"r": r})]


def check_gene_names(values: Float32, treated: Float32, model: str, *, lines: Sequence[str] = ()) -> list[Finding]:
    """A warning if means of genes are those measured, under the names of other genes: of all genes, or of those that
    are off; in all rows, or in one cell line.

    No error: a model that knows no levels of genes, and draws them as they are distributed, looks the same.

    Parameters
    ----------
    values, treated : (n, n_genes), treated scale; genes with NaN are left out.
    model : for the message.
    lines : (n,) cell lines; empty for not known.
    """
    for line, at in [("", np.arange(len(values))), *_by_line(lines)]:
        p, y = values[at].mean(axis=0, dtype=np.float64), treated[at].mean(axis=0, dtype=np.float64)
        there = np.isfinite(p)
        p, y = p[there], y[there]
        off = np.abs(p - y) > OFF * np.std(y) if len(y) else np.zeros(0, dtype=bool)
        if off.sum() < FEWEST_GENES or not 0.8 < p[off].std() / max(y[off].std(), 1e-12) < 1.25:
            continue
        r, matched = (
            float(np.corrcoef(*pair)[0, 1]) for pair in ((p[off], y[off]), (np.sort(p[off]), np.sort(y[off])))
        )
        if r >= SAME_GENES or matched < 0.95 or abs(p[off].mean() - y[off].mean()) > 0.5 * y[off].std():
            continue
        which = f"{int(off.sum()):,} of {len(p):,} genes{f' in {line}' if line else ''}"
        text = (
            f"{model}: means of {which} do not follow the measured ones (correlation over these genes {r:.2f}; above "
            f"0.9 is usual), and do once both are sorted ({matched:.2f}): they may be under the names of others. "
            f"Compare the names of the columns with the order in which the model wrote them."
        )
        numbers = {"r": r, "sorted_r": matched, "genes": int(off.sum())}
        return [Finding("warning", "gene_names", text, int(off.sum()), where=model, numbers=numbers)]
    return []
