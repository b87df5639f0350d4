"""Whether a hyper-parameter is of the kind that its model says in the annotations of its constructor."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin

from pertstack._base.errors import InputError

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "nothing"}


def refuse_other_kinds(cls: type, params: Mapping[str, Any], model: str) -> None:
    """That each value is of the kind its constructor asks for; what carries no annotation is not looked at.

    Raises
    ------
    InputError
        A value of another kind, or one that is no number; the default is shown.
    """
    try:
        accepted = inspect.signature(cls, eval_str=True).parameters
    except (NameError, TypeError, AttributeError):  # annotations of a plug-in that only a type checker can follow
        return
    for key, value in params.items():
        if key not in accepted or accepted[key].annotation is inspect.Parameter.empty:
            continue
        kind, default = accepted[key].annotation, accepted[key].default
        if not fits(value, kind):
            shown = "" if default in (inspect.Parameter.empty, None) else f", such as {default!r}"
            raise InputError(f"{model}.{key} is {value!r}; it must be {_in_words(kind)}{shown}.")


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated kind; kinds that are none of numbers, texts and lists take anything.

    >>> fits(3, float | None), fits("3", int), fits(True, int), fits(float("nan"), float)
    (True, False, False, False)
    """
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return any(fits(value, k) for k in get_args(kind))
    if origin is Literal:
        return any(type(value) is type(k) and value == k for k in get_args(kind))
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)
    if kind in (str, type(None)):
        return isinstance(value, kind)
    if origin in (list, tuple):
        return isinstance(value, list | tuple)
    return True


def _in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(repr(k) for k in get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_in_words(k) for k in get_args(kind) if k is not type(None))
    return _WORDS.get(kind, "a list")
