"""What the audit asks of the records of predictions: that the ledger, or the log of a fit, tells how they came.

Whether a record is whole is asked by the store, whether it is what the last stack step sealed by ``study/seals.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from pertstack._base.errors import CorruptionError, StackingError, first_few
from pertstack._base.files import read_json
from pertstack._base.findings import Finding
from pertstack.design.analysis_plan import OPENED
from pertstack.design.blocks import Block
from pertstack.design.ledger_lines import Entry
from pertstack.predictions.store.files.names import nested_name
from pertstack.predictions.store.files.record import Record
from pertstack.study.folder import StudyFolder
from pertstack.study.members import older_lists


def records_as_told(folder: StudyFolder) -> list[Finding]:
    """Predictions of withdrawn models, those that neither an ``add`` in the ledger nor a fit accounts for, those that
    an ``add`` told and that are gone, and those whose list of fit rows was read by a weaker rule."""
    entries = folder.ledger.entries()
    gone = folder.withdrawn()
    found = [f for model in gone if (f := _put_back(folder, entries, model)) is not None]
    for model in folder.store.models():
        if model not in gone and (blocks := _untold(folder, entries, model)):
            text = (
                f"{folder.store.root} holds predictions of {model!r} ({first_few(blocks, 3)}) of which no line of "
                f"{folder.ledger.path} tells: `pertstack add` was interrupted, or they were put there by hand. Run "
                f"the same `pertstack add` again, or take them out with "
                f'`pertstack withdraw {folder.word} {quote(model)} --why "..."`.'
            )
            found.append(_finding("predictions_untold", text, folder, blocks))
    for model, blocks in _lost(folder, entries).items():
        text = (
            f"{folder.store.root} holds no predictions of {model!r} for {first_few(blocks, 3)}, and "
            f"{folder.ledger.path} tells that they were added. Those samples would count as never predicted: restore "
            f"them from a copy, or run the same `pertstack add {folder.word} {quote(model)} FILES` again."
        )
        found.append(_finding("predictions_gone", text, folder, blocks))
    older = older_lists(folder).items()
    return [*found, *(Finding("warning", "fit_rows_by_older_rule", text, where=model) for model, text in older)]


def require_told(folder: StudyFolder) -> None:
    """Refuse to learn from predictions that the ledger contradicts.

    Raises
    ------
    CorruptionError
        Names the first model.
    """
    wrong = [f for f in records_as_told(folder) if f.severity == "error"]
    if wrong:
        raise CorruptionError(f"Nothing was stacked. {wrong[0].message}")


def _put_back(folder: StudyFolder, entries: tuple[Entry, ...], model: str) -> Finding | None:
    """Every command that writes sets a withdrawn model aside first: what is there after one was put there."""
    there = [b.id for b, _ in _layers(folder, model)]
    if not there:
        return None
    entry = next(e for e in reversed(entries) if e.kind == "model_withdrawn" and e.facts["model"] == model)
    later = any(e.index > entry.index and e.kind != OPENED for e in entries)
    text = f"{folder.store.root} holds predictions of {model!r} ({first_few(there, 3)}), which was withdrawn on "
    text += f"{entry.time}: "
    if later or _set_aside(folder, model) & set(there):
        text += "they were put back by hand. The next command that writes sets them aside again."
        return _finding("withdrawn_put_back", text, folder, there)
    text += "the withdrawal was interrupted, or they were put back. The next command that writes sets them aside."
    where, n = str(folder.store.root), len(there)
    return Finding("warning", "withdrawal_unfinished", text, count=n, examples=tuple(there[:10]), where=where)


def _set_aside(folder: StudyFolder, model: str) -> set[str]:
    """Blocks whose predictions of a model lie among those that were retracted."""
    found = set()
    for path in folder.path("store", "retracted").glob("*/retraction.json"):
        try:
            value = read_json(path)
            whole = value["model"] == model and any(p.is_dir() for p in path.parent.iterdir())
            found |= {str(value["block"])} if whole else set()
        except (StackingError, KeyError, TypeError):
            continue  # a finding of the store
    return found


def _untold(folder: StudyFolder, entries: tuple[Entry, ...], model: str) -> list[str]:
    """Blocks with predictions of a model that came neither by a line of the ledger nor from a fit of it."""
    told: set[tuple[str, str]] | None = set()
    for entry in entries:
        if entry.facts.get("model") != model:
            continue
        if entry.kind == "model_withdrawn":
            told = set()
        elif entry.kind == "model_added" and told is not None:
            blocks = entry.facts.get("blocks")  # an older version wrote none: then all of the model is taken as told
            told = told | set(blocks.items()) if isinstance(blocks, dict) else None
    found = []
    for block, record in _layers(folder, model):
        if record is None or (told is None and record.meta.get("kind") == "added"):
            continue
        if record.meta.get("kind") == "cross_fit":
            by_a_fit = isinstance(job := record.meta.get("job"), dict) and job.get("model") == model
        else:
            by_a_fit = False
        if not by_a_fit and (block.id, record.digest) not in (told or ()):
            found.append(block.id)
    return list(dict.fromkeys(found))


def _lost(folder: StudyFolder, entries: tuple[Entry, ...]) -> dict[str, list[str]]:
    """Blocks for which a model was added since it was last withdrawn, and of which nothing is there."""
    told: dict[str, list[str]] = {}
    for entry in entries:
        blocks, model = entry.facts.get("blocks"), str(entry.facts.get("model"))
        if entry.kind == "model_withdrawn":
            told.pop(model, None)
        elif entry.kind == "model_added" and isinstance(blocks, dict):
            told[model] = sorted({*told.get(model, []), *blocks})
    there = {model: {block.id for block, _ in _layers(folder, model)} for model in told}
    lost = {model: [b for b in blocks if b not in there[model]] for model, blocks in told.items()}
    return {model: blocks for model, blocks in lost.items() if blocks}


def _layers(folder: StudyFolder, model: str) -> Iterator[tuple[Block, Record | None]]:
    """Everything that is committed of a model, nested predictions too; None for a damaged record (of which the store
    tells)."""
    for block in folder.store.blocks():
        for name in (model, *(nested_name(model, fold) for fold in range(folder.plan.n_folds))):
            try:
                record = folder.store.find(block, name)
            except (StackingError, KeyError, TypeError, ValueError):
                yield block, None
                continue
            if record is not None:
                yield block, record


def _finding(code: str, text: str, folder: StudyFolder, blocks: list[str]) -> Finding:
    where, n = str(folder.store.root), len(set(blocks))
    return Finding("error", code, text, count=n, examples=tuple(dict.fromkeys(blocks))[:10], where=where)
