"""Your own models and combiners, made known by name."""

from __future__ import annotations

from typing import Any

from pertstack._base.errors import InputError
from pertstack.fit.registry import RegistryRow
from pertstack.fit.registry import register as register_model
from pertstack.stacking.combiner import Combiner
from pertstack.stacking.registry import register_combiner


def register(what: Any) -> Any:
    """Make a base model or a combiner known by its name for this session; usable as a decorator of the class.

    Parameters
    ----------
    what : a class that keeps the contract of ``ps.BaseModel``, or a subclass of ``ps.Combiner``.

    A package makes its own known to everybody by entry points: ``pertstack.base_models`` and ``pertstack.combiners``.

    Raises
    ------
    ConflictError
        Another one already has this name.
    InputError
        It is neither.
    """
    if isinstance(what, type) and issubclass(what, Combiner):
        return register_combiner(what)
    if isinstance(what, RegistryRow) or (isinstance(what, type) and hasattr(what, "fit") and hasattr(what, "predict")):
        register_model(what)
        return what
    raise InputError(
        f"register takes the class of a base model (with fit and predict) or of a combiner, not {what!r}. "
        f"CONTRIBUTING.md has an example of each."
    )
