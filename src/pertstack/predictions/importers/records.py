"""What is recorded of files of predictions, and what their records may not say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pertstack._base.digests import digest_json
from pertstack._base.errors import LeakError, first_few
from pertstack._base.findings import Finding
from pertstack.data import Card
from pertstack.predictions.importers.by_key import KeyMatch
from pertstack.predictions.importers.cards import NamedTransform, check_cards, sidecar
from pertstack.predictions.importers.checks.sampled import Place
from pertstack.predictions.importers.checks.scale import Scale
from pertstack.predictions.importers.fitted import FittedOnBlocks
from pertstack.predictions.importers.readers.files import PredictionFile


def fold_words(fold: int | None) -> str:
    """A fold by its number; None is the held-out test."""
    return "the held-out test" if fold is None else f"fold {fold}"


def refuse_straddling(matches: list[KeyMatch], places: Mapping[str, Place], fitted: FittedOnBlocks) -> None:
    """One prediction for samples of two folds comes from one fit, which cannot have left out both as the plan does.

    Parameters
    ----------
    matches : which row of a file serves which samples.
    places : sample -> block and row.
    fitted : what the models were fitted on.

    Raises
    ------
    LeakError
        With the first of them.
    """
    if not fitted.by_plan:
        return
    for match in matches:
        fold: dict[int, tuple[str, int | None]] = {}
        for sample, row in zip(match.file.sample_ids, match.row_of.tolist(), strict=True):
            own = places[sample].block.fold
            other, there = fold.setdefault(row, (sample, own))
            if there != own:
                raise LeakError(
                    f"{match.file.path}: one prediction serves {other!r} in {fold_words(there)} and {sample!r} in "
                    f"{fold_words(own)}. One fit made it, and the plan asks for two, each without its own fold: one "
                    f"of them was in-sample. Say what the model was fitted on with --fitted-on FILE, or give the "
                    f"samples their own rows, named by sample id."
                )


def cards_of(
    files: list[PredictionFile],
    own: Card | None,
    given: Mapping[str, Any] | None,
    scale: Scale,
    mapping: NamedTransform | None,
    name: str,
) -> list[Finding]:
    """The study's card against the one in each file, else beside it, else the one given.

    Parameters
    ----------
    files : of one model.
    own : card of the study; None if it has none.
    given : card for files that carry none.
    scale : of the files.
    mapping : map to the study's scale; None if none is named.
    name : of the model.
    """
    if own is None:
        return []
    cards: dict[str, Mapping[str, Any] | None] = {
        str(f.path): next((c for c in (f.card, sidecar(f.path), given) if c is not None), None) for f in files
    }
    return check_cards(own, cards, scale=scale, transform=mapping, name=name)


def file_meta(files: list[PredictionFile]) -> dict[str, Any]:
    """What the files say of the model, and which files they were."""
    facts: dict[str, Any] = {"files": [f.path.name for f in files]}
    for file in files:
        for key, value in file.meta.items():
            if facts.setdefault(key, value) != value:
                facts[key] = [facts[key], value]
    facts["model_digest"] = digest_json({k: v for k, v in facts.items() if k not in ("files", "timestamp")})
    return facts


def slots_in_words(files: list[PredictionFile]) -> str:
    """Which matrix was read, and which others the files hold, for a person who must name the right one."""
    several = next((f for f in files if f.other_slots), None)
    if several is None:
        return ""
    return (
        f" {several.slot} of {several.path.name} was read; it also holds {first_few(several.other_slots)}: name the "
        f"predictions with --layer."
    )
