"""Stacking for people with arrays: the study's own code path without a disk.

``stack`` takes out-of-fold predictions, scores every combiner on folds it did not learn from, chooses one by the
no-harm rule and keeps the fits. It never opens a held-out test: that is handled by a study and its ledger.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from pertstack._base.errors import InputError, MisalignedError, first_few, unknown_name
from pertstack._base.findings import Finding
from pertstack._base.labelled import align
from pertstack._base.names import listed
from pertstack.design.metric_names import DEFAULT_PANEL, Metric, parse_metric
from pertstack.design.plan.groups import shared_parts
from pertstack.predictions.sources.array_source import ArraySource
from pertstack.predictions.sources.embedding import ArrayEmbedding
from pertstack.reduce.metrics.asked import asked_metric
from pertstack.reduce.read_tiles import samples_of
from pertstack.reduce.references import References
from pertstack.reduce.scoring.controls import votes_withheld
from pertstack.reduce.scoring.score import score
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.choose import choose
from pertstack.stacking.combine_arrays import combine_arrays, sample_table
from pertstack.stacking.combiner import Combiner
from pertstack.stacking.given import one_name_each, require_controls_alike, require_whole_groups
from pertstack.stacking.nested import fit_nested
from pertstack.stacking.panel import NO_HARM
from pertstack.stacking.registry import make_combiners, refuse_reserved
from pertstack.stacking.slopes import slopes_of
from pertstack.stacking.sums import Reference
from pertstack.verdict.probes.rows import sample_rows
from pertstack.verdict.probes.run import accused, accused_gravely, probe_model, seen_through
from pertstack.write.stack_result import StackResult

PRIMARY = "r2_top20@pooled"


@dataclass(frozen=True, repr=False, kw_only=True)
class StackFit(StackResult):
    """What ``stack`` found: nested scores, weights, the choice and its reasons, and ``predict`` for new samples."""

    references: References
    findings: tuple[Finding, ...] = ()
    """What the probes say of every model's claim to be out of fold; an accusation is a warning too."""
    named_genes: bool = False
    """Whether genes have names, to which DataFrames of new predictions are brought."""

    @property
    def leaderboard(self) -> pd.DataFrame:
        """Out-of-fold means, best first: base models and combiners; ``chosen`` and ``marked`` say what ships."""
        metric = parse_metric(self.choice.primary)
        frame = self.scores.to_frame().sort_values(
            self.choice.primary, ascending=not metric.higher_is_better, kind="stable"
        )
        frame.insert(0, "kind", ["combiner" if n in self.nested.names else "base" for n in frame.index])
        frame.insert(1, "chosen", [n == self.chosen for n in frame.index])
        frame.insert(2, "marked", [n in self.choice.marked for n in frame.index])
        return frame

    def predict(
        self,
        predictions: Mapping[str, Any],
        *,
        control: Any = None,
        cell_line: Any = None,
        combiner: str | None = None,
        embeddings: Mapping[str, ArrayEmbedding] | None = None,
        features: Mapping[str, Any] | None = None,
    ) -> Any:
        """Combined treated profiles (n, n_genes) of new samples, by the chosen combiner or the one named.

        An array; a DataFrame if the arguments carry row names, in the order of ``control``, else of the first model.

        Parameters
        ----------
        predictions : model -> (n, n_genes), of models fitted on all development rows, in the treated scale.
        control : (n, n_genes); None for differential values.
        cell_line : (n,); needed if the stack was learned on several.
        combiner : name of a combiner of this fit; None for the chosen one.
        embeddings : model -> ``ArrayEmbedding`` by the same fits, each with its anchors.
        features : as in ``stack``; a feature that is not given counts as unknown.

        Raises
        ------
        InputError, MisalignedError, UnknownNameError
            Controls if the stack was learned without, or none if it was learned with them; a model or gene is
            missing; no such combiner.
        """
        name = combiner or self.chosen
        if name not in self.nested.names:
            raise unknown_name("combiner of this fit", name, self.nested.names)
        fitted = self.nested.final[name]
        missing = [m for m in fitted.models if m not in predictions]
        if missing:
            raise MisalignedError(
                f"The stack was learned on {len(fitted.models)} models; predictions lack {first_few(missing)}. Provide "
                f"all of them; a model that has no answer for a row or gene may be NaN there."
            )
        named = {f"predictions[{m!r}]": predictions[m] for m in fitted.models}
        extra = {f"features[{f!r}]": v for f, v in (features or {}).items()}
        ordered = align(
            {"control": control, **named, "cell_line": cell_line, **extra},
            first=("control", *named),
            columns=self.references.gene_names if self.named_genes else None,
        )
        found = ordered.values
        require_controls_alike(self.references, found["control"])
        given = {m: np.asarray(found[n], dtype=np.float32) for m, n in zip(fitted.models, named, strict=True)}
        shape = next(iter(given.values())).shape
        zero = np.zeros(shape, dtype=np.float32) if control is None else np.asarray(found["control"], dtype=np.float32)
        features = None if features is None else {f: found[f"features[{f!r}]"] for f in features}
        combined = combine_arrays(
            fitted,
            given,
            zero,
            references=self.references,
            cell_line=found["cell_line"],
            embeddings=embeddings,
            features=features,
        )
        if ordered.rows is None:
            return combined
        return pd.DataFrame(combined, index=ordered.rows, columns=list(self.references.gene_names))


def stack(
    predictions: Mapping[str, Any],
    *,
    treated: Any,
    control: Any = None,
    folds: Any,
    perturbation: Any,
    cell_line: Any = None,
    gene_names: Any = None,
    group: Any = None,
    combiners: Sequence[str | Combiner] | None = None,
    primary: str = PRIMARY,
    reference: Reference = "pooled",
    seed: int = 0,
    trust_partial: bool = False,
    condition: Any = None,
    embeddings: Mapping[str, ArrayEmbedding] | None = None,
    features: Mapping[str, Any] | None = None,
    accept_accused: Sequence[str] = (),
) -> StackFit:
    """Stack out-of-fold predictions held in memory.

    Parameters
    ----------
    predictions : {model: array (n, n_genes)}
        Out-of-fold, in the treated scale: row i comes from a fit without fold ``folds[i]``. That is the caller's word.
    treated, control : arrays (n, n_genes); control None for differential values.
        DataFrames and Series are put in one order by their index and columns; beside plain arrays, which have no names,
        they must be in one order already.
    folds, perturbation, cell_line, group : one entry per row; the group (default: perturbation) is what a fold holds
        whole and what is resampled. Rows without a fold (None, NaN or 'test') take no part, with a warning.
    gene_names : (n_genes,); None for the columns of DataFrames, else numbers.
    combiners : names or combiners; None for the default ones.
    primary : metric by which a combiner is chosen.
    reference : "pooled" or "own", what weights are learned against.
    seed : of everything that draws.
    trust_partial : let combiners ship whose weights can read the means of the scored fold out of models cross-fitted
        on these folds (``Combiner.needs_nested``; arrays carry no nested fits, docs/decisions/0005-true-nesting.md).
        Say True only when the models were fitted on other data altogether.
    embeddings : {model: ArrayEmbedding(values, anchors)} of ``pertstack.predictions.sources.embedding``, for the
        combiner ``embedding_ridge``; anchors are the same rows embedded by the fit of every fold, without which
        vectors of two folds cannot be compared.
    features : {"log10_dose" | "time_h" | "training_distance": array (n,)}
        What is known of every sample at prediction time, for combiners that weigh per sample; NaN where unknown. The
        distance of a row to the training perturbations is taken to those outside its fold.
    condition : one name per row, equal for replicates (same perturbation, cell line, dose and time). Models are probed
        for knowing the noise of single measurements, which only in-sample predictions do. Without it rows of one
        perturbation and cell line (and dose and time, if ``features`` have them) are taken for replicates.
    accept_accused : models that take part although a probe shows (severity error) that they saw the rows they predict;
        without it they are neither combined nor the best single model.

    Warns (``UserWarning``) when a probe accuses a model; ``StackFit.findings`` has the numbers, ``accused`` who is out.

    Raises
    ------
    UnknownNameError, InputError
        No such combiner; ``accept_accused`` names no model, or one that no probe accuses; every model is accused; a
        group has rows in several folds.

    Example
    -------
    >>> fit = stack({"a": a, "b": b}, treated=y, control=c, folds=fold, perturbation=drug)  # doctest: +SKIP
    >>> fit.chosen, fit.leaderboard, fit.predict({"a": a2, "b": b2}, control=c2)  # doctest: +SKIP
    """
    wanted = parse_metric(primary)
    if not isinstance(predictions, Mapping):
        raise InputError("Predictions need names. Pass {name: array (samples, genes)}.")
    ordered = align(
        {
            "treated": treated,
            "control": control,
            **{f"predictions[{m!r}]": v for m, v in predictions.items()},
            "folds": folds,
            "perturbation": perturbation,
            "cell_line": cell_line,
            "group": group,
            "condition": condition,
            **{f"features[{f!r}]": v for f, v in (features or {}).items()},
        },
        columns=gene_names,
        first=("treated",),
    )
    found = ordered.values
    features = None if features is None else {f: found[f"features[{f!r}]"] for f in features}
    chosen = make_combiners(combiners)
    for model in predictions:
        refuse_reserved(str(model))
    names = one_name_each(found["perturbation"], grouped=group is not None)

    def source_of(models: Iterable[str]) -> ArraySource:
        return ArraySource(
            {m: found[f"predictions[{m!r}]"] for m in models},
            found["treated"],
            found["control"],
            folds=found["folds"],
            perturbation=names,
            cell_line=found["cell_line"],
            gene_names=ordered.columns if gene_names is None else gene_names,
            group=found["group"],
            obs=sample_table(features, np.shape(found["treated"]), condition=found["condition"]),
            embeddings=None if embeddings is None else {m: e for m, e in embeddings.items() if m not in left_out},
        )

    left_out: dict[str, str] = {}
    source = source_of(predictions)
    require_whole_groups(source, len(found["treated"]), grouped=group is not None)
    findings = _probes(source, seed, claims_folds=not trust_partial, assumed=condition is None)
    accepted = listed(accept_accused)
    left_out |= seen_through(findings, list(predictions), accepted, mend="accept_accused=[{model!r}]")
    if left_out:
        source = source_of(m for m in predictions if m not in left_out)
    with threadpool_limits(limits=1):  # many small solves, on which BLAS threads wait for each other
        references = References.collect(source)
        _fitting(wanted, source, references)
        reduction = reduce_blocks(source, references, k=min(max(80, wanted.top or 0), len(source.gene_names)))
        nested = fit_nested(
            chosen,
            reduction,
            source=source,
            references=references,
            reference=reference,
            primary=wanted.name,
            seed=seed,
        )
        metrics = tuple(dict.fromkeys([wanted.name, *DEFAULT_PANEL]))
        table = score(source, nested.combines(), references, metrics=metrics)
        parts = shared_parts(table.samples)
        no_vote = votes_withheld(source, references, wanted.name, NO_HARM)
        choice = choose(table, nested, seed=seed, trust_partial=trust_partial, parts=parts, no_vote=no_vote)
        slopes = slopes_of(reduction)
    return StackFit(
        scores=table,
        nested=nested,
        choice=choice,
        references=references,
        findings=findings,
        named_genes=gene_names is not None or ordered.columns is not None,
        accused=left_out,
        accepted=tuple(sorted(set(accepted))),
        slopes=slopes,
        unit="perturbation" if group is None else "group",
        parts=parts,
    )


def _fitting(wanted: Metric, source: ArraySource, references: References) -> None:
    """A metric that rows of this kind cannot have is refused; one that is less than its name says is warned of."""
    named = wanted != parse_metric(PRIMARY)
    for f in asked_metric(wanted, samples_of(source), source.gene_names, references=references, named=named):
        warnings.warn(f.message, stacklevel=3)


def _probes(source: ArraySource, seed: int, *, claims_folds: bool, assumed: bool) -> tuple[Finding, ...]:
    """The caller's word that predictions are out of fold, checked as far as arrays allow."""
    sampled = sample_rows(source, np.random.default_rng([seed, 5]))
    found = [
        finding
        for model in source.models
        for finding in probe_model(source, sampled, model, seed=seed, claims_folds=claims_folds, assumed=assumed)
    ]
    grave = accused_gravely(found)
    for model, words in accused(found).items():
        what = " It takes no part, unless accept_accused names it." if model in grave else ""
        warnings.warn(" ".join(words) + what, stacklevel=3)
    return tuple(found)
