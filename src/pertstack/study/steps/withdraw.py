"""Taking a model out: the ledger says so first, then its predictions are set aside; a stop in between is made good."""

from __future__ import annotations

from pertstack.predictions.store.names import nested_name
from pertstack.study.folder import StudyFolder


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
