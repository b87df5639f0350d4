"""``predict`` for perturbations that the study never met: what is known of them reaches the models."""

from __future__ import annotations

from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest

from e2e.conftest import pertstack
from pertstack._base.errors import InputError
from pertstack.data import build_side
from pertstack.study.new_rows.new_samples import merged_side
from pertstack.study.study import Study

GENES = [f"GENE{i}" for i in range(12)]


def obs_of(*names):
    return pd.DataFrame({"perturbation": names, "cell_line": "A"}, index=[f"s{i}" for i in range(len(names))])


def new(*names, **beside):
    return SimpleNamespace(obs=obs_of(*names), uns={}, beside=beside, path="new.h5ad")


def test_new_pairs_of_known_genes_are_known():
    """Their columns were those of the new file, which no model of the study knows, and so they were passed over."""
    known, _ = build_side(obs_of("GENE1", "GENE2", "GENE3", "GENE1+GENE2"), GENES)
    table = merged_side(known, new("GENE1+GENE3", "GENE3+GENE7", "GENE8"), GENES).features["genes"]
    assert table.columns == ("GENE1", "GENE2", "GENE3")
    values, there = table.rows(["GENE1+GENE3", "GENE3+GENE7", "GENE8", "GENE2"])
    np.testing.assert_array_equal(values, [[1, 0, 1], [0, 0, 1], [0, 0, 0], [0, 1, 0]])
    assert list(there) == [True, True, False, True]


def test_targets_and_features_of_new_drugs_come_from_files_beside_them(tmp_path):
    pd.DataFrame({"perturbation": ["a", "b"], "gene": ["GENE1", "GENE2"]}).to_csv(tmp_path / "old.csv")
    pd.DataFrame({"perturbation": ["c", "c"], "gene": ["GENE2", "GENE5"]}).to_csv(tmp_path / "new.csv")
    x = pd.DataFrame(np.eye(3, 2), index=["a", "b", "c"], columns=["u", "v"])
    x[:2].to_csv(tmp_path / "x.csv")
    x[["v", "u"]].assign(w=7.0).loc[["a", "c"]].replace({"u": {1.0: 5.0}}).to_csv(tmp_path / "new_x.csv")
    known, _ = build_side(obs_of("a", "b"), GENES, features=tmp_path / "x.csv", targets=tmp_path / "old.csv")
    beside = {"features": tmp_path / "new_x.csv", "targets": tmp_path / "new.csv"}
    found = merged_side(known, new("c", "a", **beside), GENES).features
    assert found["targets"].columns == ("GENE1", "GENE2") and found["targets"].rows(["c"])[0].tolist() == [[0, 1]]
    assert found["user"].columns == ("u", "v")
    np.testing.assert_array_equal(found["user"].rows(["c", "a"])[0], [[0, 0], [1, 0]])
    x.loc[["c"], ["u"]].to_csv(tmp_path / "less.csv")
    with pytest.raises(InputError, match=r"less\.csv lacks 1 of the 2 features of the study \('v'\)"):
        merged_side(known, new("c", features=tmp_path / "less.csv"), GENES)


def screen(rng, names, features, effects):
    rows = [n for n in names for _ in range(2)]
    control = rng.normal(7, 1, (1, len(GENES))) + rng.normal(0, 0.1, (len(rows), len(GENES)))
    treated = control + features.loc[rows].to_numpy() @ effects + rng.normal(0, 0.1, control.shape)
    obs = pd.DataFrame({"perturbation": rows, "cell_line": "A"}, index=[f"{n}_{i % 2}" for i, n in enumerate(rows)])
    layers = {"control": control.astype(np.float32)}
    return anndata.AnnData(treated.astype(np.float32), obs, pd.DataFrame(index=GENES), layers=layers)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_features_of_new_drugs_reach_the_model(tmp_path):
    """All of them got one profile, since ``predict`` took no features. A ridge on features that drive the response."""
    rng = np.random.default_rng(5)
    drugs, others = [f"drug{i}" for i in range(40)], ["fresh0", "fresh1", "fresh2"]
    features = pd.DataFrame(rng.normal(size=(43, 3)), index=[*drugs, *others], columns=list("uvw"))
    effects = rng.normal(0, 1, (3, len(GENES)))
    screen(rng, drugs, features, effects).write_h5ad(tmp_path / "data.h5ad")
    fresh = screen(rng, others, features, effects)
    fresh.write_h5ad(tmp_path / "new.h5ad")
    features.loc[drugs].to_csv(tmp_path / "x.csv")
    features.loc[others].to_csv(tmp_path / "new_x.csv")
    study = Study.create(tmp_path / "s", data=tmp_path / "data.h5ad", features=tmp_path / "x.csv", folds=2)
    study.cross_fit(["mean_treated", "ridge"], nested=False)
    study.stack()
    said = study.predict(tmp_path / "new.h5ad", tmp_path / "out.h5ad", use="ridge", features=tmp_path / "new_x.csv")
    assert said == (6, len(GENES))
    predicted = anndata.read_h5ad(tmp_path / "out.h5ad")
    change = predicted.X - fresh.layers["control"]
    truth = features.loc[fresh.obs["perturbation"]].to_numpy() @ effects
    assert np.corrcoef(change.ravel(), truth.ravel())[0, 1] > 0.9
    words = ("predict", "s", "new.h5ad", "two.h5ad", "--use", "ridge", "--features", "new_x.csv")
    done = pertstack(*words, cwd=tmp_path)
    assert done.returncode == 0 and "no features" not in done.stderr, done.stderr
    np.testing.assert_array_equal(anndata.read_h5ad(tmp_path / "two.h5ad").X, predicted.X)
    done = pertstack("predict", "s", "new.h5ad", "three.h5ad", "--use", "ridge", cwd=tmp_path)
    assert done.returncode == 0 and "3 of 3 perturbations of new.h5ad have no features" in " ".join(done.stderr.split())
    done = pertstack("predict", "s", "new.h5ad", "four.h5ad", "--targets", "new_x.csv", cwd=tmp_path)
    assert done.returncode == 2 and "--targets new_x.csv is of no use here" in " ".join(done.stderr.split())
