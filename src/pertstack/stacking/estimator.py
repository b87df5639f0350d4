"""Every combiner as a scikit-learn style estimator on arrays: ``fit``, ``predict``, ``get_params``; ``clone`` works.

``X`` holds out-of-fold predictions with the control in front: (n_samples, (1 + M) * n_genes) cannot say which column is
what, so ``X`` here is (n_samples, 1 + M, n_genes): control first, then the models, all in the treated scale. The code
path is that of a study: the same blocks, reduction and combiners.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from pertstack._base.errors import InputError, MisalignedError
from pertstack.data.rows import Float32
from pertstack.predictions.sources.array_source import ArraySource
from pertstack.predictions.sources.embedding import ArrayEmbedding
from pertstack.reduce.references import References
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.combine_arrays import combine_arrays, sample_table
from pertstack.stacking.combiner import FittedCombiner
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.registry import make_combiner
from pertstack.stacking.sums import Reference


class CombinerEstimator(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """One combiner as a scikit-learn regressor on arrays.

    Parameters
    ----------
    combiner : name of a combiner, such as "gene_shrunken".
    params : hyper-parameters of the combiner, as a dict.
    reference : "pooled" (default) or "own": what weights are learned against.
    primary : metric by which ``best_single`` is chosen.
    seed : for combiners that draw.

    Notes
    -----
    ``fit`` takes X (n, 1 + M, n_genes), the control and the out-of-fold predictions, and y (n, n_genes), the treated
    profiles. Folds are those of the cross-fitting; penalties are chosen by leaving them out.
    """

    def __init__(
        self,
        combiner: str = "gene_shrunken",
        params: dict[str, Any] | None = None,
        reference: Reference = "pooled",
        primary: str = "r2_top20@pooled",
        seed: int = 0,
    ) -> None:
        self.combiner = combiner
        self.params = params
        self.reference = reference
        self.primary = primary
        self.seed = seed

    def __sklearn_tags__(self) -> Any:
        """X has three axes, and missing predictions are NaN."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        tags.input_tags.allow_nan = True
        tags.target_tags.single_output, tags.target_tags.multi_output = False, True
        return tags

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        folds: Any,
        groups: Any = None,
        cell_line: Any = None,
        gene_names: Any = None,
        embeddings: Mapping[int, ArrayEmbedding] | None = None,
        features: Mapping[str, Any] | None = None,
    ) -> CombinerEstimator:
        """Learn weights; ``groups`` (default: every row its own) say which rows are replicates of one perturbation.

        ``embeddings`` of some models, by their position in X, for combiners that need them. ``features``: what is known
        of every sample at prediction time, {"log10_dose" | "time_h" | "training_distance": (n,)}.

        Parameters
        ----------
        X : (n, 1 + M, n_genes) float, control first, then out-of-fold predictions; NaN where a model has none.
        y : (n, n_genes), the treated profiles.
        folds : (n,) fold of the cross-fitting of each row.
        groups : (n,) which rows are replicates of one perturbation; by default every row is its own.
        cell_line : (n,); None for one line.
        gene_names : (n_genes,); None for numbers.
        embeddings : position in X -> embedding, for combiners that need them.
        features : {"log10_dose" | "time_h" | "training_distance": (n,)}, known when a sample is predicted.
        """
        chosen = make_combiner(self.combiner, **(self.params or {}))
        source, names = _source(
            X,
            y,
            folds,
            groups=groups,
            cell_line=cell_line,
            gene_names=gene_names,
            embeddings=embeddings,
            features=features,
        )
        references = References.collect(source)
        top = min(80, source.gene_names.size)
        reduction = reduce_blocks(source, references, k=top)
        evidence = Evidence(
            reduction, self.reference, self.primary, seed=self.seed, source=source, references=references
        )
        self.fitted_: FittedCombiner = chosen.fit(evidence)
        self.references_ = references
        self.models_ = names
        self.gene_names_ = source.gene_names
        return self

    def predict(
        self,
        X: Any,
        *,
        cell_line: Any = None,
        embeddings: Mapping[int, ArrayEmbedding] | None = None,
        features: Mapping[str, Any] | None = None,
    ) -> Float32:
        """Combined treated profiles, (n, n_genes), for control and predictions of new samples.

        Parameters
        ----------
        X : (n, 1 + M, n_genes), control first, then the predictions of models fitted on all rows.
        cell_line, embeddings, features : as in ``fit``.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            ``fit`` was not called.
        MisalignedError
            X has other models or genes than ``fit`` saw.
        """
        check_is_fitted(self, "fitted_", msg="This %(name)s is not fitted: call fit(X, y, folds=...) before predict.")
        x = _cube(X)
        if x.shape[1:] != (1 + len(self.models_), len(self.gene_names_)):
            raise MisalignedError(
                f"X has {x.shape[1] - 1} models and {x.shape[2]} genes; this combiner learned "
                f"{len(self.models_)} and {len(self.gene_names_)}. Provide the same ones in the same order."
            )
        predictions = {m: x[:, 1 + i] for i, m in enumerate(self.models_)}
        return combine_arrays(
            self.fitted_,
            predictions,
            x[:, 0],
            references=self.references_,
            cell_line=cell_line,
            embeddings=_named(embeddings, self.models_),
            features=features,
        )


def _cube(X: Any) -> Float32:
    x = np.asarray(X, dtype=np.float32)
    if x.ndim != 3 or x.shape[1] < 2:
        raise InputError(
            f"X has shape {x.shape}; (samples, 1 + models, genes) is expected: control first, then every model."
        )
    return x


def _source(
    X: Any,
    y: Any,
    folds: Any,
    groups: Any,
    cell_line: Any,
    gene_names: Any,
    embeddings: Mapping[int, ArrayEmbedding] | None,
    features: Mapping[str, Any] | None,
) -> tuple[ArraySource, Sequence[str]]:
    x = _cube(X)
    names = tuple(f"model_{i}" for i in range(x.shape[1] - 1))
    perturbation = [f"row_{i}" for i in range(len(x))] if groups is None else groups
    source = ArraySource(
        {m: x[:, 1 + i] for i, m in enumerate(names)},
        y,
        x[:, 0],
        folds=folds,
        perturbation=perturbation,
        cell_line=cell_line,
        gene_names=gene_names,
        embeddings=_named(embeddings, names),
        obs=sample_table(features, x[:, 0].shape),
    )
    return source, names


def _named(embeddings: Mapping[int, ArrayEmbedding] | None, names: Sequence[str]) -> dict[str, ArrayEmbedding]:
    return {names[i]: e for i, e in (embeddings or {}).items()}
