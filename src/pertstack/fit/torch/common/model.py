"""What all torch models have in common: fit, predict and embed around a network and a training step.

A model states its network (``build``), its loss and, if it differs, its optimisers and validation. Scaling,
encoding, inner validation, batches and devices are settled here, so that no model can do them differently.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from pertstack._base.errors import InputError, ModelFailedError, first_few
from pertstack.data.rows import FitRows, Float32, PredictRows
from pertstack.fit.base import Needs
from pertstack.fit.inner_split import inner_split
from pertstack.fit.torch import NEEDS
from pertstack.fit.torch.common.batches import Batch, Index, Table
from pertstack.fit.torch.common.checkpoint import Identity, fit_identity
from pertstack.fit.torch.common.framework import Tensor, torch
from pertstack.fit.torch.common.inputs import Encoder, refuse_not_finite
from pertstack.fit.torch.common.make_settings import make_settings
from pertstack.fit.torch.common.network import Network, Optimisers, Sizes, autocast, hide, update
from pertstack.fit.torch.common.settings import SETTINGS, Settings
from pertstack.fit.torch.common.trainer import Curve, Job, explained, pick_device, torch_session, train

PREDICT_ROWS = 128
"""Every predicted batch has this many rows (the last is padded): a row's answer ignores its neighbours."""
PREDICT_GENES = 1024
"""Genes of a per-gene network at once: bounds memory, 128 x 1,024 x width."""


class TorchModel:
    """Base of the torch models; a ``BaseModel`` with ``embed``, ``curve`` and optional checkpoints.

    ``curve`` holds one dict per epoch (fit losses, validation error in the standardised scale). ``checkpoint`` is a
    file to keep the state of a running fit in, ``plan_digest`` the fold plan it belongs to; both are set before
    ``fit``.
    """

    name: ClassVar[str]
    needs: ClassVar[Needs]
    uses_features: ClassVar[bool | str] = True
    per_gene: ClassVar[bool] = False  # can learn on some genes per step

    def __init__(self, **params: Any) -> None:
        self.settings: Any = make_settings(SETTINGS[self.name], self.name, params)
        self.curve: Curve = []
        self.seconds = 0.0
        self.best_epoch: int | None = None
        self.checkpoint: Path | None = None
        self.checkpoint_seconds = 30.0
        self.plan_digest: str | None = None
        self.notes: dict[str, Any] | None = None  # what a reader of the job's record should know
        self.encoder: Encoder | None = None
        self.net: Network | None = None
        self.device = torch.device("cpu")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            cls.needs = NEEDS[cls.name]

    def params(self) -> dict[str, Any]:
        """Every hyper-parameter as plain JSON."""
        settings: Settings = self.settings
        return settings.to_json()

    # -- what a model states ------------------------------------------------------------------------------------------

    def build(self, sizes: Sizes, rows: FitRows, encoder: Encoder) -> Network:
        """The untrained network; drawn from the global generator, which is seeded for the time of the fit.

        Parameters
        ----------
        sizes : of inputs and outputs.
        rows : fitted on.
        encoder : fitted on the same rows.
        """
        raise TypeError(f"{self.name} does not say how it is built")

    def optimisers(self, net: Network) -> Optimisers:
        """Adam on everything, unless a model needs several."""
        s = self.settings
        return [torch.optim.Adam(net.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay)]

    def step(
        self, net: Network, optimisers: Optimisers, batch: Batch, *, step: int, device: torch.device
    ) -> dict[str, Tensor]:
        """One update; its losses by name.

        Parameters
        ----------
        net : in training mode.
        optimisers : of its parameters.
        batch : of training rows, on the device.
        step : number of the update, from 0.
        device : for mixed precision.
        """
        with autocast(device, self.settings):
            losses = net.loss(batch, step)
        update(net.parameters(), optimisers, losses["loss"], clip=self.settings.gradient_clip)
        return losses

    def validation(self, net: Network, table: Table, rows: Index) -> float:
        """Error on inner validation rows, lower is better: mean squared error of the prediction, standardised.

        Parameters
        ----------
        net : in evaluation mode.
        table : of the fit rows, with truth.
        rows : (n,) positions of the validation rows.
        """
        assert table.treated is not None
        total = 0.0
        for start in range(0, len(rows), PREDICT_ROWS):
            part = rows[start : start + PREDICT_ROWS]
            batch = table.batch(part, self.device)
            total += float(((self.answer(net, batch) - batch.truth) ** 2).sum())
        return float(total / (len(rows) * table.control.shape[1]))

    def answer(self, net: Network, batch: Batch) -> Tensor:
        """Standardised prediction of a trained network, (B, n_genes); per-gene networks some genes at a time."""
        n_genes = batch.x1.shape[1]
        with torch.no_grad(), autocast(self.device, self.settings):
            if not self.per_gene or n_genes <= PREDICT_GENES:
                return net.predict(batch).float()
            genes = torch.split(torch.arange(n_genes, device=batch.x1.device), PREDICT_GENES)
            return torch.cat([net.predict(replace(batch, genes=part)).float() for part in genes], dim=1)

    def describe(self, net: Network, batch: Batch) -> Tensor:
        """Embedding of a trained network, (B, d)."""
        with torch.no_grad(), autocast(self.device, self.settings):
            return net.embed(batch).float()

    def finish(self, net: Network, table: Table, rows: FitRows) -> None:
        """What is computed from the fit rows once the weights are there; nothing by default.

        Parameters
        ----------
        net : in evaluation mode, with the weights that are kept.
        table : of the fit rows.
        rows : the same rows, as they came.
        """

    def encode(self, encoder: Encoder, rows: PredictRows) -> Table:
        """Rows to predict, with what a model adds to them."""
        return encoder.encode(rows)

    def trained_rows(self, fit: Index, validation: Index) -> Index:
        """Positions that batches are cut from."""
        return fit

    # -- the contract -------------------------------------------------------------------------------------------------

    def fit(self, rows: FitRows, *, rng: np.random.Generator) -> Self:
        """Learn from fit rows. Bit-identical for the same rows, hyper-parameters, threads and seed on a CPU.

        Raises
        ------
        InputError
            Fewer than 2 rows; missing features or targets under the policy "raise".
        ModelFailedError
            The loss is not finite, or memory ran out.
        """
        if rows.n_samples < 2:
            raise InputError(f"{self.name} was given {rows.n_samples} fit row(s); a network needs at least 2.")
        started, s = time.monotonic(), self.settings
        refuse_not_finite(rows, self.name)
        seed, split_rng = int(rng.integers(2**62)), np.random.default_rng(rng.integers(2**62))
        self.device = pick_device(s.device)
        with torch_session(self.device, s.threads, seed), explained(self.name, s):
            rows = self._encoder_for(rows)
            assert self.encoder is not None
            table = self.encoder.encode(rows, rows.treated)
            sizes = Sizes(rows.n_genes, self.encoder.n_features, len(self.encoder.lines) + 1)
            self.net = self.build(sizes, rows, self.encoder).to(self.device)
            progress = train(self._job(rows, table, self.net, rng=split_rng, seed=seed))
            self.finish(self.net, table, rows)
        if self.checkpoint is not None:
            self.checkpoint.unlink(missing_ok=True)
        self.curve = progress.curve
        self.best_epoch = progress.best_epoch if progress.best_epoch >= 0 else None
        self.seconds = time.monotonic() - started
        return self

    def predict(self, rows: PredictRows) -> Float32:
        """Treated profiles (n_samples, n_genes) in the input scale."""
        encoder, net = self._fitted()
        out = encoder.scaler.invert(self._run(rows, lambda batch: self.answer(net, batch), rows.n_genes))
        if not np.isfinite(out).all():
            bad = np.flatnonzero(~np.isfinite(out).all(axis=1))
            raise ModelFailedError(
                f"{self.name} predicts values that are not finite for {first_few(rows.sample_ids[bad], 5)}. Look for "
                f"extreme values in their controls, or fit with a smaller learning_rate."
            )
        return out

    def embed(self, rows: PredictRows) -> Float32:
        """One vector per row, (n_samples, d) float32, computed without the treated profile."""
        _, net = self._fitted()
        return self._run(rows, lambda batch: self.describe(net, batch), None)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _fitted(self) -> tuple[Encoder, Network]:
        if self.encoder is None or self.net is None:
            raise InputError(f"{self.name} was asked before it was fitted. Call fit first.")
        return self.encoder, self.net

    def _encoder_for(self, rows: FitRows) -> FitRows:
        """Fit the encoder; under the policy "drop" on rows of known perturbations alone, which are returned."""

        def fitted(on: FitRows) -> Encoder:
            return Encoder.fit(
                on, self.settings, model=self.name, features=self.uses_features, targets=self.needs.targets
            )

        self.encoder = fitted(rows)
        if self.settings.on_missing_structure != "drop":
            return rows
        known = self.encoder.knows(rows)
        left_out = int((~known).sum())
        if known.sum() < 2:
            raise InputError(
                f"{self.name}: {left_out:,} of {rows.n_samples:,} fit rows have perturbations of which nothing is "
                f"known, and on_missing_structure = 'drop' leaves fewer than 2. Give structures or targets, or 'mask'."
            )
        if left_out:
            rows = rows.take(known)
            self.encoder = fitted(rows)
        self.notes = {"rows_not_fitted_on": left_out}
        return rows

    def _job(self, rows: FitRows, table: Table, net: Network, rng: np.random.Generator, seed: int) -> Job:
        s, device = self.settings, self.device
        everyone = np.arange(rows.n_samples, dtype=np.int64)
        fit, held = everyone, everyone[:0]
        if s.validation_share > 0 and len(np.unique(rows.group.astype(str))) > 1:
            inside, outside = inner_split(rows, s.validation_share, rng)
            if inside.sum() >= 2:
                fit, held = np.flatnonzero(inside), np.flatnonzero(outside)
        generator = torch.Generator().manual_seed(seed)
        optimisers = self.optimisers(net)
        identity: Identity | None = None
        if self.checkpoint is not None:
            identity = fit_identity(rows, self.name, {**self.params(), "seed": seed}, plan_digest=self.plan_digest)
        return Job(
            self.name,
            net,
            s,
            device,
            self.trained_rows(fit, held),
            optimisers,
            lambda part, g: self.training_batch(table, part, g, device=device),
            lambda batch, step, g: self.step(net, optimisers, batch, step=step, device=device),
            (lambda: self.validation(net, table, held)) if len(held) else None,
            generator,
            self.checkpoint,
            identity,
            self.checkpoint_seconds,
        )

    def training_batch(self, table: Table, part: Index, generator: torch.Generator, *, device: torch.device) -> Batch:
        """A batch with some cell lines (and, by policy, structures) hidden, on all genes or some.

        Parameters
        ----------
        table : of the fit rows.
        part : (B,) positions.
        generator : draws what is hidden and which genes.
        device : to which tensors go.
        """
        s, genes = self.settings, None
        n_genes = table.control.shape[1]
        if self.per_gene and 0 < s.genes_per_step < n_genes:
            genes = torch.randperm(n_genes, generator=generator)[: s.genes_per_step]
        return hide(table.batch(part, device, genes), s, generator)

    def _run(self, rows: PredictRows, function: Callable[[Batch], Tensor], width: int | None) -> Float32:
        """Apply to all rows in padded batches of one size, in evaluation mode."""
        encoder, net = self._fitted()
        refuse_not_finite(rows, self.name)
        table = self.encode(encoder, rows)
        net.eval()
        out: Float32 | None = None if width is None else np.empty((table.n, width), dtype=np.float32)
        with torch_session(self.device, self.settings.threads), explained(self.name, self.settings):
            for start in range(0, max(table.n, 1), PREDICT_ROWS):
                part = np.arange(start, min(start + PREDICT_ROWS, table.n), dtype=np.int64)
                if not len(part):
                    break
                padded = np.concatenate([part, np.full(PREDICT_ROWS - len(part), part[0], dtype=np.int64)])
                values = function(table.batch(padded, self.device))[: len(part)].cpu().numpy()
                out = np.empty((table.n, values.shape[1]), dtype=np.float32) if out is None else out
                out[part] = values
        return np.empty((0, width or 0), dtype=np.float32) if out is None else out
