"""The gains of one split taken apart: every combiner and reference against the best single model."""

from __future__ import annotations

import numpy as np

from pertstack._base.arrays import Array
from pertstack.design.metric_names import find_metric, split_metric
from pertstack.design.plan.known import telling
from pertstack.verdict.gain.decompose import decompose, effect_quartiles
from pertstack.verdict.gain.parts import Decomposition
from pertstack.verdict.reading import Reading


def decompositions_of(reading: Reading) -> dict[str, Decomposition]:
    """Every combiner, reference and the chosen one against the best single model; strata for the chosen one only."""
    setting, primary, best = reading.setting, reading.primary, reading.at[reading.best]
    values = _views(reading)
    inside = reading.resampling.versus_best(values[primary], reading.bases, reading.groups, sign=reading.sign)
    return {
        name: decompose(
            name,
            reading.best,
            {m: (v[i], v[best]) for m, v in values.items()},
            primary=primary,
            groups=reading.groups,
            compare=reading.resampling.compare,
            strata=_strata(reading) if name == setting.chosen else None,
            primary_difference=inside[i],
            no_vote=setting.no_vote,
        )
        for name, i in reading.at.items()
        if name == setting.chosen or setting.kinds[name] in ("combiner", "reference")
    }


def against_alone(reading: Reading) -> Decomposition | None:
    """The chosen combination against the base model that would ship without it, both named before these rows were seen;
    None if that is the best single model, or one of the two was not scored."""
    chosen, alone = reading.setting.chosen or "", reading.setting.alone or ""
    if alone == reading.best or chosen not in reading.at or alone not in reading.at:
        return None
    return decompose(
        chosen,
        alone,
        {m: (v[reading.at[chosen]], v[reading.at[alone]]) for m, v in _views(reading).items()},
        primary=reading.primary,
        groups=reading.groups,
        compare=reading.resampling.compare,
        no_vote=reading.setting.no_vote,
    )


def _views(reading: Reading) -> dict[str, Array]:
    """Scores (n_names, n) of every metric that a gain is looked at in."""
    stem = split_metric(reading.primary)[0]
    views = [f"{stem}@{reference}" for reference in ("own", "pooled", "matched", "centroid")]
    wanted = (*views, reading.primary, "pearson_all@centroid", "pearson_all@plate", "rmse_all", "rmse_top20")
    used = [m for m in reading.table.metrics if any(find_metric([m], w) for w in wanted)]
    return {m: reading.matrix(m) for m in used}


def _strata(reading: Reading) -> dict[str, list[str | None]]:
    """Effect-size quartiles, cell lines, what the fits knew of the perturbation; where known and where several."""
    strata: dict[str, list[str | None]] = {}
    samples = reading.table.samples
    if "effect_rms" in samples:
        strata["effect quartile"] = effect_quartiles(samples["effect_rms"].to_numpy(dtype=np.float64))
    strata["cell line"] = [str(x) for x in samples["cell_line"]]
    if reading.setting.fitted is not None:
        known = reading.setting.known_levels(samples)
        strata |= {view: list(known[view]) for view in telling(known)}
    return {view: levels for view, levels in strata.items() if len({x for x in levels if x is not None}) > 1}
