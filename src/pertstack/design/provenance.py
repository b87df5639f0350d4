"""Who a prediction's model was fitted on: the fact on which every honest score rests.

``FittedOn`` travels with each committed prediction. A row may enter a stack only if the model that predicted it never
saw its treated value; what cannot be shown is 'unknown', and unknown is never stacked without the user's explicit word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pertstack._base.digests import digest_names
from pertstack.design.blocks import Block

FittedKind = Literal["plan", "ids", "unknown"]


@dataclass(frozen=True)
class FittedOn:
    """The fit rows of a model.

    ``plan``: fitted on development rows of a fold plan (by digest) outside ``held_out_fold`` (None = all of them) and,
    for a nested fit, outside ``also_held_out``.
    ``ids``: fitted on an explicit list of sample ids; ``near`` are rows that are not in it but of a group that is, or
    that share a part with one of it if parts are kept apart. ``unknown``: the fit rows are not known.
    """

    kind: FittedKind
    plan_digest: str | None = None
    held_out_fold: int | None = None
    fit_ids: frozenset[str] = frozenset()
    ids_digest: str | None = None  # digest of the sorted fit rows, if they are known
    also_held_out: int | None = None  # the second fold that a nested fit left out
    near: frozenset[str] = frozenset()

    @classmethod
    def fold_of_plan(cls, plan_digest: str, held_out_fold: int | None, fit_ids: Sequence[str] = ()) -> FittedOn:
        """Fitted on the development rows outside one fold of a plan.

        Parameters
        ----------
        plan_digest : of the fold plan.
        held_out_fold : not fitted on; None for a fit on all development rows.
        fit_ids : sample ids that were fitted on; empty if they are not known.
        """
        return cls(
            "plan", plan_digest, held_out_fold, ids_digest=digest_names(sorted(fit_ids)) if len(fit_ids) else None
        )

    @classmethod
    def ids(cls, fit_ids: Sequence[str]) -> FittedOn:
        return cls("ids", fit_ids=frozenset(fit_ids), ids_digest=digest_names(sorted(set(fit_ids))))

    @classmethod
    def unknown(cls) -> FittedOn:
        return cls("unknown")

    def saw(self, block: Block, sample_ids: Sequence[str]) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        """Mask (n,) of rows of this block that the model was fitted on, or on their like; None when unknown."""
        n = len(sample_ids)
        if self.kind == "unknown":
            return None
        if self.kind == "plan":
            clean = block.fold in (None, self.held_out_fold, self.also_held_out)
            return np.full(n, not clean)
        return np.fromiter((s in self.fit_ids or s in self.near for s in sample_ids), dtype=bool, count=n)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; the list of ids is written beside (by digest) when it is long, so here only kind and digests."""
        return {
            "kind": self.kind,
            "plan_digest": self.plan_digest,
            "held_out_fold": self.held_out_fold,
            "ids_digest": self.ids_digest,
            "fit_ids": sorted(self.fit_ids),
            **({} if self.also_held_out is None else {"also_held_out": self.also_held_out}),
            **({"near": sorted(self.near)} if self.near else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FittedOn:
        return cls(
            value["kind"],
            value["plan_digest"],
            value["held_out_fold"],
            fit_ids=frozenset(value["fit_ids"]),
            ids_digest=value["ids_digest"],
            also_held_out=value.get("also_held_out"),
            near=frozenset(value.get("near", ())),
        )
