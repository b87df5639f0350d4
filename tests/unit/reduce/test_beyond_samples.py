"""Metrics that need more than one sample: effect-level, within the plate, halves of the controls."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pertstack._base.errors import InputError, UnknownNameError
from pertstack.design.metric_names import effect_names
from pertstack.reduce import References, parse_metric, score
from pertstack.stacking.combiners.linear_weights import LinearWeights
from references.memory_source import world


@pytest.fixture(scope="module")
def source():
    found = world(n=24, n_genes=30, n_drugs=7, folds=(0, 1), seed=3)
    for table in found.tables.values():
        table["plate"] = np.where(np.arange(len(table)) % 2 == 0, "P1", "P2")
    return found


def rows_of(source, layer, line):
    blocks = [b for b in sorted(source.tables) if b.cell_line == line]
    return np.concatenate([source.layers[(b, layer)] for b in blocks]).astype(float)


def drugs_of(source, line):
    return np.concatenate([source.tables[b]["perturbation"] for b in sorted(source.tables) if b.cell_line == line])


def weights_loop(name, x, drugs, drug, pooled):
    """Weights of one perturbation by scipy, gene sets by sorting."""
    found = stats.ttest_ind(x[drugs == drug], x[drugs != drug], equal_var=False)
    t = found.statistic
    if name.startswith("exp"):
        return ((abs(t) - abs(t).min()) / (abs(t).max() - abs(t).min())) ** float(name[3:])
    if name == "degs":
        return (stats.false_discovery_control(found.pvalue) < 0.05).astype(float)
    order = np.argsort(-(pooled if name.startswith("heg") else abs(t)))
    w = np.zeros(len(t))
    w[order[: int(name.strip("hegt"))]] = 1.0
    return w


@pytest.mark.parametrize(
    "metric",
    [
        "mse_exp2",
        "pearson_exp4@others",
        "cod_exp1@pooled",
        "cod_t5@others",
        "pearson_degs@pooled",
        "mse_heg4",
        "cod_heg9@own",
    ],
)
def test_effect_level_matches_a_loop(source, metric):
    references = References.collect(source)
    parsed = parse_metric(metric)
    got = score(source, {}, references, metrics=[metric]).values("m1", metric)
    for line in ("A375", "MCF7"):
        x, p, c = (rows_of(source, layer, line) for layer in ("treated", "m1", "control"))
        drugs, expected = drugs_of(source, line), []
        means = {d: x[drugs == d].mean(axis=0) for d in set(drugs)}
        for drug in drugs:
            w = weights_loop(parsed.weighting, x, drugs, drug, references.pooled(line))
            less = {
                "own": c[drugs == drug].mean(axis=0),
                "pooled": references.pooled(line),
                "others": np.mean([m for d, m in means.items() if d != drug], axis=0),
            }[parsed.reference]
            if w.sum() == 0:
                expected.append(np.nan)
                continue
            t, q, w = means[drug] - less, p[drugs == drug].mean(axis=0) - less, w / w.sum()
            cov = np.cov(t, q, aweights=w, ddof=0)
            error = (w * (t - q) ** 2).sum()
            values = {"mse": error, "pearson": cov[0, 1] / np.sqrt(cov[0, 0] * cov[1, 1]), "cod": 1 - error / cov[0, 0]}
            expected.append(values[parsed.kind])
        here = np.concatenate([np.full(24, b.cell_line == line) for b in sorted(source.tables)])
        np.testing.assert_allclose(got[here], expected, rtol=2e-4, atol=2e-5)


def test_every_effect_level_name_is_scored_and_read_back(source):
    names = [n for n in effect_names() if "offtarget" not in n]
    table = score(source, {}, References.collect(source), metrics=names)
    assert all(parse_metric(parse_metric(n).name) == parse_metric(n) for n in effect_names())
    assert table.mean("m0", "de_direction").value > table.mean("no_change", "de_direction").value
    corrected, plain = (table.mean("m1", m).value for m in ("mse_all_corrected", "mse_heg1000"))
    assert 0 < corrected < plain


def test_target_genes_left_out(source):
    with pytest.raises(InputError, match="names a gene"):
        score(source, {}, References.collect(source), metrics=["mse_all_offtarget"])
    named = world(n=12, n_genes=20, n_drugs=4, seed=1)
    for table in named.tables.values():
        table["perturbation"] = [f"g{p[4:]}" for p in table["perturbation"]]
    metrics = ["mse_all_offtarget", "pds_l1@pooled", "pds_l1_offtarget@pooled", "nir_offtarget@pooled"]
    table = score(named, {}, References.collect(named), metrics=metrics)
    drugs = drugs_of(named, "A375")
    t, p = (rows_of(named, x, "A375")[drugs == drugs[0]].mean(axis=0) for x in ("treated", "m1"))
    keep = np.arange(20) != int(drugs[0][1:])
    assert table.values("m1", "mse_all_offtarget")[0] == pytest.approx(((t - p)[keep] ** 2).mean(), rel=1e-4)
    assert table.metrics[-1] == "centroid_accuracy_offtarget@pooled"


def within_plate_loop(x, plates, drugs):
    """Each row minus the mean of the other perturbations on its plate (plates hold the fold in their names)."""
    out = np.full(x.shape, np.nan)
    for i in range(len(x)):
        others = (plates == plates[i]) & (drugs != drugs[i])
        if len(set(drugs[others])) >= 4:
            out[i] = x[i] - x[others].mean(axis=0)
    return out


def test_within_the_plate_matches_a_loop(source):
    metrics = ["pearson_all@plate", "r2_top20@plate"]
    table = score(source, {}, References.collect(source), metrics=metrics)
    blocks = sorted(source.tables)
    x, p = (np.concatenate([source.layers[(b, layer)] for b in blocks]).astype(float) for layer in ("treated", "m1"))
    plates = np.concatenate([source.tables[b]["plate"] + b.id for b in blocks])
    drugs = np.concatenate([source.tables[b]["perturbation"] for b in blocks])
    t, q = within_plate_loop(x, plates, drugs), within_plate_loop(p, plates, drugs)
    expected = [stats.pearsonr(a, b).statistic for a, b in zip(t, q, strict=True)]
    np.testing.assert_allclose(table.values("m1", "pearson_all@plate"), expected, atol=1e-5)
    top = [np.argsort(-abs(a), kind="stable")[:20] for a in t]
    squares = [stats.pearsonr(a[g], b[g]).statistic ** 2 for a, b, g in zip(t, q, top, strict=True)]
    np.testing.assert_allclose(table.values("m1", "r2_top20@plate"), squares, atol=1e-5)
    parts = score(source, {}, References.collect(source), metrics=metrics, memory=60_000)
    np.testing.assert_array_equal(parts.values("m1", metrics[0]), table.values("m1", metrics[0]))


def test_what_is_read_off_the_plate_goes():
    """A model that knows the plate and nothing of the perturbation: much against pooled, nothing within the plate."""
    rng = np.random.default_rng(0)
    found = world(n=60, n_genes=80, n_drugs=30, seed=5, lines=("A375",))
    for block, table in found.tables.items():
        table["plate"] = [f"P{i % 3}" for i in range(60)]
        effect = rng.normal(0, 2.0, (3, 80))[np.arange(60) % 3]
        found.layers[(block, "treated")] += effect.astype(np.float32)
        level = found.layers[(block, "control")].mean(axis=0)
        found.layers[(block, "m0")] = (level + effect + rng.normal(0, 0.1, (60, 80))).astype(np.float32)
    table = score(found, {}, References.collect(found), metrics=["pearson_all@pooled", "pearson_all@plate"])
    assert table.mean("m0", "pearson_all@pooled").value > 0.5
    assert abs(table.mean("m0", "pearson_all@plate").value) < 0.05
    assert table.mean("m1", "pearson_all@plate").value > 0.3


def test_few_others_or_no_plate_is_undefined():
    small = world(n=6, n_drugs=4, seed=2)
    for table in small.tables.values():
        table["plate"] = "P"
    for found in (small, world(n=24)):
        table = score(found, {}, References.collect(found), metrics=["pearson_all@plate"])
        assert np.isnan(table.values("m0", "pearson_all@plate")).all()


def test_two_halves_share_no_control():
    """With no effect at all a constant prediction correlates on the shared control and not on disjoint halves."""
    rng = np.random.default_rng(1)
    found = world(n=80, n_genes=200, n_drugs=40, lines=("A375",))
    base = rng.normal(7, 2, 200)
    wells = base + rng.normal(0, 0.5, (8, 200))
    for block in found.tables:
        found.layers[(block, "control")] = wells[np.arange(80) % 8].astype(np.float32)
        found.layers[(block, "treated")] = (base + rng.normal(0, 0.5, (80, 200))).astype(np.float32)
        found.layers[(block, "m0")] = np.tile(base, (80, 1)).astype(np.float32)
    metrics = [f"pearson_all@{r}" for r in ("own", "pooled", "halves")]
    table = score(found, {}, References.collect(found), metrics=metrics)
    own, pooled, halves = (table.mean("m0", m).value for m in metrics)
    assert own > 0.6 and pooled > 0.15 and abs(halves) < 0.12


@pytest.mark.parametrize("name", ["pearson_exp2@plate", "pds_l1@others", "r2_top20@others", "mse_degs@matched"])
def test_a_reference_a_metric_does_not_have(name):
    with pytest.raises(InputError, match="does not have"):
        parse_metric(name)


@pytest.mark.parametrize("name", ["mse_all", "pearson_exp3", "cod_all_corrected", "de_other"])
def test_no_such_metric(name):
    with pytest.raises(UnknownNameError):
        parse_metric(name)


def test_names_that_peers_use():
    assert parse_metric("nir@pooled").name == "centroid_accuracy@pooled" == parse_metric("pds_l2@pooled").name


@pytest.mark.parametrize("replicated", [False, True])
def test_mixtures_within_the_plate_follow_from_their_models(replicated):
    """Made of what is left of the models, or row by row like any combination: the same values."""
    found = world(n=40, n_genes=70, n_drugs=12 if replicated else 40, seed=8, lines=("A375",))
    for table in found.tables.values():
        table["plate"] = np.where(np.arange(len(table)) % 2 == 0, "P1", None if not replicated else "P2")
    references, rng = References.collect(found), np.random.default_rng(1)
    names = tuple(map(str, found.gene_names))
    ranking = np.tile(np.arange(len(found.models)), (70, 1))
    fits = {
        f"{reference}{c}": LinearWeights(
            "w", reference, found.models, names, rng.normal(0.4, 0.3, shape), rng.normal(size=70), ranking
        )
        for reference in ("own", "pooled")
        for c, shape in enumerate([(len(found.models),), (70, len(found.models))])
    }
    metrics = ["pearson_all@plate", "r2_top20@plate"]
    together = score(found, fits, references, metrics=metrics)
    alone = score(found, {n: f.combine for n, f in fits.items()}, references, metrics=metrics)
    assert np.isfinite(alone.values_by_name).any()
    np.testing.assert_allclose(together.values_by_name, alone.values_by_name, atol=2e-5)
    tight = score(found, fits, references, metrics=metrics, memory=20_000)
    np.testing.assert_allclose(tight.values_by_name, alone.values_by_name, atol=2e-5)
