"""Ensembles of perturbation-response models that honestly beat the best of them, or the numbers that none was shown to.

>>> import pertstack as ps
>>> sorted(ps.__all__)
['Leaderboard', 'StackFit', 'StackingError', 'Study', '__version__', 'stack']
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pertstack._base.errors import StackingError
    from pertstack.arrays import StackFit, stack
    from pertstack.study.study import Study
    from pertstack.verdict.board import Leaderboard

__version__ = "0.1.0"
__all__ = ["Leaderboard", "StackFit", "StackingError", "Study", "__version__", "stack"]

_HOMES = {
    "Leaderboard": "pertstack.verdict.board",
    "StackFit": "pertstack.arrays",
    "StackingError": "pertstack._base.errors",
    "Study": "pertstack.study.study",
    "stack": "pertstack.arrays",
}


def __getattr__(name: str) -> Any:
    """Public names are imported on first use, so that ``import pertstack`` stays quick and silent."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pertstack' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Callable(ModuleType):
    """The folder ``pertstack.stack``, which shares its name with the function ``stack`` and can be called like it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return import_module(_HOMES["stack"]).stack(*args, **kwargs)


class _Package(ModuleType):
    """Importing the folder ``stack`` sets an attribute of that name here; the function must not be lost by it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "stack" and type(value) is ModuleType:
            value.__class__ = _Callable
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
