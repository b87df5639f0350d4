"""Words a user chooses among when data are read or simulated; free of imports: ``--help`` shows them at once."""

from __future__ import annotations

from typing import Literal

ControlChoice = Literal["plate_mean", "plate_random", "line_mean", "line_random"]
"""How a sample gets its control if controls are wells or rows of the same file (``readers/vehicles.py``)."""

Normalise = Literal["cp10k", "5e4", "mean_log1p", "sum"]
"""What a profile summed over cells is brought to (``cells/profiles.py``)."""

Precision = Literal["32", "16"]
"""Bits of a stored value: float32, or whole numbers of steps (``predictions/store/files/rounding.py``)."""

Pairing = Literal["own", "matched", "random"]
"""How a simulated world pairs treated samples with controls (``simulation/layout.py``)."""
