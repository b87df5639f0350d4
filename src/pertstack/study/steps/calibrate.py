"""The calibrate step: which metric tells the same condition measured again from a constant, and which one will decide.

Development rows only, and no model. ``results/calibration.json`` keeps every metric's numbers; a plan whose primary is
``auto`` is settled on the first metric of the declared order that passes, and plan.toml says so with the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from pertstack._base.digests import digest_json
from pertstack._base.errors import InputError
from pertstack._base.files import read_json, write_json
from pertstack._base.findings import Finding
from pertstack._base.machine.memory import parse_bytes
from pertstack.design.analysis_plan import AUTO, AnalysisPlan, locked_plan, require_unlocked_or_same
from pertstack.design.metric_names import parse_metric
from pertstack.design.plan.groups import shared_parts
from pertstack.predictions.sources.some_rows import some_groups
from pertstack.predictions.sources.store_source import StoreSource
from pertstack.predictions.store.files.names import HALVES
from pertstack.reduce.metrics.asked import asked_metric
from pertstack.reduce.scoring.calibration import AUTO_ORDER, Calibration, first_that_passes, in_numbers, without_vote
from pertstack.reduce.scoring.controls import calibrate_source, measured_twice
from pertstack.reduce.scoring.panels import panel
from pertstack.study.folder import StudyFolder
from pertstack.study.seals import is_sealed
from pertstack.verdict.case import metric_words

FILE = "calibration.json"
AGAIN = {
    False: "the condition measured again: the second half of its samples",
    True: "the condition measured again: the second half of the cells of each sample, against the first",
}
BESIDE: tuple[str, ...] = (
    "pearson_top20@pooled",
    "mse_exp2",
    "pearson_exp2@pooled",
    "cod_exp2@pooled",
    "cod_exp2@others",
    "pearson_t50@others",
    "pds_l1@pooled",
    "pds_cosine@pooled",
)
"""Calibrated beside the panel and the declared order, because people are asked for them."""
_MEND = "`pertstack plan STUDY --primary METRIC` names it; auto lets the rows choose."
MOST_ROWS = 20_000
"""Rows of whole groups that are looked at: metrics over perturbations grow with the square of what they compare."""
_RULE = 2  # of the calibration: another rule, another key; 2: retrieval and @others within the fold


@dataclass(frozen=True)
class Calibrated:
    """Every metric's calibration, and what the plan's primary is (settled on)."""

    key: str
    primary: str
    metrics: dict[str, Calibration]
    positive: str = AGAIN[False]  # what served as the condition measured again
    cautions: tuple[str, ...] = field(default=(), compare=False)  # if the primary is less than its name says

    @property
    def known(self) -> bool:
        """Whether some condition was measured twice."""
        return any(c.known for c in self.metrics.values())

    @property
    def ranges(self) -> dict[str, float]:
        """Metric -> distance from the mean of the others to a perfect score."""
        return {name: c.range for name, c in self.metrics.items() if c.range is not None}

    @property
    def no_vote(self) -> dict[str, str]:
        """Metric that neither bars a combination nor contradicts a gain -> its numbers in words."""
        return {name: in_numbers(c) for name, c in without_vote(self.metrics, self.primary).items()}

    @property
    def doubt(self) -> str:
        """Why the primary metric may not be able to decide; empty if it passes."""
        found = self.metrics.get(self.primary)
        words = [] if found is None or found.passes else [doubt(found)]
        return " ".join([*words, *self.cautions])

    def __repr__(self) -> str:
        return f"decides: {self.primary}\n{self.to_frame()[['conditions', 'bds', 'drf', 'passes']].to_string()}"

    def _repr_html_(self) -> str:
        return f"<p>decides: {self.primary}</p>{self.to_frame().round(3).to_html()}"

    def to_frame(self) -> pd.DataFrame:
        """One row per metric: conditions, both controls, DRF and BDS with intervals, whether it passes."""
        rows = [{"metric": name, **_flat(c)} for name, c in self.metrics.items()]
        return pd.DataFrame(rows).set_index("metric")

    def to_json(self) -> dict[str, Any]:
        return {
            "format": 1,
            "key": self.key,
            "order": list(AUTO_ORDER),
            "primary": self.primary,
            "positive": self.positive,
            "negative": "the mean treated profile of the cell line outside the sample's fold",
            "metrics": [c.to_json() for c in self.metrics.values()],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Calibrated:
        found = [Calibration.from_json(c) for c in value["metrics"]]
        return cls(value["key"], value["primary"], {c.metric: c for c in found}, value["positive"])


def _flat(c: Calibration) -> dict[str, Any]:
    low, high = c.bds_ci or (None, None)
    least, most = c.drf_ci or (None, None)
    return {
        "conditions": c.n,
        "groups": c.n_groups,
        "replicate": c.positive,
        "constant": c.negative,
        "drf": c.drf,
        "drf_lo": least,
        "drf_hi": most,
        "bds": c.bds,
        "bds_lo": low,
        "bds_hi": high,
        "passes": c.passes,
    }


def doubt(found: Calibration) -> str:
    """A metric that does not pass, in one sentence."""
    metric = metric_words(found.metric)
    if not found.known:
        return (
            f"{metric} is not calibrated: no condition of the development rows was measured twice, so whether it "
            "tells a replicate from a constant is not known."
        )
    return f"{metric} cannot tell a replicate from a constant here ({in_numbers(found)})."


def calibrate_study(folder: StudyFolder, *, workers: int = 1, memory: str = "1GB", sealing: bool = False) -> Calibrated:
    """Calibrate every metric on development rows, settle a plan that says ``auto``, write ``results/calibration.json``.

    Of more than ``MOST_ROWS`` rows whole groups are drawn until so many are together. What is there already for the
    same rows and plan is read back.

    Parameters
    ----------
    folder : of the study.
    workers : processes that share the pass.
    memory : of a tile, in words.
    sealing : asked by the stack step, which seals what comes out. Without it numbers that it sealed stay as they are,
        whatever this version would make of them.

    Raises
    ------
    CorruptionError
        The stack step sealed the file, and it is not as it was.
    InputError
        There are no development rows; or the plan names a metric that they or the test cannot have.
    UnknownNameError
        The plan names a metric that does not exist.
    """
    plan = folder.analysis_plan
    require_fitting(folder, plan)
    named = [] if plan.primary == AUTO else [parse_metric(plan.primary).name, parse_metric(plan.choice_metric).name]
    wanted = tuple(
        dict.fromkeys(parse_metric(m).name for m in (*AUTO_ORDER, *named, *panel(folder.references), *BESIDE))
    )
    source = StoreSource(folder.store, None, "development", (), groups=folder.plan.groups)
    some = some_groups(source, MOST_ROWS, seed=plan.seed)
    layers = [[b.id, layer, source.layer_digest(b, layer)] for b in source.blocks() for layer in ("control", "treated")]
    if not layers:
        raise InputError(f"{folder.root} has no development rows to calibrate metrics on.")
    halves = _by_halves(folder, source)
    looked = [] if some is source else [["groups", MOST_ROWS, plan.seed]]
    names = folder.samples["perturbation"].unique()
    rows = folder.samples[folder.samples["role"] == "development"]
    shared = [] if shared_parts(rows, names) is None else ["shared parts"]
    key = digest_json([_RULE, folder.plan.digest, layers, wanted, *(["halves"] if halves else []), *looked, *shared])
    path = folder.results / FILE
    before = Calibrated.from_json(read_json(path)) if path.exists() else None
    kept = not sealing and is_sealed(folder, "stack", path)
    if before is not None and kept and set(wanted) <= set(before.metrics):
        return _with_cautions(folder, before)
    if before is not None and before.key == key:
        found = before.metrics
    else:
        found = calibrate_source(
            some, folder.references, wanted, memory=parse_bytes(memory), workers=workers, halves=halves, among=names
        )
    settled = _settle(folder, plan, found)
    calibrated = Calibrated(key, parse_metric(settled.choice_metric).name, found, AGAIN[halves])
    if calibrated != before and not kept:
        write_json(path, calibrated.to_json())
    return _with_cautions(folder, calibrated)


def require_fitting(folder: StudyFolder, plan: AnalysisPlan, *, refuse: bool = True) -> tuple[Finding, ...]:
    """What must be known of a plan's metric on the rows of a study (``reduce.metrics.asked``), as warnings.

    Parameters
    ----------
    folder : of the study.
    plan : names the metric, or has settled it.
    refuse : stop at a metric that was named and cannot be; else it is said like the rest.

    Raises
    ------
    InputError
        The plan names a metric that no row can have, or that would be another under its name.
    """
    metrics = [plan.settled] if plan.primary == AUTO else [plan.primary, plan.choice_metric]
    rows, named = folder.samples, refuse and plan.primary != AUTO
    rows = rows[rows["role"].isin(("development", "test"))]
    found = [
        f
        for metric in dict.fromkeys(parse_metric(m).name for m in metrics if m)
        for f in asked_metric(metric, rows, folder.gene_names, references=folder.references, named=named, mend=_MEND)
    ]
    if plan.k != AnalysisPlan().k:
        found.append(
            Finding(
                "warning",
                "k_without_effect",
                f"k = {plan.k} in plan.toml changes nothing: metrics and combiners take the number of top genes from "
                f"the name of the metric. Write it there, as r2_top{plan.k}@pooled.",
            )
        )
    return tuple({f.message: f for f in found}.values())


def _with_cautions(folder: StudyFolder, calibrated: Calibrated) -> Calibrated:
    return replace(
        calibrated, cautions=tuple(f.message for f in require_fitting(folder, folder.analysis_plan, refuse=False))
    )


def _by_halves(folder: StudyFolder, source: StoreSource) -> bool:
    """Whether halves of cells stand for the condition measured again: no condition was, and samples are of cells."""
    halved = all(folder.store.status(b, layer) == "committed" for b in source.blocks() for layer in HALVES)
    return halved and not measured_twice(source)


def _settle(folder: StudyFolder, plan: AnalysisPlan, found: dict[str, Calibration]) -> AnalysisPlan:
    """The plan with ``auto`` settled and written down; any other plan as it is. A locked plan is never touched."""
    if plan.primary != AUTO or plan.settled:
        return plan
    if locked_plan(folder.ledger) is not None:
        require_unlocked_or_same(plan, folder.ledger)
    passed = first_that_passes(AUTO_ORDER, found)
    metric = passed or AUTO_ORDER[0]
    if passed is not None:
        tried = [parse_metric(m).name for m in AUTO_ORDER[: AUTO_ORDER.index(passed)]]
        words = in_numbers(found[metric]) + "".join(f"; before it {m}: {in_numbers(found[m])}" for m in tried)
    elif not any(c.known for c in found.values()):
        words = "not calibrated: no condition of the development rows was measured twice"
    else:
        words = "no metric of the order passes; the first: " + in_numbers(found[metric])
    settled = plan.changed(settled=metric, settled_by=words)
    settled.save(folder.analysis_plan_file)
    return settled


def stored_calibration(folder: StudyFolder) -> Calibrated | None:
    """What the step wrote, or None."""
    path = folder.results / FILE
    return _with_cautions(folder, Calibrated.from_json(read_json(path))) if path.exists() else None
