"""Taking a model out: the ledger says so first, then its predictions are set aside; a stop in between is made good."""

from __future__ import annotations

from pertstack._base.errors import InputError, unknown_name
from pertstack.predictions.store.files.names import nested_name
from pertstack.study.folder import StudyFolder


def withdraw_model(folder: StudyFolder, model: str, why: str) -> int:
    """Record the reason in the ledger, then set the model's predictions aside; returns the number of blocks.

    Parameters
    ----------
    folder : of the study; the caller holds its lock.
    model : name of the model in the study. One that is withdrawn already stays so.
    why : the reason, as the ledger keeps it.

    Raises
    ------
    UnknownNameError, InputError
        No such model; no reason.
    """
    store = folder.store
    if model in folder.withdrawn() and model not in store.models():
        return withdrawn_blocks(folder, model)
    if model not in store.models():
        raise unknown_name("model of this study", model, store.models())
    if not why.strip():
        raise InputError("Give a reason; it is recorded in the ledger.")
    blocks = [b for b in store.blocks() if store.status(b, model) == "committed"]
    folder.ledger.append("model_withdrawn", model=model, reason=why, blocks=len(blocks))
    finish_withdrawals(folder)
    return len(blocks)


def finish_withdrawals(folder: StudyFolder) -> None:
    """Set aside what is still there of models that the ledger calls withdrawn, nested predictions included."""
    store = folder.store
    for model, why in folder.withdrawn().items():
        names = [model, *(nested_name(model, fold) for fold in range(folder.plan.n_folds))]
        for block in store.blocks():
            for name in names:
                if store.status(block, name) == "committed":
                    store.retract(block, name, why)


def withdrawn_blocks(folder: StudyFolder, model: str) -> int:
    """How many blocks the last withdrawal of a model set aside, from the ledger."""
    return int(
        next(e.facts["blocks"] for e in reversed(folder.ledger.of_kind("model_withdrawn")) if e.facts["model"] == model)
    )
