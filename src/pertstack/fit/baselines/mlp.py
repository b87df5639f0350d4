"""A small multilayer perceptron on principal components: scikit-learn's network, our early stopping by group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pertstack._base.errors import InputError, ModelFailedError
from pertstack.data.rows import FitRows, Float32, PredictRows
from pertstack.data.side.side import PerturbationFeatures
from pertstack.fit.base import Needs
from pertstack.fit.baselines.groups import Values
from pertstack.fit.baselines.low_rank import principal_axes
from pertstack.fit.baselines.model import Baseline
from pertstack.fit.baselines.start import Start, StartingPoint
from pertstack.fit.encoders import MissingPolicy, RowEncoder, check_policy, refuse_missing
from pertstack.fit.inner_split import inner_split

Floats = np.ndarray[Any, np.dtype[np.float64]]
MOST_ROWS_FOR_AXES = 1500
_PIECE = 2048  # rows of inputs made at once


@dataclass(frozen=True)
class _Components:
    """Principal components of a block of inputs, scaled to a mean square of 1 per component."""

    mean: Floats
    axes: Floats

    @classmethod
    def fit(cls, values: Floats, rank: int) -> _Components:
        mean = values.mean(axis=0)
        if not values.shape[1]:
            return cls(mean, np.zeros((0, 0)))
        axes = principal_axes(values, rank)
        spread = np.sqrt((((values - mean) @ axes) ** 2).mean()) if axes.size else 1.0
        return cls(mean, axes / spread)

    def of(self, values: Floats | Float32) -> Floats:
        out: Floats = (values - self.mean) @ self.axes
        return out


@dataclass
class MLP(Baseline):
    """Starting point plus a multilayer perceptron on features, dose, cell line and components of the control.

    The target is the deviation from the starting point in its first ``n_components`` principal components; the network
    has one hidden layer of ``width`` rectified units, Adam, batches of ``batch_size`` (Goodfellow, Bengio, Courville
    2016). Training stops after ``patience`` epochs without gain on whole groups set aside from the fit rows, and the
    best epoch's weights are restored (epoch 0, no effect at all, competes too). Features are used if the study has
    them; none are needed.
    """

    name: ClassVar[str] = "mlp"
    needs: ClassVar[Needs] = Needs(uses_cell_line=True)
    width: int = 128
    n_components: int = 32
    n_input_components: int = 64
    n_control_components: int = 16
    learning_rate: float = 3e-3
    weight_decay: float = 1e-3
    batch_size: int = 32
    max_epochs: int = 200
    patience: int = 20
    validation_share: float = 0.15
    start: Start = "per_gene_line"
    on_missing: MissingPolicy = "mask"
    start_: StartingPoint = field(init=False, repr=False)
    encoder_: RowEncoder = field(init=False, repr=False)
    known_: _Components = field(init=False, repr=False)
    control_: _Components = field(init=False, repr=False)
    axes_: Floats = field(init=False, repr=False)
    scale_: float = field(init=False, repr=False)
    network_: Any = field(init=False, repr=False)
    best_epoch_: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_policy(self.on_missing)
        if min(self.width, self.n_components, self.batch_size, self.max_epochs, self.patience) < 1:
            raise InputError(
                "width, n_components, batch_size, max_epochs and patience of mlp are whole numbers from 1."
            )
        if min(self.n_input_components, self.n_control_components, self.weight_decay, self.validation_share) < 0:
            raise InputError("Components, weight_decay and validation_share of mlp are not below 0.")
        if self.learning_rate <= 0 or self.validation_share >= 1:
            raise InputError("learning_rate of mlp is above 0, and validation_share below 1.")

    def fit(self, rows: FitRows, *, rng: np.random.Generator) -> MLP:
        features = self._features(rows)
        if features is not None:
            known = refuse_missing(features, rows, self.on_missing, model=self.name)
            rows = rows.take(known) if self.on_missing == "drop" else rows
        inner, validation = inner_split(rows, self.validation_share, rng)
        self.start_ = StartingPoint.fit(rows, self.start)
        self.encoder_ = RowEncoder.fit(rows, features)
        self._fit_components(rows, rng)
        inputs, target = self._inputs(rows), _times(self.start_.residual(rows), self.axes_)
        self.scale_ = (float(np.sqrt((target**2).mean())) if target.size else 0.0) or 1.0
        self._train(inputs, target / self.scale_, inner, validation=validation, rng=rng)
        return self

    def _features(self, rows: FitRows) -> PerturbationFeatures | None:
        best = rows.side.best()
        return best if best is not None and best.rows(rows.perturbation)[1].any() else None

    def _fit_components(self, rows: FitRows, rng: np.random.Generator) -> None:
        """Axes of target and control, from at most 1,500 rows drawn at random."""
        n = rows.n_samples
        drawn = np.sort(rng.choice(n, MOST_ROWS_FOR_AXES, replace=False)) if n > MOST_ROWS_FOR_AXES else np.arange(n)
        sample = rows.take(drawn)
        self.axes_ = principal_axes(self.start_.residual(sample)[:].astype(np.float64), self.n_components)
        self.control_ = _Components.fit(sample.control.astype(np.float64), self.n_control_components)
        self.known_ = _Components.fit(self.encoder_.encode_distinct(sample)[0], self.n_input_components)

    def _inputs(self, rows: PredictRows) -> Floats:
        first, index = self.encoder_.conditions(rows)
        parts = [first[a : a + _PIECE] for a in range(0, max(len(first), 1), _PIECE)]
        known = [self.known_.of(self.encoder_.encode_table(rows.obs.iloc[some], rows.side)) for some in parts]
        controls = [self.control_.of(rows.control[a : a + _PIECE]) for a in range(0, max(rows.n_samples, 1), _PIECE)]
        return np.concatenate([np.concatenate(known)[index], np.concatenate(controls)], axis=1)

    def _train(self, inputs: Floats, target: Floats, inner: Any, validation: Any, rng: np.random.Generator) -> None:
        from sklearn.neural_network import MLPRegressor

        self.network_, self.best_epoch_ = None, 0
        if not target.shape[1] or not inputs.shape[1]:
            return
        network = MLPRegressor(
            hidden_layer_sizes=(self.width,),
            alpha=self.weight_decay,
            learning_rate_init=self.learning_rate,
            batch_size=min(self.batch_size, int(inner.sum())),
            random_state=int(rng.integers(2**31)),
        )
        best, since = float((target[validation] ** 2).mean()), 0
        weights: tuple[list[Any], list[Any]] | None = None
        for epoch in range(1, self.max_epochs + 1):
            network.partial_fit(inputs[inner], target[inner])
            error = float(((_output(network, inputs[validation]) - target[validation]) ** 2).mean())
            if not np.isfinite(error):
                raise ModelFailedError(f"mlp: the loss is {error} in epoch {epoch}; lower learning_rate.")
            since += 1
            if error < best:
                best, since, self.best_epoch_ = error, 0, epoch
                weights = [w.copy() for w in network.coefs_], [b.copy() for b in network.intercepts_]
            if since >= self.patience:
                break
        if weights is not None:
            network.coefs_, network.intercepts_ = weights
            self.network_ = network

    def predict(self, rows: PredictRows) -> Float32:
        if self.encoder_.kind is not None:
            refuse_missing(rows.side.features[self.encoder_.kind], rows, self.on_missing, model=self.name)
        out = self.start_.predict(rows)
        if self.network_ is not None:
            effect = _output(self.network_, self._inputs(rows)) @ self.axes_.T * self.scale_
            out += effect.astype(np.float32)
        return out

    def embed(self, rows: PredictRows) -> Float32 | None:
        """The predicted effect in principal components, (n_samples, n_components); None if fit rows had none."""
        if not self.axes_.shape[1]:
            return None
        if self.network_ is None:
            return np.zeros((rows.n_samples, self.axes_.shape[1]), dtype=np.float32)
        return np.asarray(_output(self.network_, self._inputs(rows)), dtype=np.float32)


def _times(values: Values, axes: Floats) -> Floats:
    """``values @ axes``, some rows at a time."""
    return np.concatenate([values[a : a + _PIECE] @ axes for a in range(0, values.shape[0], _PIECE)])


def _output(network: Any, inputs: Floats) -> Floats:
    """Network output (n, n_components) also for one component, where scikit-learn drops the axis."""
    out = np.asarray(network.predict(inputs), dtype=np.float64)
    return out.reshape(len(inputs), -1)
