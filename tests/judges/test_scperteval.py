"""Our metrics and calibration against scperteval 0.2.0. Skipped where it is not installed (``make judges``).

Their protocols are read off a small screen of cells; ours are computed from the same means. Names differ: their
``r2_*`` is our ``cod``, their ``*_ctrl`` our ``@pooled``, ``*_pert`` our ``@others``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pertstack.reduce.metrics import effect_weights as ew
from pertstack.reduce.metrics.set_level import discrimination
from pertstack.reduce.scoring.calibration import bound_discrimination, dynamic_range_fraction, interpolated_duplicate

scperteval = pytest.importorskip("scperteval")
pytestmark = pytest.mark.filterwarnings("ignore:Excluding")

N_DRUGS, N_CELLS, N_GENES, N_CONTROLS = 9, 36, 70, 50
NAMES = [f"drug{d}" for d in range(N_DRUGS)]
CLOSE = {"atol": 1e-6, "rtol": 0}


@pytest.fixture(scope="module")
def screen():
    """(truth cells, predicted cells, control cells, label of each cell)."""
    rng = np.random.default_rng(11)
    base = rng.uniform(1, 4, N_GENES)
    effect = rng.normal(0, 0.4, (N_DRUGS, N_GENES)) * (rng.random((N_DRUGS, N_GENES)) < 0.4)
    label = np.repeat(NAMES, N_CELLS)
    mean = base + effect.repeat(N_CELLS, axis=0)
    truth = mean + rng.normal(0, 0.6, mean.shape)
    predicted = base + 0.6 * effect.repeat(N_CELLS, axis=0) + rng.normal(0, 0.1, (N_DRUGS, N_GENES)).repeat(N_CELLS, 0)
    predicted = predicted + rng.normal(0, 0.6, mean.shape)
    return truth, predicted, base + rng.normal(0, 0.6, (N_CONTROLS, N_GENES)), label


def anndata_of(cells, control, label):
    anndata = pytest.importorskip("anndata")
    obs = pd.DataFrame({"perturbation": [*label, *["control"] * len(control)]})
    obs.index = [f"c{i}" for i in range(len(obs))]
    return anndata.AnnData(np.concatenate([cells, control]), obs, pd.DataFrame(index=[f"g{g}" for g in range(N_GENES)]))


@pytest.fixture(scope="module")
def prepared(screen):
    return scperteval.prepare(anndata_of(screen[0], *screen[2:]), [], min_cells=4, workers=1)


def means(cells, label):
    return np.stack([cells[label == name].mean(axis=0) for name in NAMES])


@pytest.fixture(scope="module")
def profiles(screen):
    """Means of truth and prediction, of the others, of control; the test of the truth against all other perturbed."""
    truth, predicted, control, label = screen
    mine = [truth[label == name] for name in NAMES]
    rest = [truth[label != name] for name in NAMES]
    moments = [np.array([f(v) for v in some]) for some in (mine, rest) for f in (mean, variance, len)]
    t = means(truth, label)
    others = (t.sum(axis=0) - t) / (N_DRUGS - 1)
    return t, means(predicted, label), others, control.mean(axis=0), against(moments)


def mean(cells):
    return cells.mean(axis=0)


def variance(cells):
    return cells.var(axis=0, ddof=1)


def theirs(prepared, screen, protocol):
    table = scperteval.score(prepared, protocol, anndata_of(screen[1], *screen[2:])).per_perturbation
    return table.set_index("perturbation").loc[NAMES, "raw_prediction"].to_numpy(float)


def ours(profiles, protocol):
    """The same number by our functions: measure, weights and reference are read off their name."""
    t, p, others, control, test = profiles
    reference = others if "_pert" in protocol else control if "_ctrl" in protocol else 0.0
    measure = ew.weighted_mse if protocol.startswith(("mse", "wmse", "l2")) else ew.weighted_pearson
    measure = ew.weighted_cod if "r2" in protocol else measure
    if "exp" in protocol:
        weights = ew.effect_weights(test.t, float(protocol[-1]))
    elif "top_k" in protocol:
        weights = ew.top_by_t(test.t, 20)
    elif "degs" in protocol:
        weights = ew.significant(test.p_adjusted)
    elif "heg" in protocol:
        weights = ew.most_expressed(control, 30, N_DRUGS)
    else:
        weights = np.full_like(t, 1 / N_GENES)
    value = measure(t - reference, p - reference, weights)
    return np.sqrt(30 * value) if protocol.startswith("l2") else value


@pytest.mark.parametrize(
    "protocol",
    [
        "mse",
        "wmse_exp1",
        "wmse_exp2",
        "wmse_exp4",
        "pearson_ctrl",
        "pearson_pert",
        "r2_ctrl",
        "r2_pert",
        "weighted_pearson_ctrl_exp2",
        "weighted_pearson_pert_exp2",
        "weighted_r2_ctrl_exp2",
        "weighted_r2_pert_exp2",
        "mse_top_k=20",
        "pearson_ctrl_top_k=20",
        "pearson_pert_top_k=20",
        "r2_ctrl_top_k=20",
        "mse_degs_padj=0.05",
        "pearson_ctrl_degs_padj=0.05",
        "r2_pert_degs_padj=0.05",
        "pearson_ctrl_heg_k=30",
        "l2_heg_k=30",
    ],
)
def test_a_protocol_agrees(prepared, screen, profiles, protocol):
    expected = theirs(prepared, screen, protocol)
    assert len(set(np.round(expected, 6))) > 3
    np.testing.assert_allclose(ours(profiles, protocol), expected, **CLOSE)


def test_nir_agrees(prepared, screen, profiles):
    t, p = profiles[:2]
    np.testing.assert_allclose(discrimination(t, p, "l2"), theirs(prepared, screen, "nir"), **CLOSE)


def against(moments):
    """Means, variances and counts of some, tested against those of others."""
    return ew.welch_test(*moments[:3], other_mean=moments[3], other_variance=moments[4], other_n=moments[5])


def half_tested(prepared, screen, which):
    """Cells of one half of each perturbation, and their test against all cells of the others."""
    truth, label = screen[0], screen[3]
    half = [truth[prepared._ds.halves[name][which]] for name in NAMES]
    rest = [truth[label != name] for name in NAMES]
    return half, against([np.array([f(v) for v in some]) for some in (half, rest) for f in (mean, variance, len)])


def test_de_test_agrees(prepared, screen):
    """They test the first half of the cells."""
    found, (_, test) = scperteval.de(prepared), half_tested(prepared, screen, 0)
    np.testing.assert_allclose(test.t, found.statistic.loc[NAMES], rtol=1e-6)
    np.testing.assert_allclose(test.p_adjusted, found.pvalue_adj.loc[NAMES], **CLOSE)


@pytest.mark.parametrize("protocol", ["mse", "pearson_ctrl", "pearson_pert", "r2_ctrl", "wmse_exp2", "nir"])
@pytest.mark.parametrize("positive", ["tech_dup", "interpolated"])
def test_drf_and_bds_agree(prepared, protocol, positive):
    higher, perfect = ("mse" not in protocol), (0.0 if "mse" in protocol else 1.0)
    for name, mine in (("drf", dynamic_range_fraction), ("bds", bound_discrimination)):
        found = scperteval.calibrate(prepared, protocol, calibrator=name, positive=positive)
        raw = found.per_perturbation.set_index("perturbation").loc[NAMES]
        args = raw["raw_positive"].to_numpy(float), raw["raw_negative"].to_numpy(float)
        values = mine(*args, perfect, higher=higher) if name == "drf" else mine(*args, higher=higher)
        np.testing.assert_allclose(values, raw[name], **CLOSE)
        assert np.nanmean(values) == pytest.approx(found.aggregate["mean" if name == "drf" else "bds"], abs=1e-6)


def test_interpolated_duplicate_agrees(prepared, screen):
    """Their halves, our blend, our error: their raw value of the positive control."""
    raw = scperteval.calibrate(prepared, "mse", positive="interpolated").per_perturbation.set_index("perturbation")
    t = means(screen[0], screen[3])
    (first, _), (second, test) = half_tested(prepared, screen, 0), half_tested(prepared, screen, 1)
    others = (t.sum(axis=0) - t) / (N_DRUGS - 1)
    again = interpolated_duplicate(np.stack([v.mean(axis=0) for v in second]), test.p_adjusted, others)
    first = np.stack([v.mean(axis=0) for v in first])
    np.testing.assert_allclose(((first - again) ** 2).mean(axis=1), raw.loc[NAMES, "raw_positive"], **CLOSE)
