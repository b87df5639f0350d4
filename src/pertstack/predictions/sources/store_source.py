"""Blocks from a store on disk, as ``reduce/``, ``stack/`` and ``verdict/`` read them.

This is where provenance is enforced: a row is sound only when the record shows that the model never saw its treated
value. The treated values of the test are read only from the ``truth`` store, which only ``verdict/`` provides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from pertstack._base.digests import digest_array
from pertstack._base.errors import FoldPlanMismatchError, LeakError, MisalignedError, first_few, unknown_name
from pertstack.data.rows import Float32, Names
from pertstack.design.blocks import Block
from pertstack.predictions.source import Mask
from pertstack.predictions.sources.embedding import RowEmbeddings
from pertstack.predictions.sources.training_distance import COLUMN, TrainingDistance
from pertstack.predictions.store.files.anchors import fit_of
from pertstack.predictions.store.files.names import TRUTH_LAYERS
from pertstack.predictions.store.files.record import Record
from pertstack.predictions.store.store import PredictionStore


class StoreSource:
    """A ``BlockSource`` over a store.

    Parameters
    ----------
    store
        Predictions and control; treated of development rows.
    truth
        Store with the treated values of test rows; needed only to read them.
    role
        Which blocks are shown: 'development', 'test' or 'all'.
    models
        Names and their order; default: all in the store, sorted.
    groups
        Group of the fold plan by sample id; becomes the column ``group`` of ``obs``. Default: the perturbation.
    nested
        ``models`` are layers of nested fits (for ``WithoutFold``).
    accept_unverified
        The user's explicit word that models of unknown provenance may be used.
    distance
        Adds the column ``training_distance`` to ``obs``: how far each row is from what its fit was trained on.
    without
        A second fold that the fits never saw (nested fits).
    """

    def __init__(
        self,
        store: PredictionStore,
        truth: PredictionStore | None = None,
        role: Literal["development", "test", "all"] = "development",
        models: Sequence[str] | None = None,
        groups: pd.Series | None = None,
        accept_unverified: bool = False,
        nested: bool = False,
        distance: TrainingDistance | None = None,
        without: int | None = None,
    ) -> None:
        self.store, self.truth, self.role = store, truth, role
        known = store.models(nested=nested)
        chosen = tuple(known if models is None else models)
        for name in chosen:
            if name not in known:
                raise unknown_name("model", name, known)
        if len(set(chosen)) != len(chosen):
            raise MisalignedError(f"Models are named twice: {first_few(chosen)}. Name each model once.")
        self._models = chosen
        self._groups = groups
        self.accept_unverified = accept_unverified
        self.distance, self._without = distance, without
        self._obs: dict[Block, pd.DataFrame] = {}

    @property
    def gene_names(self) -> Names:
        return self.store.gene_names

    @property
    def models(self) -> tuple[str, ...]:
        return self._models

    def blocks(self) -> list[Block]:
        return self.store.blocks(None if self.role == "all" else self.role)

    def obs(self, block: Block) -> pd.DataFrame:
        if block not in self._obs:
            self._obs[block] = self._joined(block)
        return self._obs[block].copy()

    def _joined(self, block: Block) -> pd.DataFrame:
        """What the store knows of the samples, with their groups and their distance from what was trained on."""
        obs = self.store.obs(block)
        if "cell_line" not in obs:
            obs["cell_line"] = block.cell_line
        if self._groups is not None:
            group = self._groups.reindex(obs.index)
            if group.isna().any():
                raise MisalignedError(
                    f"Block {block.id}: no group known for {first_few(obs.index[group.isna()])}. The groups must come "
                    f"from the fold plan of this study."
                )
            obs["group"] = group.to_numpy()
        elif "group" not in obs:
            obs["group"] = obs["perturbation"].to_numpy()
        if self.distance is not None:
            outside = (block.fold, self._without) if block.fold is not None else ()
            obs[COLUMN] = self.distance.of(obs["perturbation"], outside=outside)
        return obs

    def read(self, block: Block, layer: str, *, start: int, stop: int, out: Float32 | None = None) -> Float32:
        """Rows [start, stop) of a layer; a model that did not predict this block reads as NaN (``sound`` says so
        exactly)."""
        if layer in TRUTH_LAYERS and layer != "control" and block.fold is None:
            return self._truth_of(block).read(block, layer, start=start, stop=stop, out=out)
        if layer not in TRUTH_LAYERS and self.store.find(block, layer) is None:
            self._known(layer)
            out = np.empty((stop - start, self.store.facts.n_genes), np.float32) if out is None else out
            out[...] = np.nan
            return out
        return self.store.read(block, layer, start=start, stop=stop, out=out)

    def prefetch(self, block: Block, layer: str, *, start: int, stop: int) -> None:
        """Ask the disk for rows that are read soon; treated values of the test only if ``truth`` was given."""
        if layer in TRUTH_LAYERS and layer != "control" and block.fold is None:
            if self.truth is not None:
                self.truth.prefetch(block, layer, start=start, stop=stop)
            return
        self.store.prefetch(block, layer, start=start, stop=stop)

    def _truth_of(self, block: Block) -> PredictionStore:
        if self.truth is None:
            raise LeakError(
                f"Block {block.id} is held-out test: its treated values are opened by the verdict only, once, with an "
                f"entry in the ledger. Run `pertstack verdict`."
            )
        theirs, ours = self.truth.block_facts(block), self.store.block_facts(block)
        for what in ("samples_sha256", "genes_sha256"):
            if theirs[what] != ours[what]:
                raise MisalignedError(
                    f"Block {block.id}: the test truth at {self.truth.root} has other {what.split('_')[0]} than the "
                    f"store at {self.store.root}. They belong to different studies; use the truth made with this one."
                )
        return self.truth

    def sound(self, block: Block, model: str) -> Mask:
        """(n,) rows that ``model`` predicted and provably did not see.

        Raises
        ------
        LeakError
            The model's training rows are unknown, and the user did not accept that.
        FoldPlanMismatchError
            The model was cross-fitted on another fold plan.
        """
        record = self._find(block, model)
        if record is None:
            return np.zeros(self.store.n_samples(block), dtype=bool)
        ids = self.store.sample_ids(block)
        predicted = ~np.isin(np.asarray(ids, dtype=object), record.missing_samples)
        assert record.fitted_on is not None, record
        self._check_plan(record)
        saw = record.fitted_on.saw(block, ids)
        if saw is None:
            if not self.accept_unverified:
                raise LeakError(
                    f"The samples that {model!r} was fitted on are unknown, so every score of an ensemble with it may "
                    f"be a leak. "
                    f"Add it again with its fold plan or list of fit rows, leave it out, or accept it explicitly as "
                    f"unverified."
                )
            return predicted
        return predicted & ~saw

    def _check_plan(self, record: Record) -> None:
        fitted = record.fitted_on
        if fitted is None or fitted.kind != "plan" or fitted.plan_digest in self.store.facts.plan_digests:
            return
        ours = self.store.plan_digest or "none"
        theirs = fitted.plan_digest or "none"
        raise FoldPlanMismatchError(
            f"{record.model!r} in block {record.block.id} was cross-fitted on fold plan {theirs[:12]}, but this store "
            f"holds "
            f"fold plan {ours[:12]}: its predictions may have seen the samples they predict. Refit the model on plan "
            f"{ours[:12]}, or open a study for plan {theirs[:12]}."
        )

    def genes_of(self, block: Block, model: str) -> Mask:
        """(n_genes,) genes ``model`` predicts in this block."""
        record = self._find(block, model)
        if record is None:
            return np.zeros(self.store.facts.n_genes, dtype=bool)
        return ~np.isin(self.store.gene_names, record.missing_genes)

    def embedding(self, block: Block, model: str, *, start: int, stop: int) -> RowEmbeddings | None:
        """Rows [start, stop) as the fit that predicted them describes them; None when it gave no embedding.

        Rows that the model did not predict, or was fitted on, are NaN.
        """
        layer = self._find(block, model)
        record = self.store.find(block, model, "embedding")
        if layer is None or record is None:
            return None
        values = self.store.read_embedding(block, model, start=start, stop=stop)
        ids = np.asarray(self.store.sample_ids(block)[start:stop], dtype=object)
        gone = np.isin(ids, record.missing_samples) | ~self.sound(block, model)[start:stop]
        if gone.any():
            values = np.where(gone[:, None], np.float32(np.nan), values)
        fit = fit_of(record)
        anchors = self.store.anchors_of(record) if fit is not None and fit == fit_of(layer) else None
        if fit is None or anchors is None:
            return RowEmbeddings(values, None, "", fit or "")
        return RowEmbeddings(values, anchors.values, anchors.ids_digest, fit)

    def embedding_digest(self, block: Block, model: str) -> str:
        """Content digest of an embedding and its anchors; 'missing' if there is none."""
        record = self.store.find(block, model, "embedding")
        anchors = None if record is None else self.store.anchors_of(record)
        if record is None:
            return "missing"
        return record.digest if anchors is None else f"{record.digest}+{digest_array(anchors.values)}"

    def layer_digest(self, block: Block, layer: str) -> str:
        """Content digest of a layer; 'missing' if the model did not predict the block."""
        if layer in TRUTH_LAYERS and layer != "control" and block.fold is None:
            return self._truth_of(block).record(block, layer).digest
        record = self.store.find(block, layer)
        if record is None:
            self._known(layer)
            return "missing"
        return record.digest

    def _find(self, block: Block, model: str) -> Record | None:
        self._known(model)
        return self.store.find(block, model)

    def _known(self, model: str) -> None:
        if model not in self._models:
            raise unknown_name("model", model, self._models)
