"""What the user says a model was fitted on, block by block, as ``FittedOn``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from pertstack._base.errors import FoldPlanMismatchError, InputError, IntegrityError, first_few
from pertstack.design.blocks import Block
from pertstack.design.provenance import FittedOn
from pertstack.predictions.store.reader import StoreReader

_SUFFIX = re.compile(r"[-_.]\d{1,2}$")  # what joining files puts behind every id
MOST_FOREIGN = 0.1
"""Share of fit rows that may be no samples of the study (controls, other data sets) without a question."""


Kin = Callable[[Set[str], Sequence[str]], frozenset[str]]
"""From fit ids and the ids of a block to those of the block that are of one group with a fit row."""


@runtime_checkable
class HasDigest(Protocol):
    """A fold plan, as far as this room needs it."""

    @property
    def digest(self) -> str: ...


class FittedOnBlocks:
    """Provenance of each block's predictions.

    ``spec`` is a fold plan or its digest (or 'plan': this store's own), a list of sample ids, a table fold -> ids
    (mapping, or DataFrame with columns ``fold`` and ``sample_id``), 'unknown', or a ``FittedOn`` for all blocks alike.
    ``kin`` tells which rows of a block go with listed fit rows without being listed.
    """

    def __init__(self, spec: Any, store: StoreReader, kin: Kin | None = None) -> None:
        self._store, self._also, self._kin = store, None, kin  # type: StoreReader, int | None, Kin | None
        self._fixed: FittedOn | None = None
        self._plan: str | None = None
        self._by_fold: dict[int | None, FittedOn] = {}
        if isinstance(spec, FittedOn):
            self._fixed = spec
            if spec.kind == "plan":
                _same_plan(spec.plan_digest or "", store)
        elif isinstance(spec, str):
            self._word(spec, store)
        elif isinstance(spec, pd.DataFrame | Mapping):
            self._by_fold = _by_fold(spec)
        elif isinstance(spec, HasDigest):
            self._plan = _same_plan(spec.digest, store)
        elif isinstance(spec, Iterable):
            self._fixed = FittedOn.ids([str(i) for i in spec])
            if not self._fixed.fit_ids:
                raise InputError(
                    "fitted_on is an empty list; a model that learned from nothing has no fit rows to list."
                )
        else:
            raise InputError(
                f"fitted_on={spec!r} is not understood. Give a fold plan, ids, a table fold -> ids, or 'unknown'."
            )
        refuse_foreign_ids({i for f in [self._fixed, *self._by_fold.values()] if f for i in f.fit_ids}, store)

    def _word(self, word: str, store: StoreReader) -> None:
        if word == "unknown":
            self._fixed = FittedOn.unknown()
        elif word == "plan":
            if store.plan_digest is None:
                raise InputError(
                    "This store has no fold plan, so fitted_on='plan' says nothing. Give the list of fit rows."
                )
            self._plan = store.plan_digest
        else:
            self._plan = _same_plan(word, store)

    @property
    def by_plan(self) -> bool:
        """Whether a fold plan is what the user vouches by; folds written in the files must then agree with it."""
        return self._plan is not None or (self._fixed is not None and self._fixed.kind == "plan")

    def without(self, fold: int, places: Mapping[str, Any], sample_ids: Sequence[str]) -> FittedOnBlocks:
        """The same for nested predictions: every fit also left out one fold.

        Parameters
        ----------
        fold : that was left out too.
        places : sample -> block and row.
        sample_ids : that are predicted.

        Raises
        ------
        InputError
            Not by the plan, an unknown fold, or rows of that fold or of the test among the predictions.
        """
        folds = sorted({p.block.fold for p in places.values() if p.block.role == "development"})
        if self._plan is None:
            raise InputError("Nested predictions follow the study's plan. Use --fitted-on plan with --without.")
        if fold not in folds:
            raise InputError(f"--without {fold}: this plan has the folds {', '.join(map(str, folds))}.")
        wrong = [s for s in sample_ids if places[s].block.fold in (None, fold)]
        if wrong:
            raise InputError(
                f"--without {fold}: {len(wrong):,} predicted rows lie in fold {fold} or in the test "
                f"({first_few(wrong)}). Nested predictions are of the other folds only, each by a fit that left out "
                f"its own fold and fold {fold}. Take these rows out of the files."
            )
        nested = FittedOnBlocks(self._plan, self._store)
        nested._also = fold
        return nested

    def of(self, block: Block) -> FittedOn:
        """Provenance of this block's predictions."""
        found = self._of(block)
        if found.kind == "ids" and self._kin is not None:
            found = replace(found, near=self._kin(found.fit_ids, self._store.sample_ids(block)))
        return found if self._also is None else replace(found, also_held_out=self._also)

    def _of(self, block: Block) -> FittedOn:
        if self._fixed is not None:
            return self._fixed
        if self._plan is not None:
            return FittedOn.fold_of_plan(self._plan, block.fold if block.role == "development" else None)
        if block.fold in self._by_fold:
            return self._by_fold[block.fold]
        if block.role != "development":  # no line for the test: assume the most any of the models can have seen
            return FittedOn.ids(sorted(set().union(*(f.fit_ids for f in self._by_fold.values()))))
        raise InputError(
            f"fitted_on has no line for fold {block.fold} (block {block.id}); it has {first_few(self._by_fold)}. Say "
            f"for every fold which samples its model was fitted on."
        )


def refuse_foreign_ids(fit_ids: Set[str], store: StoreReader) -> None:
    """Refuse a list of fit rows of which a large part, or any in another spelling, is not a sample of this study.

    Such a list would say that a model has not seen what it has seen.

    Raises
    ------
    IntegrityError
        More than a tenth of the ids (and more than one of a list of eight or more) match no sample, or some match one
        but for case, blanks, zeros or a suffix.
    """
    known = {str(s) for b in store.blocks() for s in store.sample_ids(b)}
    foreign = sorted(fit_ids - known)
    if not foreign:
        return
    alike = _other_spelling(foreign, known)
    few = len(foreign) <= max(MOST_FOREIGN * len(fit_ids), 1 if len(fit_ids) >= 8 else 0)
    if few and not alike:
        return
    like = next(iter(alike.items()), None)
    hint = (
        ""
        if like is None
        else (
            f" {len(alike):,} of them are samples of the study in another spelling, such as {like[0]!r} for "
            f"{like[1]!r}."
        )
    )
    raise IntegrityError(
        f"{len(foreign):,} of {len(fit_ids):,} ids of the rows the model was fitted on are no samples of this study: "
        f"{first_few(foreign)}.{hint} Its samples are called {first_few(sorted(known), 3)}. A row under another name "
        f"would count as one that the model never saw. Write the ids as in the study, and leave out rows of controls "
        f"and of other data sets; if that cannot be done, say --fitted-on unknown."
    )


def _other_spelling(foreign: Sequence[str], known: Set[str]) -> dict[str, str]:
    """Foreign id -> the sample it means, by case, punctuation, leading zeros, or a suffix ``-1`` on one side."""
    whole = {_plain_id(s): s for s in sorted(known)}
    cut = {_plain_id(_SUFFIX.sub("", s)): s for s in sorted(known)}
    found = {i: whole.get(_plain_id(_SUFFIX.sub("", i))) or whole.get(_plain_id(i)) for i in foreign}
    return {i: s for i, s in {i: s or cut.get(_plain_id(i)) for i, s in found.items()}.items() if s is not None}


def _plain_id(name: str) -> str:
    apart = re.sub(r"(?<=\d)[\W_]+(?=\d)", ".", name.strip().casefold())
    return re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"[^\w.]+|_+", "", apart))


def _same_plan(digest: str, store: StoreReader) -> str:
    if digest not in store.facts.plan_digests:
        raise FoldPlanMismatchError(
            f"The predictions were cross-fitted on fold plan {digest[:12]}, but this study uses "
            f"{(store.plan_digest or 'none')[:12]}: they may have seen the samples they predict. Refit on this "
            f"study's plan, or say with fitted_on= which rows each model was fitted on."
        )
    return digest


def _by_fold(spec: Any) -> dict[int | None, FittedOn]:
    if isinstance(spec, pd.DataFrame):
        if not {"fold", "sample_id"} <= set(spec.columns):
            raise InputError(
                f"The fitted_on table has columns {first_few(spec.columns)}; 'fold' and 'sample_id' are needed."
            )
        pairs: dict[Any, Sequence[Any]] = {}
        for fold, ids in spec.groupby("fold", dropna=False)["sample_id"]:
            pairs[fold] = list(ids)
    else:
        pairs = dict(spec)
    found = {_fold(fold): FittedOn.ids([str(i) for i in ids]) for fold, ids in pairs.items()}
    if not found:
        raise InputError("The fitted_on table is empty.")
    return found


def _fold(value: Any) -> int | None:
    if value is None or value is pd.NA or value == "test" or value != value:
        return None
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{value!r} is not a fold. Number the folds 0, 1, 2, ...; write 'test' for the test."
        ) from error


def check_file_folds(
    folds: np.ndarray[Any, Any], sample_ids: Sequence[str], own: Sequence[int | None], *, path: Any
) -> None:
    """Folds written in a file must part the development rows as the plan does, under whatever numbers.

    Parameters
    ----------
    folds : (n,), of the file.
    sample_ids : (n,).
    own : (n,), of the plan; None for test rows, which are not compared.
    path : of the file, for messages.

    Raises
    ------
    FoldPlanMismatchError
        Two samples that the plan keeps apart share a fold in the file, or the other way round.
    """
    pairs: dict[int, set[Any]] = {}
    back: dict[Any, set[int]] = {}
    for theirs, ours in zip(folds.tolist(), own, strict=True):
        if ours is not None:
            pairs.setdefault(ours, set()).add(theirs)
            back.setdefault(theirs, set()).add(ours)
    mixed = {t for t, o in back.items() if len(o) > 1} | {t for ts in pairs.values() if len(ts) > 1 for t in ts}
    if mixed:
        bad = [s for s, t, o in zip(sample_ids, folds.tolist(), own, strict=True) if o is not None and t in mixed]
        raise FoldPlanMismatchError(
            f"{path}: its fold_assignments part the samples otherwise than this study's plan ({len(bad):,} samples, "
            f"such as "
            f"{first_few(bad)}), so the predictions are not out of fold here. Refit on this study's plan, or say with "
            f"fitted_on= which rows each model was fitted on."
        )
