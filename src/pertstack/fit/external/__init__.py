"""Somebody else's program as a base model: its card, its environment, the folder through which it is spoken to."""

from __future__ import annotations

from typing import Any

__all__ = ["ExternalModel"]


def __getattr__(name: str) -> Any:
    """``ExternalModel`` under the name by which jobs know it; imported when asked for, because it brings anndata."""
    if name == "ExternalModel":
        from pertstack.fit.external.model import ExternalModel

        return ExternalModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
