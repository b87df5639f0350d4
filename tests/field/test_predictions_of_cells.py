"""Predicted cells and levels against a truth of counts: differences, other depths and logarithms, dicts of cells."""

from __future__ import annotations

import json
import pickle

import anndata
import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError, IntegrityError
from pertstack.data.cells import CellChoice
from pertstack.study.new_rows.evaluation_rows import matched_values
from references import cell_worlds as worlds

GENES = worlds.GENES
TARGETS = GENES[:6]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Cells of counts in one line, and the shares of counts that a model of some skill predicts."""
    folder, rng = tmp_path_factory.mktemp("cells"), np.random.default_rng(5)
    obs = worlds.design(TARGETS, batches=("1",), n=30)
    x = rng.poisson(10 * worlds.counts_of(obs, "target_gene", "cell_line") + 1).astype(np.float32)
    path = worlds.write(folder / "cells.h5ad", obs, x)
    table = pd.DataFrame(x, columns=GENES)
    total = table.groupby(obs["target_gene"].to_numpy()).sum()
    share = total.div(total.sum(axis=1), axis=0).loc[TARGETS] * np.exp(rng.normal(0, 0.1, (6, 30)))
    return path, share.div(share.sum(axis=1), axis=0)


def matched(path, predictions, **options):
    return matched_values(path, {"m": [predictions]}, cells=CellChoice((), None, 10, False), **options)


def cells(path, values, names):
    obs = pd.DataFrame({"target_gene": names}, index=[str(i) for i in range(len(names))])
    anndata.AnnData(np.float32(values), obs, pd.DataFrame(index=GENES)).write_h5ad(path)
    return path


def profiles(found):
    return pd.DataFrame(found.values["m"], found.samples["perturbation"].astype(str), found.genes)


def test_differences_of_cells_are_averaged_as_they_are(world, tmp_path):
    """They were averaged as expression: NaN where means fell below -1, and wrong elsewhere."""
    path, share = world
    change = np.log1p(1e4 * share) - np.log1p(1e4 * share).mean()
    names = [t for t in TARGETS for _ in range(4)]
    values = change.loc[names].to_numpy() + np.random.default_rng(1).normal(0, 0.8, (24, 30))
    found = matched(path, cells(tmp_path / "p.h5ad", values, names), scale="delta")
    expected = pd.DataFrame(values, columns=GENES).groupby(np.array(names)).mean()
    ours = profiles(found) - pd.DataFrame(found.control, profiles(found).index, found.genes)
    np.testing.assert_allclose(ours[GENES], expected.loc[ours.index], atol=1e-5)
    assert "averaged_as_expression" not in {f.code for f in found.findings}


def test_differences_declared_as_levels_are_named_and_not_called_nan(world, tmp_path):
    path, share = world
    names = [t for t in TARGETS for _ in range(2)]
    change = (np.log1p(1e4 * share) - np.log1p(1e4 * share).mean()).loc[names] - 2
    with pytest.raises(InputError, match=r"no logarithms of counts.*say --scale delta"):
        matched(path, cells(tmp_path / "p.h5ad", change, names))


@pytest.mark.parametrize("what", ["counts", "logs"])
@pytest.mark.parametrize("form", ["json", "pickle"])
def test_a_dict_of_cells_is_averaged_as_its_cells_are_in_any_other_file(world, tmp_path, form, what):
    """The plain mean was taken of the rows of each entry, also of logarithms."""
    path, share = world
    rng = np.random.default_rng(2)
    made = {t: rng.poisson(2000 * np.tile(share.loc[t], (5, 1))).astype(np.float32) for t in TARGETS}
    if what == "logs":
        made = {t: np.log1p(1e4 * v / v.sum(axis=1, keepdims=True)) for t, v in made.items()}
    content = {"predictions": {t: v.tolist() if form == "json" else v for t, v in made.items()}, "gene_names": GENES}
    out = tmp_path / ("p.json" if form == "json" else "p.pkl")
    out.write_bytes(json.dumps(content).encode() if form == "json" else pickle.dumps(content))
    if what == "counts":
        sums = pd.DataFrame({t: v.sum(axis=0) for t, v in made.items()}, GENES, dtype=float).T
        expected = np.log1p(1e4 * sums.div(sums.sum(axis=1), axis=0))
    else:
        expected = np.log1p(pd.DataFrame({t: np.expm1(v.astype(float)).mean(axis=0) for t, v in made.items()}, GENES).T)
    ours = profiles(matched(path, out))
    np.testing.assert_allclose(ours[GENES], expected.loc[ours.index], atol=1e-5)


OTHER = {
    "1,500 counts": (lambda s: np.log1p(1500 * s), r"0\.15 times the depth; then write numpy.log1p\(6\.\d+ \*"),
    "a million counts": (lambda s: np.log1p(1e5 * s), r"10(\.\d)? times the depth"),
    "log2 of another depth": (lambda s: np.log2(1 + 2000 * s), "another logarithm"),
}


@pytest.mark.parametrize("which", OTHER)
def test_levels_of_another_depth_or_logarithm_are_warned_of(world, tmp_path, which):
    path, share = world
    of, said = OTHER[which]
    try:
        found = matched(path, cells(tmp_path / "p.h5ad", of(share), TARGETS))
    except IntegrityError as refused:
        assert "another scale" in str(refused) or "logarithms" in str(refused)
        return
    (told,) = [f for f in found.findings if f.code == "levels_off"]
    assert pd.Series([told.message]).str.contains(said).all(), told.message


def test_cells_in_decimal_logarithms_are_warned_of(world, tmp_path):
    path, share = world
    names = [t for t in TARGETS for _ in range(4)]
    counts = np.random.default_rng(3).poisson(2000 * share.loc[names])
    logs = np.log10(1 + 1e4 * counts / counts.sum(axis=1, keepdims=True))
    try:
        told = matched(path, cells(tmp_path / "p.h5ad", logs, names)).findings
    except IntegrityError as refused:
        assert "another scale" in str(refused) or "logarithms" in str(refused)
    else:
        assert "levels_off" in {f.code for f in told}


def test_levels_as_they_are_give_no_remark(world, tmp_path):
    path, share = world
    told = matched(path, cells(tmp_path / "p.h5ad", np.log1p(1e4 * share), TARGETS)).findings
    assert "levels_off" not in {f.code for f in told}


def test_counts_for_samples_are_refused_with_their_transform(tmp_path):
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"perturbation": list("ABCDEF"), "cell_line": "K562"}, index=[f"s{i}" for i in range(6)])
    truth = anndata.AnnData(np.float32(rng.gamma(2, 1, (6, 30))), obs, pd.DataFrame(index=GENES))
    truth.layers["control"] = np.float32(truth.X + rng.normal(0, 0.1, (6, 30)))
    truth.write_h5ad(tmp_path / "truth.h5ad")
    counts = rng.poisson(50 * np.expm1(truth.X))
    named = anndata.AnnData(np.float32(counts), obs, pd.DataFrame(index=GENES))
    named.write_h5ad(tmp_path / "p.h5ad")
    with pytest.raises(IntegrityError, match="--transform log1p_cp10k makes logarithms"):
        matched_values(tmp_path / "truth.h5ad", {"m": [tmp_path / "p.h5ad"]})


def test_labels_of_drug_and_dose_are_read_as_names_of_rows_too(tmp_path):
    rng = np.random.default_rng(0)
    keys = [(d, dose) for d in ("Dabrafenib", "5-FU", "Nutlin-3a") for dose in (0.5, 5.0)]
    obs = pd.DataFrame(keys, columns=["perturbation", "dose"], index=[f"s{i}" for i in range(6)])
    obs = obs.assign(dose_unit="uM", cell_line="K562")
    truth = anndata.AnnData(np.float32(rng.gamma(2, 1, (6, 30))), obs, pd.DataFrame(index=GENES))
    truth.layers["control"] = np.float32(truth.X + rng.normal(0, 0.1, (6, 30)))
    truth.write_h5ad(tmp_path / "truth.h5ad")
    labels = [str([(d, dose, "uM")]) for d, dose in keys]
    predicted = pd.DataFrame(np.float32(truth.X + rng.normal(0, 0.1, (6, 30))), labels, GENES).iloc[::-1]
    predicted.to_pickle(tmp_path / "p.pkl")
    predicted.to_csv(tmp_path / "p.csv")
    for name in ("p.pkl", "p.csv"):
        found = matched_values(tmp_path / "truth.h5ad", {"m": [tmp_path / name]})
        np.testing.assert_allclose(found.values["m"], predicted.iloc[::-1].to_numpy(), atol=1e-5)


@pytest.mark.parametrize("form", ["h5ad", "csv"])
def test_one_cell_line_for_all_predictions_leaves_the_lines_of_the_truth_alone(tmp_path, form):
    """The mend that a refusal prints merged the lines of the truth: every line was held against one prediction."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        [(p, line) for line in ("A549", "K562") for p in "PQRSTU"], columns=["perturbation", "cell_line"]
    )
    obs.index = [f"s{i}" for i in range(12)]
    base = {line: rng.gamma(2, 2, 30) for line in ("A549", "K562")}
    control = np.float32(np.stack([base[line] for line in obs["cell_line"]]))
    values = np.float32(control + rng.normal(0, 0.5, control.shape))
    if form == "h5ad":
        truth = anndata.AnnData(values, obs, pd.DataFrame(index=GENES), layers={"control": control})
        truth.write_h5ad(tmp_path / "truth.h5ad")
        options = {}
    else:
        pd.concat([obs, pd.DataFrame(values, obs.index, GENES)], axis=1).to_csv(
            tmp_path / "truth.csv", index_label="id"
        )
        pd.DataFrame(control, obs.index, GENES).to_csv(tmp_path / "c.csv", index_label="id")
        options = {"control": tmp_path / "c.csv"}
    dicts = {p: np.float32(base["A549"] + rng.normal(0, 0.3, 30)) for p in "PQRSTU"}
    (tmp_path / "p.pkl").write_bytes(pickle.dumps({"predictions": dicts, "gene_names": GENES}))
    given = {"m": [tmp_path / "p.pkl"]}
    with pytest.raises(InputError, match="--map cell_line=const:A549"):
        matched_values(tmp_path / f"truth.{form}", given, **options)
    found = matched_values(tmp_path / f"truth.{form}", given, mapping={"cell_line": "const:A549"}, **options)
    assert found.samples["cell_line"].tolist() == ["A549"] * 6
    np.testing.assert_allclose(profiles(found), pd.DataFrame(dicts, GENES).T, atol=1e-6)
