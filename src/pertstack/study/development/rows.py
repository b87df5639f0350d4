"""Development rows of a study, and what its steps make of them once: sums, level one, evidence, nested fits, a key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pertstack._base.digests import digest_json
from pertstack._base.machine.cluster import Cluster
from pertstack._base.machine.memory import parse_bytes, tile_memory
from pertstack._base.machine.progress import progress_bar
from pertstack.design.analysis_plan import AUTO, AnalysisPlan
from pertstack.design.blocks import Block
from pertstack.design.metric_names import parse_metric
from pertstack.predictions.sources.nested_source import WithoutFold, has_nested
from pertstack.predictions.sources.store_source import StoreSource
from pertstack.predictions.store.files.names import nested_name
from pertstack.reduce.references import References
from pertstack.reduce.scoring.panels import panel
from pertstack.reduce.sums.one_pass import make_parts, reduce_blocks
from pertstack.reduce.sums.reduction import Reduction
from pertstack.stacking.combiner import Combiner
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.nested import NestedFits, fit_nested
from pertstack.stacking.registry import make_combiner
from pertstack.study.folder import StudyFolder
from pertstack.study.members import require_every_block


@dataclass(frozen=True)
class DevelopmentRows:
    """Development rows with the predictions of some models, and all that a step makes of them; each made once.

    ``source`` reads them, ``reduction`` is what the one pass sums, ``level_one`` the same by base models that never saw
    a fold, ``evidence`` what a combiner learns from on all rows, ``key()`` the digest of everything that enters.
    """

    folder: StudyFolder
    models: Sequence[str]
    accept_unverified: bool = False
    workers: int = 1
    memory: str = "1 GB"
    cluster: Cluster | None = None
    sums: Path | None = None  # where they are kept; None for the study's folder

    @cached_property
    def source(self) -> StoreSource:
        require_every_block(self.folder, "development")
        return StoreSource(
            self.folder.store,
            None,
            "development",
            self.models,
            groups=self.folder.plan.groups,
            accept_unverified=self.accept_unverified,
            distance=self.folder.training_distance,
        )

    @cached_property
    def reduction(self) -> Reduction:
        """The one pass over the rows; sums already on disk are read back."""
        return self._reduced(None)

    @cached_property
    def level_one(self) -> dict[int, tuple[Reduction, StoreSource | WithoutFold]] | None:
        """Per fold, level-one rows by base models that never saw it; None when some model has no nested fits."""
        folder = self.folder
        if folder.plan.n_folds < 3 or not all(has_nested(folder.store, m) for m in self.models):
            return None
        return {k: (self._reduced(k), self.source_without(k)) for k in range(folder.plan.n_folds)}

    def source_without(self, fold: int | None) -> StoreSource | WithoutFold:
        """Predictions by base models that never saw a fold; the ordinary out-of-fold ones for None."""
        if fold is None:
            return self.source
        folder = self.folder
        return WithoutFold(
            folder.store, self.models, fold, groups=folder.plan.groups, distance=folder.training_distance
        )

    @cached_property
    def evidence(self) -> Evidence:
        plan = self.folder.analysis_plan
        return Evidence(
            self.reduction,
            learning_reference(plan),
            plan.choice_metric,
            seed=plan.seed,
            source=self.source,
            references=self.folder.references,
        )

    def nested(self, combiners: Sequence[Combiner], on_done: Callable[[str], None] | None = None) -> NestedFits:
        """Every combiner without each fold, and on all rows."""
        plan = self.folder.analysis_plan
        return fit_nested(
            combiners,
            self.reduction,
            source=self.source,
            references=self.folder.references,
            reference=learning_reference(plan),
            primary=plan.choice_metric,
            seed=plan.seed,
            level_one=self.level_one,
            on_done=on_done,
        )

    def key(self, combiners: Mapping[str, Mapping[str, Any]]) -> str:
        """Digest of everything the stack step depends on; ``combiners`` maps each combiner to its hyper-parameters."""
        source, plan = self.source, self.folder.analysis_plan
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
        facts = [2, source.store.plan_digest, plan.digest, self.accept_unverified, chosen, layers, nested]
        if any("embeddings" in make_combiner(name).needs for name in combiners):
            facts.append([[b.id, m, source.embedding_digest(b, m)] for b in source.blocks() for m in source.models])
        if source.distance is not None:
            facts.append(source.distance.digest)
        return digest_json(facts)

    def _reduced(self, without: int | None) -> Reduction:
        source = self.source_without(without)
        blocks = [b for b in source.blocks() if b.role == "development"]
        said = "summing" if without is None else f"summing without fold {without}"
        with progress_bar() as bar:
            if self.cluster is not None:
                task = bar.add_task(f"{said} on the cluster", total=len(blocks))
                for _ in self.cluster.each(reduce_piece, self.shared(without), blocks):
                    bar.advance(task)
            task = bar.add_task(said, total=len(blocks))
            return reduce_blocks(
                source,
                self.folder.references,
                memory=tile_memory(self.memory, len(source.gene_names), len(source.models)),
                workers=self.workers,
                cache=self.sums or self.folder.path("reduced"),
                on_block=lambda _: bar.advance(task),
            )

    def shared(self, without: int | None = None) -> Shared:
        """What a worker elsewhere needs to open the same rows."""
        return Shared(
            self.folder.root.resolve(),
            tuple(self.models),
            self.accept_unverified,
            memory=self.memory,
            without=without,
        )


@dataclass(frozen=True)
class Shared:
    """Development rows as they are named to a worker: it opens them from the study's folder, once for all pieces that
    were sent together. ``without``: a fold."""

    root: Path
    models: tuple[str, ...]
    accept_unverified: bool
    memory: str
    without: int | None = None

    @cached_property
    def opened(self) -> DevelopmentRows:
        return DevelopmentRows(StudyFolder.open(self.root), self.models, self.accept_unverified, memory=self.memory)


def reduce_piece(shared: Shared, block: Block) -> None:
    """On a worker: the sums of one block, left in the study's folder."""
    rows = shared.opened
    source, cache = rows.source_without(shared.without), rows.folder.path("reduced")
    make_parts(source, rows.folder.references, [block], cache=cache, memory=parse_bytes(shared.memory))


def learning_reference(plan: AnalysisPlan) -> Any:
    """Weights are learned against the pooled or own control; a plan that chooses on the centroid learns on pooled."""
    return "own" if plan.reference == "own" else "pooled"


def panel_metrics(plan: AnalysisPlan, references: References, *, full: bool = False) -> tuple[str, ...]:
    """The panel that the data allow, and the plan's own metrics if they are not in it.

    Parameters
    ----------
    plan : primary metric and the one that decides.
    references : say which references the data allow.
    full : the long panel, of the report.
    """
    extra = [parse_metric(m).name for m in (plan.primary, plan.choice_metric) if m != AUTO]
    return tuple(dict.fromkeys([*panel(references, full=full), *extra]))
