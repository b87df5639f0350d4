"""Ensembles of perturbation-response models that honestly beat the best of them, or the numbers that none was shown to.

>>> import pertstack as ps
>>> sorted(ps.__all__)
['Evaluation', 'Leaderboard', 'StackFit', 'StackingError', 'Study', '__version__', 'evaluate', 'stack']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pertstack._base.version import __version__

if TYPE_CHECKING:
    from pertstack._base.errors import StackingError
    from pertstack.arrays import StackFit, stack
    from pertstack.study.steps.evaluate import Evaluation, evaluate
    from pertstack.study.study import Study
    from pertstack.verdict.board import Leaderboard

__all__ = ["Evaluation", "Leaderboard", "StackFit", "StackingError", "Study", "__version__", "evaluate", "stack"]

_HOMES = {
    "Evaluation": "pertstack.study.steps.evaluate",
    "Leaderboard": "pertstack.verdict.board",
    "StackFit": "pertstack.arrays",
    "StackingError": "pertstack._base.errors",
    "Study": "pertstack.study.study",
    "evaluate": "pertstack.study.steps.evaluate",
    "stack": "pertstack.arrays",
}


def __getattr__(name: str) -> Any:
    """Public names are imported on first use, so that ``import pertstack`` stays quick and silent."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pertstack' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
