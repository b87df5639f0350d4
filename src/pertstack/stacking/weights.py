"""Weights as ``Fitted.weights()`` gives them, read by people and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def mean_weights(found: Mapping[str, Any]) -> dict[str, float] | None:
    """Weight per base model, mean over genes; None for combiners without linear weights."""
    models, mean = found.get("models"), found.get("mean")
    if not isinstance(models, list) or not isinstance(mean, list) or len(models) != len(mean):
        return None
    return dict(zip(models, mean, strict=True))
