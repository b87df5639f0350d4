"""The prediction store: every model's predictions beside control and treated, block by block, aligned by identity.

A store is a plain directory of AnnData-on-Zarr-v3 blocks (``docs/formats.md``). Writers pass names with the
values; a commit is seen whole or not at all, and the first one stays. Which rows may be used for learning is
decided in ``sources/store_source.py``; files made elsewhere are read by ``importers``; values are committed by
``commits.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from pertstack._base.digests import digest_names
from pertstack._base.errors import ConflictError, StorageError, first_few
from pertstack._base.files import LEASE_SECONDS, storage_error
from pertstack.design.blocks import Block
from pertstack.predictions.store import lifecycle
from pertstack.predictions.store.align import as_names
from pertstack.predictions.store.commits import StoreCommits
from pertstack.predictions.store.files import durable, layout, skeleton
from pertstack.predictions.store.files.names import TRUTH_LAYERS
from pertstack.predictions.store.files.record import Kind
from pertstack.predictions.store.files.rounding import Rounding


class PredictionStore(StoreCommits):
    """Predictions, control and treated of one fold plan and one gene list. Make one with ``create`` or ``open``."""

    def __repr__(self) -> str:
        found = f"{len(self.blocks())} blocks; models: {', '.join(self.models()) or 'none'}"
        return f"PredictionStore({str(self.root)!r}: {len(self.gene_names):,} genes, {found})"

    # -- making and opening ------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, root: str | Path, gene_names: Iterable[object], plan_digest: str | None = None) -> PredictionStore:
        """A new, empty store.

        Parameters
        ----------
        root : folder to make.
        gene_names : in the order of all columns.
        plan_digest : of the fold plan; None for a store without.

        Raises
        ------
        ConflictError
            There is a store already.
        InputError
            Gene names are empty or not unique.
        StorageError
            Not writable, or a file system on which commits would not be safe.
        """
        root = Path(root)
        if (root / "zarr.json").exists():
            raise ConflictError(f"{root} already holds a store. Open it, or choose another folder.")
        genes = as_names(gene_names)
        try:
            facts = layout.create_root(root, genes, plan_digest)
        except OSError as error:
            raise error if isinstance(error, StorageError) else storage_error(error, root) from error
        durable.probe_rename(root)
        return cls(root, facts, genes, read_only=False)

    def extend_plan(self, new_digest: str) -> None:
        """Move to a plan that only appended samples to the present one; what was committed under the old one stays
        valid.

        That the new plan truly extends the old is the caller's word (``FoldPlan.extend`` gives no other).
        """
        self._writable()
        self.facts = lifecycle.extend_plan(self.root, self.facts, new_digest)

    # -- blocks ------------------------------------------------------------------------------------------------------

    def add_block(self, block: Block, obs: pd.DataFrame, *, rounding: Rounding | None = None) -> bool:
        """Register a block: its samples in the plan's order. For ever; one process does this.

        Parameters
        ----------
        block : of the store.
        obs : its samples, index = sample ids.
        rounding : of its layers, which are kept in 16 bits then; None for float32.

        Returns False for an empty ``obs`` (empty blocks are not registered) and True otherwise, also when the same
        block was there before.

        Raises
        ------
        ConflictError
            The block exists with other samples, or a sample is in another block.
        """
        self._writable()
        ids = skeleton.check_obs(block, obs)
        if not ids:
            return False
        target = layout.block_folder(self.root, block)
        if not target.exists():
            self._refuse_known_samples(block, ids)
            with durable.staging(self.root) as folder:
                try:
                    staged = skeleton.write_skeleton(folder, block, obs, gene_names=self._genes, rounding=rounding)
                    durable.flush_tree(staged)
                    durable.publish(staged, target)
                except OSError as error:
                    raise storage_error(error, target) from error
        if self.block_facts(block)["samples_sha256"] != digest_names(ids):
            raise ConflictError(
                f"Block {block.id} is already registered with {self.n_samples(block):,} other samples (or in another "
                f"order) than these {len(ids):,}. Rows of a block never change; new samples go into a new segment."
            )
        self._ids[block] = ids
        return True

    def _refuse_known_samples(self, block: Block, ids: list[str]) -> None:
        new = set(ids)
        for other in self.blocks():
            twice = new.intersection(self.sample_ids(other))
            if twice:
                raise ConflictError(
                    f"Block {block.id}: {len(twice):,} samples are already in block {other.id}: "
                    f"{first_few(sorted(twice))}. A sample belongs to one block only."
                )

    # -- life of what was committed ----------------------------------------------------------------------------------

    def mark_absent(self, block: Block, model: str, reason: str) -> None:
        """Say that a model will not come for a block.

        Parameters
        ----------
        block, model : which.
        reason : in words.

        Raises
        ------
        ConflictError
            It is committed there.
        """
        self._writable()
        if self.status(block, model) == "committed":
            raise ConflictError(f"{model!r} is committed in block {block.id}; it cannot be absent. Withdraw it first.")
        lifecycle.mark_absent(self.root, block, model, reason=reason)

    def retract(self, block: Block, model: str, reason: str, *, kind: Kind = "layer") -> Path:
        """Take a committed array out of sight by one rename; it stays under ``retracted/``, whose folder is returned.

        Parameters
        ----------
        block, model : which.
        reason : in words, kept beside it.
        kind : "layer" or "embedding".

        Raises
        ------
        UnknownNameError
            Nothing is committed.
        """
        self._writable()
        self.record(block, model, kind)
        return lifecycle.retract(self.root, block, model, reason=reason, kind=kind)

    def snapshot(self, models: Sequence[str] | None = None) -> str:
        """Pin which content an evaluation used; returns the sha256 that belongs into its results."""
        self._writable()
        records = [r for r in self.records() if models is None or r.model in models or r.model in TRUTH_LAYERS]
        return lifecycle.write_snapshot(self.root, records)

    def gc(self, *, lease_seconds: float = LEASE_SECONDS) -> list[Path]:
        """Remove staging folders of writers that are gone; returns what was removed."""
        self._writable()
        return lifecycle.gc(self.root, lease_seconds)
