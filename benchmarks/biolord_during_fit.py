"""Our Biolord network trained as the published package trains its own; a part of ``fidelity_biolord.py``.

Two habits of the package that cannot stand behind ``fit`` and ``predict`` of a base model: the controls of the rows to
predict are trained on together with the fit rows, and their codes are kept; batches are cut from single profiles,
shuffled, and the last batch is what is left over, which may be a handful. ``rest=False`` cuts the same profiles into
near-equal batches instead. Network, loss and optimisers are those of ``pertstack.fit.torch.biolord``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pertstack.data import FitRows
from pertstack.data.rows import Float32, PredictRows
from pertstack.fit.torch.biolord import Biolord, BiolordNetwork
from pertstack.fit.torch.common.batches import Batch
from pertstack.fit.torch.common.inputs import Encoder
from pertstack.fit.torch.common.network import Sizes, update

CPU = torch.device("cpu")


class DuringFit:
    """``predict`` trains on the controls of its rows, all controls of the fit rows and the treated profiles in use."""

    def __init__(self, fit: FitRows, use: np.ndarray, params: dict[str, Any], *, rest: bool, batch: int = 256) -> None:
        self.fit, self.use, self.rest, self.batch = fit, use, rest, batch
        self.model = Biolord(**params)

    def predict(self, new: PredictRows, seed: int) -> Float32:
        torch.manual_seed(seed)
        fit, s = self.fit, self.model.settings
        encoder = Encoder.fit(fit, s, model="Biolord", features=True)
        mine = encoder.encode(fit, fit.treated).batch(np.arange(fit.n_samples), CPU)
        theirs = encoder.encode(new).batch(np.arange(new.n_samples), CPU)
        sizes = Sizes(fit.n_genes, encoder.n_features, len(encoder.lines) + 1)
        net = BiolordNetwork(sizes, s, fit.n_samples + new.n_samples)
        self._train(net, mine, theirs)
        net.eval()
        with torch.no_grad():
            code = net.codes.weight[fit.n_samples : fit.n_samples + new.n_samples]
            mean, _ = net.decode(code, net.attributes(theirs, treated=True))
        return encoder.scaler.invert(mean.numpy())

    def _train(self, net: BiolordNetwork, mine: Batch, theirs: Batch) -> None:
        """All profiles as one table: code, drug vector (zero for controls), cell line, values."""
        use, n = torch.from_numpy(self.use), len(mine.row)
        code = torch.cat([mine.row, n + theirs.row, net.n_rows + mine.row[use]])
        controls = torch.zeros(n + len(theirs.row), mine.treatment.shape[1])
        treatment = torch.cat([controls, mine.treatment[use]])
        cell = torch.cat([mine.cell, theirs.cell, mine.cell[use]])
        values = torch.cat([mine.x1, theirs.x1, mine.truth[use]])
        optimisers = self.model.optimisers(net)
        net.train()
        for _ in range(net.s.epochs):
            for part in self._batches(len(code)):
                z = net.codes(code[part])
                z = z + net.s.latent_noise * torch.randn_like(z)
                attributes = torch.cat([net.attribute(treatment[part]), net.cell(cell[part])], dim=1)
                loss, _ = net.cost(z, attributes, values[part])
                update(net.parameters(), optimisers, loss.mean(), clip=net.s.gradient_clip)

    def _batches(self, n: int) -> Iterator[Tensor]:
        order = torch.randperm(n)
        yield from order.split(self.batch) if self.rest else order.tensor_split(-(-n // self.batch))
