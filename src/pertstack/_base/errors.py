"""The errors pertstack raises on purpose.

Each says what is wrong (with the values), why it matters and how to mend it. All share ``StackingError`` and each is
also the built-in kind one would expect. ``exit_code`` is what the command line ends with: 2 for bad input, 3 when
integrity is at stake. Anything else that reaches the command line is a defect of ours and ends with 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class StackingError(Exception):
    """Base of every error raised on purpose by pertstack."""

    exit_code: ClassVar[int] = 2


class InputError(StackingError, ValueError):
    """A value, file or table given by the user cannot be used as it is."""


class MissingFileError(StackingError, FileNotFoundError):
    """A path that was named does not exist."""


class UnknownNameError(StackingError, KeyError):
    """A model, combiner, metric or column name that is not known; the message lists near names."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class NeedsExtraError(StackingError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class ModelFailedError(StackingError, RuntimeError):
    """A base model could not be fitted or gave unusable predictions; its log says more."""


class StorageError(StackingError, OSError):
    """The disk is full, read-only or otherwise refuses; nothing that was committed is lost."""

    def __str__(self) -> str:
        return str(self.args[-1]) if self.args else ""


class IntegrityError(StackingError, ValueError):
    """Going on would make the result dishonest or wrong: refused, exit code 3."""

    exit_code: ClassVar[int] = 3


class LeakError(IntegrityError):
    """A model, combiner or scaling has seen, or may have seen, the rows it would be judged on."""


class MisalignedError(IntegrityError):
    """Rows or genes do not match by identity."""


class CorruptionError(IntegrityError):
    """Bytes on disk are not what was committed."""


class ConflictError(IntegrityError):
    """Something different was already committed under this name; the first stays."""


class FoldPlanMismatchError(LeakError):
    """Predictions made on one fold plan met a study on another."""


class PlanLockedError(IntegrityError):
    """The analysis plan was locked by the first look at the held-out test."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Error for a misspelt name: shows the near ones, or all of them when none is near.

    Parameters
    ----------
    kind : what the name is of, as the message begins: "Unknown kind 'name'".
    name : as it was given.
    known : names that would do; near ones are found without regard to case.

    Examples
    --------
    >>> print(unknown_name("combiner", "simplx", ["simplex", "mean"]))
    Unknown combiner 'simplx'. Did you mean 'simplex'? Known: mean, simplex.
    >>> print(unknown_name("model", "ridge", []))
    Unknown model 'ridge'. There is none yet.
    """
    names = sorted(known)
    near = get_close_matches(name.casefold(), [n.casefold() for n in names], n=3, cutoff=0.6)
    by_fold = {n.casefold(): n for n in names}
    hint = f" Did you mean {' or '.join(repr(by_fold[n]) for n in near)}?" if near else ""
    told = f"Known: {', '.join(names)}" if names else "There is none yet"
    return UnknownNameError(f"Unknown {kind} {name!r}.{hint} {told}.")


def first_few(values: Iterable[object], limit: int = 10) -> str:
    """The first few values for a message, with the count of the rest.

    >>> first_few(["a", "b", "c"], limit=2)
    "'a', 'b' and 1 more"
    """
    listed = list(values)
    shown = ", ".join(repr(str(v)) for v in listed[:limit])
    return shown if len(listed) <= limit else f"{shown} and {len(listed) - limit:,} more"
