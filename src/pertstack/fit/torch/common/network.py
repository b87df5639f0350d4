"""The network of a torch model, the sizes it is built for, and the moves of a training step that all models share.

What is made of a network (fit, predict, embed) is in ``model.py``; epochs and stopping, in ``trainer.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pertstack.fit.torch.common.batches import Batch
from pertstack.fit.torch.common.framework import Tensor, nn, torch
from pertstack.fit.torch.common.settings import Settings

Optimisers = Sequence[torch.optim.Optimizer]


@dataclass(frozen=True)
class Sizes:
    """Sizes a network is built for. ``n_drug`` counts the mask bit, ``n_cell_lines`` the unknown line."""

    n_genes: int
    n_features: int
    n_cell_lines: int

    @property
    def n_drug(self) -> int:
        return self.n_features + 1

    @property
    def n_treatment(self) -> int:
        return self.n_features + 3


class Network(nn.Module):
    """A network that predicts standardised treated profiles and describes a row by a vector, from a batch without
    x2."""

    def predict(self, batch: Batch) -> Tensor:
        """(B, n_genes) standardised, or its columns ``batch.genes`` while training on some genes."""
        raise TypeError(f"{type(self).__name__} does not say how it predicts")

    def embed(self, batch: Batch) -> Tensor:
        """(B, d)."""
        raise TypeError(f"{type(self).__name__} does not say how it embeds")

    def loss(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Named scalars, "loss" among them: the mean squared error in the standardised scale unless a model adds to
        it."""
        return {"loss": nn.functional.mse_loss(self.predict(batch).float(), batch.truth)}


def autocast(device: torch.device, settings: Settings) -> torch.autocast:
    """bfloat16 where it pays (CUDA) and is wanted; plain float32 elsewhere."""
    wanted = device.type == "cuda" and settings.mixed_precision
    return torch.autocast(device_type=device.type, dtype=torch.bfloat16, enabled=wanted)


def update(parameters: Any, optimisers: Optimisers, loss: Tensor, *, clip: float) -> None:
    """Backward, clip the gradient norm, step.

    Parameters
    ----------
    parameters : whose norm is clipped together.
    optimisers : that step.
    loss : one number.
    clip : largest norm; 0 for no clipping.
    """
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if clip > 0:
        nn.utils.clip_grad_norm_(parameters, clip)
    for optimiser in optimisers:
        optimiser.step()


def hide(batch: Batch, settings: Settings, generator: torch.Generator) -> Batch:
    """Hide the cell line (and the structure, unless its policy is "raise") of a few rows: so the unknown is trained.

    Parameters
    ----------
    batch : of training rows; not changed.
    settings : share of hidden rows (``unknown_dropout``) and the policy.
    generator : draws them.
    """
    share, n = settings.unknown_dropout, len(batch.row)
    if share <= 0:
        return batch
    device = batch.cell.device
    seen = (torch.rand(n, generator=generator) >= share).to(device)
    cell = torch.where(seen, batch.cell, torch.zeros_like(batch.cell))
    features, known, targets = batch.features, batch.known, batch.targets
    if settings.on_missing_structure != "raise":
        shown = (torch.rand(n, 1, generator=generator) >= share).to(device)
        features, known = features * shown, known * shown
        targets = None if targets is None else targets * shown
    return replace(batch, features=features, known=known, cell=cell, targets=targets)
