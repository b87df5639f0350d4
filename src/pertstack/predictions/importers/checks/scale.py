"""Is the declared scale the true one? Predictions are held against the measured development rows of the same samples.

Wrong beyond doubt is refused; odd is a warning; the numbers are kept either way. Fine calibration is left to
``stack/``.
"""

from __future__ import annotations

import itertools
from typing import Any, Literal

import numpy as np

from pertstack._base.errors import IntegrityError
from pertstack._base.findings import Finding
from pertstack.data.rows import Float32

Scale = Literal["treated", "delta"]
PLAINLY = 3.0  # times the error under the other reading
SAME = 1e-5  # of the measured range: differences below it are rounding
LOGARITHMS = {"ln": float(np.log(2)), "log2": 1.0, "log10": float(np.log10(2))}
"""What each logarithm gives for a doubling."""
LONG = {"ln": "natural logarithms", "log2": "logarithms to base 2", "log10": "logarithms to base 10"}
FEWEST_ROWS = 3


def scale_numbers(raw: Float32, treated_rows: Float32, control_rows: Float32, scale: Scale) -> dict[str, float]:
    """What the check measures, over rows (m, n_genes) with both predictions and truth.

    ``rms_as_treated`` and ``rms_as_delta``: root mean square difference to the treated values, and to treated -
    control, of the values as given. ``slope``: of measured on predicted delta, pooled over genes after centring
    each gene (1 = calibrated). ``spread``: median over genes of sd(predicted delta) / sd(measured delta). ``outside``:
    share of predicted treated values beyond the measured range of their gene (treated and control rows), widened by
    half its width. ``level_slope``: of measured on predicted means per gene, over genes (1 = the levels of the data),
    ``level_r`` their correlation, and ``level_offset`` what is left between the means, in sd over genes.
    ``given_r`` and ``effect_r``: correlation over genes of the means as given with measured levels, and with measured
    effects. ``rms_effect``: of the measured effects. ``rms_level``: of the means as given, ``rms_own``: of the values
    as given after centring each gene.

    Parameters
    ----------
    raw : (m, n_genes) predictions as given.
    treated_rows, control_rows : (m, n_genes), measured.
    scale : as declared.
    """
    values, treated, control = (a.astype(np.float64) for a in (raw, treated_rows, control_rows))
    as_treated = values if scale == "treated" else values + control
    predicted, measured = as_treated - control, treated - control
    genes = np.isfinite(values).all(axis=0)
    predicted, measured = predicted[:, genes], measured[:, genes]
    low = np.minimum(treated.min(axis=0), control.min(axis=0))[genes]
    high = np.maximum(treated.max(axis=0), control.max(axis=0))[genes]
    room = 0.5 * (high - low)
    outside = (as_treated[:, genes] < low - room) | (as_treated[:, genes] > high + room)
    given, foretold, level = (a[:, genes].mean(axis=0) for a in (values, as_treated, treated))
    level_slope, level_r = levels(foretold, level)
    p, y = predicted - predicted.mean(axis=0), measured - measured.mean(axis=0)
    power = float((p * p).sum())
    moving = y.std(axis=0) > 0
    ratios = p.std(axis=0)[moving] / y.std(axis=0)[moving]
    return {
        "rows": float(len(values)),
        "genes": float(genes.sum()),
        "rms_as_treated": float(np.sqrt(np.mean((values - treated)[:, genes] ** 2))),
        "rms_as_delta": float(np.sqrt(np.mean((values - (treated - control))[:, genes] ** 2))),
        "slope": float((p * y).sum() / power) if power > 0 else 0.0,
        "spread": float(np.median(ratios)) if ratios.size else 0.0,
        "outside": float(outside.mean()) if outside.size else 0.0,
        "level_slope": level_slope,
        "level_r": level_r,
        "level_offset": offset_after(level_slope, foretold, level),
        "given_r": levels(given, level)[1],
        "effect_r": levels(given, measured.mean(axis=0))[1],
        "rms_effect": float(np.sqrt(np.mean(measured**2))),
        "rms_level": float(np.sqrt(np.mean(given**2))),
        "rms_own": float(np.sqrt(np.mean((values[:, genes] - given) ** 2))),
    }


def levels(predicted: Any, measured: Any) -> tuple[float, float]:
    """Slope and correlation over genes of measured on predicted means; (1, 0) when either does not vary."""
    p, y = predicted - predicted.mean(), measured - measured.mean()
    size, length = float(p @ p), float(y @ y)
    if size <= 0 or length <= 0:
        return 1.0, 0.0
    return float(p @ y) / size, float(p @ y) / float(np.sqrt(size * length))


def other_logarithm(slope: float, r: float, offset: float) -> tuple[str, str] | None:
    """The logarithms (of the values, of the study) of which one turns into the other by a factor; None else.

    Parameters
    ----------
    slope, r : of measured on given means over genes.
    offset : from ``offset_after``.
    """
    if r < 0.98 or abs(offset) > 0.15:
        return None
    for theirs, ours in itertools.permutations(LOGARITHMS, 2):
        if abs(slope / (LOGARITHMS[ours] / LOGARITHMS[theirs]) - 1) < 0.05:
            return theirs, ours
    return None


def offset_after(slope: float, predicted: Any, measured: Any) -> float:
    """Distance of the means over genes after a factor, in measured standard deviations over genes; infinite where these
    are 0.

    Parameters
    ----------
    slope : the factor.
    predicted, measured : (n_genes,) means over rows.
    """
    spread = float(np.std(measured))
    return float(np.mean(measured) - slope * np.mean(predicted)) / spread if spread > 0 else np.inf


def refuse_the_truth(
    values: Float32, treated: Float32, control: Float32, *, scale: Scale, name: str, slots: str
) -> None:
    """Refuse predictions that are the measured values themselves, row by row.

    Parameters
    ----------
    values : (n, n_genes), in ``scale``; NaN where not predicted.
    treated, control : (n, n_genes), measured.
    scale : "treated" or "delta".
    name : of the model.
    slots : what else the file holds, for the message.

    Raises
    ------
    IntegrityError
        One row in a hundred or more is a measured one, in every gene.
    """
    if not len(values):
        return
    truth = treated if scale == "treated" else treated - control
    there = np.isfinite(values)
    near = np.abs(values - truth) <= SAME * max(float(np.ptp(treated)), 1e-12)
    same = ((near | ~there).all(axis=1) & there.any(axis=1)) & ~(np.abs(treated - control) < SAME).all(axis=1)
    if same.mean() < 0.01:
        return
    difference = float(np.nanmax(np.abs(values - truth)[same]))
    raise IntegrityError(
        f"{name}: {int(same.sum()):,} of {len(values):,} compared rows are the measured values themselves (largest "
        f"difference {difference:.1g}), not predictions of them.{slots} Provide what the model predicted."
    )


def check_scale(values: Float32, treated: Float32, control: Float32, *, scale: Scale, name: str) -> list[Finding]:
    """Findings on the declared scale; an error when it is plainly wrong.

    Parameters
    ----------
    values : (n, n_genes), as given.
    treated, control : (n, n_genes), measured; rows without truth must be left out before.
    scale : as declared, "treated" or "delta".
    name : of the model.
    """
    if len(values) < FEWEST_ROWS or not np.isfinite(values).all(axis=0).any():
        return [
            Finding(
                "note",
                "scale_not_checked",
                f"{name}: {len(values)} rows have measured values to compare with; {FEWEST_ROWS} are needed to check "
                f"the scale.",
            )
        ]
    numbers = scale_numbers(values, treated, control, scale)
    logs = other_logarithm(numbers["level_slope"], numbers["level_r"], numbers["level_offset"])
    if logs is not None and scale == "treated":
        text = (
            f"{name}: values are {LONG[logs[0]]} where the study has {LONG[logs[1]]}: means of genes follow the "
            f"measured ones (correlation {numbers['level_r']:.4f}), and one unit predicted is "
            f"{numbers['level_slope']:.3f} measured. Add them with --transform {logs[0]}_to_{logs[1]}."
        )
        return [scale_finding("error", "scale_wrong", name, scale=scale, numbers=numbers, text=text)]
    other: Scale = "delta" if scale == "treated" else "treated"
    wrong = on_another_scale(name, numbers, scale, other, differences=not control.any())
    if wrong is not None and scale == "treated" and values.min() >= 0 and (np.rint(values) == values).all():
        wrong += " They are whole numbers: if they are counts, --transform log1p_cp10k makes logarithms of them."
    if wrong is not None:
        return [scale_finding("error", "scale_wrong", name, scale=scale, numbers=numbers, text=wrong)]
    fits = (
        f"{name}: scale {scale!r} fits the data: values differ from the measured ones by "
        f"{numbers[f'rms_as_{scale}']:.3g} (root mean square), read as {other!r} by {numbers[f'rms_as_{other}']:.3g}."
    )
    return [
        scale_finding("note", "scale_checked", name, scale=scale, numbers=numbers, text=fits),
        *_oddities(name, scale, numbers),
    ]


def _oddities(name: str, scale: Scale, numbers: dict[str, float]) -> list[Finding]:
    outside, spread, slope = numbers["outside"], numbers["spread"], numbers["slope"]
    found = []
    for odd, code, words in (
        (outside > 0.05, "values_out_of_range", f"{outside:.0%} of the values lie outside the data's range"),
        (spread > 3, "spread_large", f"predicted effects vary {spread:.1f} times as much as measured ones"),
        (slope < 0, "slope_negative", f"measured effects fall where predicted ones rise (slope {slope:.2f})"),
    ):
        if odd:
            text = f"{name}: {words}; is the preprocessing the study's? Calibration mends a scale, not a mix-up."
            found.append(scale_finding("warning", code, name, scale=scale, numbers=numbers, text=text))
    return found


def on_another_scale(
    name: str, numbers: dict[str, float], scale: Scale, other: Scale, *, differences: bool
) -> str | None:
    """What is plainly wrong with the scale; None if nothing is.

    Parameters
    ----------
    name : of the model, for the words.
    numbers : from ``scale_numbers``.
    scale, other : the declared one and the one it may be.
    differences : the data are differences, without a control.
    """
    slope, follow = numbers["level_slope"], numbers["level_r"] > 0.9
    off = (
        f"{name}: means of genes follow the measured ones (correlation {numbers['level_r']:.2f}) on another scale: "
        f"one unit predicted is {slope:.3g} measured, as when values are normalised or logged once more. Bring "
        f"them to the scale of the study's data."
    )
    if follow and slope > PLAINLY and not differences:
        return off
    rms = numbers[f"rms_as_{scale}"]
    if rms > PLAINLY * numbers[f"rms_as_{other}"]:
        return (
            f"{name} was declared as {scale!r}, but its values differ from the measured ones by {rms:.3g} (root mean "
            f"square) read so, and by {numbers[f'rms_as_{other}']:.3g} read as {other!r}. Combined with other models "
            f"they would spoil every ensemble. Say --scale {other} (scale={other!r}), if that is what they are."
        )
    if differences and rms > PLAINLY * numbers["rms_effect"] and numbers["rms_level"] > numbers["rms_own"]:
        return (
            f"{name}: the data are differences from the control, and all predicted rows share one profile, as levels "
            f"of expression do: values differ from the measured ones by {rms:.3g} (root mean square), which are "
            f"{numbers['rms_effect']:.3g} themselves. Subtract the control from the predictions."
        )
    if numbers["outside"] > 0.5:
        return (
            f"{name}: {numbers['outside']:.0%} of the predicted values lie far outside the measured range of their "
            f"gene, so they are on another scale (counts, z-scores, min-max?). Bring them to the scale of the study's "
            f"data."
        )
    if scale == "delta" and not differences and numbers["given_r"] > 0.95 and numbers["effect_r"] < 0.5:
        return (
            f"{name} was declared as 'delta', but its values follow the levels of expression (correlation over genes "
            f"{numbers['given_r']:.2f}) and not the measured changes ({numbers['effect_r']:.2f}): they are no "
            f"differences, but treated values on another scale. Bring them to the scale of the study's data."
        )
    return off if follow and not 1 / PLAINLY <= slope <= PLAINLY else None


def scale_finding(
    severity: Literal["error", "warning", "note"], code: str, name: str, scale: str, numbers: dict[str, Any], text: str
) -> Finding:
    """A finding of a model's scale.

    Parameters
    ----------
    severity, code, text : of the finding.
    name : of the model.
    scale : as declared.
    numbers : from ``scale_numbers``.
    """
    return Finding(severity, code, text, where=name, numbers={"scale": scale, **numbers})
