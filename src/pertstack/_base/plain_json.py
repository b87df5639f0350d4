"""Values as JSON holds them, the same on every machine: 12 significant digits, nothing undefined."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any


def plain_json(value: Any) -> Any:
    """JSON values with floats rounded to 12 significant digits; NaN and infinities become null."""
    if isinstance(value, dict):
        return {str(k): plain_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(v) for v in value]
    if isinstance(value, (bool, str)) or value is None:
        return value
    if isinstance(value, Integral):
        return int(value)
    number_ = float(value)
    return float(f"{number_:.12g}") + 0.0 if math.isfinite(number_) else None
