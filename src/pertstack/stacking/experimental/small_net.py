"""A small network for cells (sample x gene): one hidden layer, written out, trained by Adam; the same on any machine.

It is small enough that plain numpy is as quick as a framework, needs no extra and gives the same bits every time. What
goes in and out is handled by ``shared_mlp.py``; gradients are checked against torch in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Float = np.ndarray[Any, np.dtype[np.float32]]
PARTS = ("models", "sample", "gene", "shift", "out")


@dataclass(frozen=True)
class Cells:
    """Cells to learn from or predict: rows of samples x genes, all in units of the truth's root mean square."""

    x: Float  # (n, g, 1 + M) the mixture that is corrected, then what sets each model apart from it
    sample: Float  # (n, S) context of samples
    gene: Float  # (g, C) context of genes
    rest: Float  # (n, g) what the base mixture leaves of the truth

    def take(self, rows: Any) -> Cells:
        return Cells(self.x[rows], self.sample[rows], self.gene, self.rest[rows])

    @property
    def n(self) -> int:
        return int(self.x.shape[0])


def start_net(n_inputs: int, n_sample: int, n_gene: int, *, hidden: int, rng: np.random.Generator) -> dict[str, Float]:
    """Parameters of an untrained net. The last layer is zero: it predicts no correction.

    Each part has its own stream, and the first input the same slopes however many follow, so that copies of a model
    change nothing.

    Parameters
    ----------
    n_inputs : 1 + M: the mixture that is corrected and each model's distance from it.
    n_sample, n_gene : width of the context of samples and of genes.
    hidden : width of the hidden layer.
    rng : spawned once per part.
    """
    parts = dict(zip(("models", "sample", "gene"), (n_inputs, n_sample, n_gene), strict=True))
    net = {}
    for (name, size), stream in zip(parts.items(), rng.spawn(3), strict=True):
        net[name] = (stream.normal(0, 1, (size, hidden)) / np.sqrt(3 * max(size, 1))).astype(np.float32)
        if name == "models":
            net[name][0] *= np.float32(np.sqrt(size))
    net["shift"] = np.zeros(hidden, dtype=np.float32)
    net["out"] = np.zeros(hidden, dtype=np.float32)
    return net


def correction(net: dict[str, Float], x: Float, sample: Float, *, gene: Float) -> tuple[Float, Float]:
    """``tanh(x A + sample B + gene C + d) v`` for every cell, (n, g), and the hidden layer (n, g, hidden).

    The parts of sample and gene are made once per sample and gene, not per cell.

    Parameters
    ----------
    net : parameters from ``start_net`` or ``epochs``.
    x : (n, g, 1 + M), in units of the truth's root mean square.
    sample : (n, S) context of samples.
    gene : (g, C) context of genes.
    """
    inner = x @ net["models"]
    inner += (sample @ net["sample"])[:, None, :] + (gene @ net["gene"])[None, :, :] + net["shift"]
    hidden = np.tanh(inner, out=inner)
    return hidden @ net["out"], hidden


def loss_and_gradient(net: dict[str, Float], cells: Cells, decay: float) -> tuple[float, dict[str, Float]]:
    """Mean squared rest after the correction, plus ``decay`` times the squares of all slopes; and its derivative.

    Parameters
    ----------
    net : parameters; the derivative has the same keys and shapes.
    cells : inputs and the rest to be explained.
    decay : >= 0; the shift is not penalised.
    """
    made, hidden = correction(net, cells.x, cells.sample, gene=cells.gene)
    wrong = made - cells.rest
    size = wrong.size
    pull = (2.0 / size) * wrong  # (n, g)
    inner = pull[:, :, None] * net["out"] * (1 - hidden**2)  # (n, g, hidden)
    flat = inner.reshape(-1, inner.shape[2])
    gradient = {
        "models": cells.x.reshape(flat.shape[0], -1).T @ flat,
        "sample": cells.sample.T @ inner.sum(axis=1),
        "gene": cells.gene.T @ inner.sum(axis=0),
        "shift": flat.sum(axis=0),
        "out": hidden.reshape(flat.shape).T @ pull.ravel(),
    }
    loss = float(np.mean(wrong**2, dtype=np.float64))
    for name in ("models", "sample", "gene", "out"):
        gradient[name] = gradient[name] + np.float32(2 * decay) * net[name]
        loss += decay * float((net[name].astype(np.float64) ** 2).sum())
    return loss, gradient


def epochs(
    net: dict[str, Float], cells: Cells, *, rate: float, decay: float, batch: int, rng: np.random.Generator
) -> Iterator[dict[str, Float]]:
    """The net after each further epoch, without end; rows in an order drawn anew.

    Adam (Kingma and Ba 2015) with its usual constants.

    Parameters
    ----------
    net : where to start; not changed.
    cells : all training cells.
    rate : step size of Adam.
    decay : as in ``loss_and_gradient``.
    batch : samples (rows of cells) a step.
    rng : draws the order of rows.
    """
    first = {k: np.zeros_like(v) for k, v in net.items()}
    second = {k: np.zeros_like(v) for k, v in net.items()}
    step = 0
    while True:
        order = rng.permutation(cells.n)
        for at in range(0, cells.n, batch):
            _, gradient = loss_and_gradient(net, cells.take(order[at : at + batch]), decay)
            step += 1
            new = {}
            for name, slope in gradient.items():
                first[name] = 0.9 * first[name] + 0.1 * slope
                second[name] = 0.999 * second[name] + 0.001 * slope**2
                mean, square = first[name] / (1 - 0.9**step), second[name] / (1 - 0.999**step)
                new[name] = (net[name] - rate * mean / (np.sqrt(square) + 1e-8)).astype(np.float32)
            net = new
        yield net


def squared_rest(net: dict[str, Float], cells: Cells) -> float:
    """Mean squared error that is left after the correction."""
    made, _ = correction(net, cells.x, cells.sample, gene=cells.gene)
    return float(np.mean((made - cells.rest) ** 2, dtype=np.float64))
