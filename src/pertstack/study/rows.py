"""What the steps of a study borrow: development rows, their key, their sums, level one, the metrics of the panel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pertstack._base.digests import digest_json
from pertstack._base.memory import parse_bytes
from pertstack.design.analysis_plan import AUTO, AnalysisPlan
from pertstack.predictions.sources.nested_source import WithoutFold, has_nested
from pertstack.predictions.sources.store_source import StoreSource
from pertstack.predictions.store.names import nested_name
from pertstack.reduce.metrics.names import parse_metric
from pertstack.reduce.one_pass import reduce_blocks
from pertstack.reduce.panels import panel
from pertstack.reduce.reduction import Reduction
from pertstack.reduce.references import References
from pertstack.stacking.registry import make_combiner
from pertstack.study.folder import StudyFolder


def development_source(folder: StudyFolder, models: Sequence[str], *, accept_unverified: bool) -> StoreSource:
    """Development rows with the given models."""
    return StoreSource(
        folder.store, None, "development", models, groups=folder.plan.groups, accept_unverified=accept_unverified,
        distance=folder.training_distance,
    )  # fmt: skip


def evidence_key(
    source: StoreSource, plan: AnalysisPlan, combiners: Mapping[str, Mapping[str, Any]], *, accept_unverified: bool
) -> str:
    """Digest of everything the stack step depends on; ``combiners`` maps each combiner to its hyper-parameters."""
    layers = [
        [block.id, layer, source.layer_digest(block, layer)]
        for block in source.blocks()
        for layer in ("control", "treated", *source.models)
    ]
    nested = [
        [block.id, model, k, record.digest]
        for block in source.blocks()
        for model in source.models
        for k in sorted({b.fold for b in source.blocks() if b.fold is not None})
        if (record := source.store.find(block, nested_name(model, k))) is not None
    ]
    chosen = {name: dict(params) for name, params in combiners.items()}
    facts = [2, source.store.plan_digest, plan.digest, accept_unverified, chosen, layers, nested]
    if any("embeddings" in make_combiner(name).needs for name in combiners):
        facts.append([[b.id, m, source.embedding_digest(b, m)] for b in source.blocks() for m in source.models])
    if source.distance is not None:
        facts.append(source.distance.digest)
    return digest_json(facts)


def reduce_study(
    folder: StudyFolder, models: Sequence[str], *, accept_unverified: bool, workers: int, memory: str
) -> Reduction:
    """The one pass over development rows; sums that are there already are read back."""
    source = development_source(folder, models, accept_unverified=accept_unverified)
    return reduce_blocks(
        source, folder.references, memory=parse_bytes(memory), workers=workers, cache=folder.path("reduced")
    )


def level_one(
    folder: StudyFolder, models: Sequence[str], *, workers: int, memory: str
) -> dict[int, tuple[Reduction, WithoutFold]] | None:
    """Per fold, level-one rows by base models that never saw it; None when some model has no nested fits."""
    if folder.plan.n_folds < 3 or not all(has_nested(folder.store, m) for m in models):
        return None
    found = {}
    for fold in range(folder.plan.n_folds):
        source = WithoutFold(folder.store, models, fold, folder.plan.groups, folder.training_distance)
        reduction = reduce_blocks(
            source, folder.references, memory=parse_bytes(memory), workers=workers, cache=folder.path("reduced")
        )
        found[fold] = (reduction, source)
    return found


def learning_reference(plan: AnalysisPlan) -> Any:
    """Weights are learned against the pooled or own control; a plan that chooses on the centroid learns on pooled."""
    return "own" if plan.reference == "own" else "pooled"


def panel_metrics(plan: AnalysisPlan, references: References, *, full: bool = False) -> tuple[str, ...]:
    """The panel that the data allow, and the plan's own metrics where they are not in it."""
    extra = [parse_metric(m).name for m in (plan.primary, plan.choice_metric) if m != AUTO]
    return tuple(dict.fromkeys([*panel(references, full=full), *extra]))
