"""What the stack step wrote, read again: its key, its choice, its combiners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pertstack._base.digests import canonical_json
from pertstack._base.errors import CorruptionError, InputError
from pertstack._base.files import read_json
from pertstack.stacking.combiner import FittedCombiner
from pertstack.stacking.registry import make_combiner
from pertstack.stacking.saved import load_fitted
from pertstack.study.development.rows import DevelopmentRows
from pertstack.study.folder import StudyFolder
from pertstack.study.seals import is_sealed
from pertstack.verdict.boards.rows import Kind


@dataclass(frozen=True)
class Stored:
    """The stack step as it lies on disk."""

    key: str
    chosen: str
    models: tuple[str, ...]
    combiners: dict[str, Any]
    accept_unverified: bool


def stored_stack(folder: StudyFolder) -> Stored:
    """What `pertstack stack` wrote; refused when predictions or plan changed since.

    Raises
    ------
    InputError
        There is none, or it is out of date.
    """
    path = folder.results / "weights.json"
    if not path.exists():
        first = "" if folder.store.models() else f" (after `pertstack fit {folder.word} --models ...`)"
        raise InputError(
            f"{folder.root} has no weights yet. Run `pertstack stack {folder.word}`{first}, then the verdict."
        )
    value = read_json(path)
    stored = Stored(
        value["key"],
        value["chosen"],
        tuple(value["models"]),
        combiners=value["combiners"],
        accept_unverified=value["accept_unverified"],
    )
    gone = [m for m in stored.models if m not in folder.store.models()]
    now = None
    if not gone:
        now = development_rows(folder, stored).key({name: facts["params"] for name, facts in stored.combiners.items()})
    if now != stored.key:
        raise InputError(
            f"The predictions or the analysis plan changed since the weights were learned"
            f"{' (gone: ' + ', '.join(gone) + ')' if gone else ''}. Run `pertstack stack {folder.word}` again."
        )
    return stored


def development_rows(folder: StudyFolder, stored: Stored, *, workers: int = 1, memory: str = "1 GB") -> DevelopmentRows:
    """The rows that the stack step learned from.

    Parameters
    ----------
    folder : of the study.
    stored : what the stack step wrote.
    workers : processes that share a pass.
    memory : of a tile, in words.
    """
    return DevelopmentRows(folder, stored.models, stored.accept_unverified, workers=workers, memory=memory)


def final_fits(folder: StudyFolder, stored: Stored, *, workers: int, memory: str) -> dict[str, FittedCombiner]:
    """The combiners fitted on all development rows, as ``weights.npz`` keeps them under the seal of the stack step.

    Without a whole seal, and for combiners of a plug-in that keeps no state, they are learned again from the stored
    sums: they are deterministic.

    Parameters
    ----------
    folder, stored, workers, memory : as in ``development_rows``; the last two are for learning again.

    Raises
    ------
    CorruptionError
        ``weights.npz`` or ``weights.json`` is not what the stack step wrote.
    """
    fits = _loaded(folder)
    rest = [name for name in stored.combiners if name not in fits]
    if rest:
        fits |= learn_again(folder, stored, rest, workers=workers, memory=memory)
    for name, facts in stored.combiners.items():
        if canonical_json(fits[name].weights()) != canonical_json(facts["weights"]):
            raise CorruptionError(
                f"The weights of combiner {name!r} in {folder.results / 'weights.json'} are not those it learned: the "
                f"file was edited, or pertstack changed since. Run `pertstack stack {folder.word}` again."
            )
    return {name: fits[name] for name in stored.combiners}


def fold_fits(folder: StudyFolder, stored: Stored, *, workers: int, memory: str) -> dict[int, FittedCombiner]:
    """The chosen combiner as fitted without each fold, loaded or learned again as ``final_fits`` does.

    Parameters
    ----------
    folder, stored, workers, memory : as in ``final_fits``.
    """
    start = of_fold(stored.chosen, "")
    fits = {int(n.removeprefix(start)): fit for n, fit in _loaded(folder).items() if n.startswith(start)}
    if fits:
        return fits
    combiner = make_combiner(stored.chosen, **stored.combiners[stored.chosen]["params"])
    return dict(development_rows(folder, stored, workers=workers, memory=memory).nested([combiner]).fits[stored.chosen])


def of_fold(combiner: str, fold: int | str) -> str:
    """The name under which ``weights.npz`` keeps a combiner that was fitted without a fold."""
    return f"{combiner}@{fold}"


def _loaded(folder: StudyFolder) -> dict[str, FittedCombiner]:
    """What ``weights.npz`` holds under the seal of the stack step; nothing without a whole seal."""
    path = folder.results / "weights.npz"
    if not is_sealed(folder, "stack", path):
        return {}
    with np.load(path, allow_pickle=False) as file:
        return load_fitted(dict(file))


def learn_again(
    folder: StudyFolder,
    stored: Stored,
    names: Sequence[str],
    *,
    workers: int,
    memory: str,
    sums: Path | None = None,
) -> dict[str, FittedCombiner]:
    """Combiners learned from the stored sums as the stack step did it.

    Parameters
    ----------
    folder, stored, workers, memory : as in ``development_rows``.
    names : of combiners that the stack step fitted.
    sums : an empty folder in which they are summed anew; None for the study's.
    """
    rows = replace(development_rows(folder, stored, workers=workers, memory=memory), sums=sums)
    return {n: make_combiner(n, **stored.combiners[n].get("params", {})).fit(rows.evidence) for n in names}


def kinds_of(stored: Stored) -> dict[str, Kind]:
    """base, combiner, reference or ceiling for every name on the board."""
    kinds: dict[str, Kind] = {}
    for name in stored.combiners:
        kinds[name] = "reference" if make_combiner(name).family == "reference" else "combiner"
    kinds.update({"no_change": "reference", "oracle": "ceiling", "replicate": "ceiling"})
    kinds.update({model: "base" for model in stored.models if model != "no_change"})
    return kinds
