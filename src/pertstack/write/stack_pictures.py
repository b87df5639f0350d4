"""Pictures of a stack for a notebook: weights of its combinations, and how bold its models are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pertstack._base.colours import BLUE, MUTED, ORANGE, figure_style
from pertstack._base.errors import InputError, unknown_name
from pertstack._base.shown import shown
from pertstack.stacking.weights import mean_weights
from pertstack.write.figures import heat_figure, slopes_figure


def weights_picture(found: Mapping[str, Mapping[str, Any]], combiner: str | None = None) -> Figure:
    """Weights on base models: of one combination as points about zero, or of all as a table of shaded numbers.

    Where weights differ by gene, their means.

    Raises
    ------
    UnknownNameError, InputError
        No such combination, or one without linear weights.
    """
    linear = {name: w for name, facts in found.items() if (w := mean_weights(facts)) is not None}
    if not linear:
        raise InputError("No combination of this stack has linear weights (the mean has), so there are none to draw.")
    if combiner is None:
        return heat_figure({"weights, mean over genes": pd.DataFrame(linear).T}, symmetric=False)
    if combiner not in found:
        raise unknown_name("combiner of this stack", combiner, found)
    if combiner not in linear:
        raise InputError(f"{combiner} has no linear weights. Those that have: {', '.join(linear)}.")
    weights = linear[combiner]
    ordered = sorted(weights, key=lambda m: (weights[m], m))
    with figure_style():
        figure = Figure(figsize=(6.4, 0.9 + 0.28 * len(ordered)), layout="constrained")
        axes = figure.subplots()
        for y, model in enumerate(ordered):
            colour = BLUE if weights[model] >= 0 else ORANGE
            axes.plot([0, weights[model]], [y, y], color=colour, lw=2)
            axes.plot(weights[model], y, "o", color=colour, ms=6.5)
        axes.axvline(0, color=MUTED, lw=1)
        axes.set_yticks(np.arange(len(ordered)), [shown(m, longest=60) for m in ordered])
        axes.set_ylim(-0.6, len(ordered) - 0.4)
        axes.set_xlabel(f"weight in {shown(combiner, longest=60)}, mean over genes; below zero: subtracted")
        axes.grid(axis="x")
    return figure


def calibration_picture(slopes: Mapping[str, float]) -> Figure:
    """How much the measured change moves when a model's prediction moves by 1: 1 is well calibrated.

    Raises
    ------
    InputError
        No model has a slope.
    """
    if not slopes:
        raise InputError("No model's predicted changes vary enough to say how bold they are.")
    return slopes_figure(slopes)
