"""Ensembles of perturbation-response models that honestly beat the best of them, or the numbers that none was shown to.

>>> import pertstack as ps
>>> ps.Study, ps.stack  # doctest: +ELLIPSIS
(<class 'pertstack.study.study.Study'>, <function stack at ...>)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pertstack._base.version import __version__

if TYPE_CHECKING:
    from pertstack._base import errors
    from pertstack._base.errors import StackingError
    from pertstack.arrays import StackFit, stack
    from pertstack.fit.base import BaseModel
    from pertstack.plugins import register
    from pertstack.predictions.sources.embedding import ArrayEmbedding
    from pertstack.stacking.combiner import Combiner
    from pertstack.stacking.estimator import CombinerEstimator
    from pertstack.study.new_rows.evaluation import Evaluation
    from pertstack.study.steps.evaluate import evaluate
    from pertstack.study.study import Study
    from pertstack.verdict.boards.board import Leaderboard

__all__ = [
    "ArrayEmbedding",
    "BaseModel",
    "Combiner",
    "CombinerEstimator",
    "Evaluation",
    "Leaderboard",
    "StackFit",
    "StackingError",
    "Study",
    "__version__",
    "errors",
    "evaluate",
    "register",
    "stack",
]

_HOMES = {
    "ArrayEmbedding": "pertstack.predictions.sources.embedding",
    "BaseModel": "pertstack.fit.base",
    "Combiner": "pertstack.stacking.combiner",
    "CombinerEstimator": "pertstack.stacking.estimator",
    "Evaluation": "pertstack.study.new_rows.evaluation",
    "Leaderboard": "pertstack.verdict.boards.board",
    "StackFit": "pertstack.arrays",
    "StackingError": "pertstack._base.errors",
    "Study": "pertstack.study.study",
    "evaluate": "pertstack.study.steps.evaluate",
    "register": "pertstack.plugins",
    "stack": "pertstack.arrays",
}


def __getattr__(name: str) -> Any:
    """Public names are imported on first use, so that ``import pertstack`` stays quick and silent."""
    if name == "errors":
        return import_module("pertstack._base.errors")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pertstack' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
