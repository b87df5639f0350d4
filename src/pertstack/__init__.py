"""Ensembles of perturbation-response models that honestly beat the best of them, or the numbers that say why none can.

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
    from pertstack.study import Study
    from pertstack.verdict.board import Leaderboard

__version__ = "0.1.0"
__all__ = ["Leaderboard", "StackFit", "StackingError", "Study", "__version__", "stack"]

_HOMES = {
    "Leaderboard": "pertstack.verdict.board",
    "StackFit": "pertstack.arrays",
    "StackingError": "pertstack._base.errors",
    "Study": "pertstack.study",
    "stack": "pertstack.arrays",
}


def __getattr__(name: str) -> Any:
    """Public names are imported on first use, so that ``import pertstack`` stays quick and silent."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pertstack' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """``pertstack.stack`` is the function, also after the folder of that name was imported and would have hidden it."""

    @property
    def stack(self) -> Any:
        return import_module(_HOMES["stack"]).stack

    @stack.setter
    def stack(self, folder: ModuleType) -> None:
        """The import system puts a folder here once it is imported; ``import pertstack.stack.nested`` does not need it."""


sys.modules[__name__].__class__ = _Package
