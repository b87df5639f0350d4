"""L-BFGS-B with an exact gradient, as every combiner uses it that searches its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]


def minimise(
    value_and_gradient: Callable[[Array], tuple[float, Array]], start: Array, *, positive: bool, **options: Any
) -> Any:
    """scipy's answer (``x``, ``fun``, ``nit``, ...).

    Parameters
    ----------
    value_and_gradient : (P,) -> value and gradient (P,).
    start : (P,).
    positive : keeps every entry at zero or above.
    **options : of scipy's L-BFGS-B (``maxiter``, ``ftol``, ``gtol``, ...).
    """
    from scipy import optimize  # slow to import

    bounds = optimize.Bounds(np.zeros(start.size), np.full(start.size, np.inf)) if positive else None
    search: Any = optimize.minimize
    return search(value_and_gradient, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
