"""Out again: predictions as cells of counts, as pairs for each cell line, and the scores as a document."""

from __future__ import annotations

import json
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from copies import copied
from e2e.conftest import pertstack
from pertstack._base.errors import InputError
from pertstack.predictions.as_cells import cells_like, read_templates
from pertstack.study.new_rows.new_samples import unknown_findings
from pertstack.study.study import Study
from references import cell_worlds as cells
from references.screens import study_of_cells


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = study_of_cells(tmp_path_factory.mktemp("screen"))
    study = Study.open(folder / "study")
    store, rows = study.folder.store, {}
    for block in store.blocks():
        for (_, sample), values in zip(store.obs(block).iterrows(), store.read(block, "ridge"), strict=True):
            rows[str(sample["perturbation"]), str(sample["cell_line"])] = np.expm1(values.astype(np.float64))
    share = pd.DataFrame(rows, index=[str(g) for g in store.gene_names]).T
    return folder, study, share.div(share.sum(axis=1), axis=0)


def sums_of(path):
    data = anndata.read_h5ad(path)
    keys = [data.obs[c].astype(str).to_numpy() for c in ("target_gene", "context")]
    return data, pd.DataFrame(data.X.toarray().astype(np.float64), columns=data.var_names).groupby(keys).sum()


def depths(data):
    return np.asarray(data.X.sum(axis=1)).ravel()


def test_cells_are_whole_counts_whose_sum_is_the_prediction_at_the_depths_of_control_cells(made, tmp_path):
    folder, study, share = made
    study.export(tmp_path / "out.h5ad", to="vcc", models=["ridge"], cells=folder / "cells.h5ad", per_target=60)
    data, total = sums_of(tmp_path / "out.h5ad")
    assert (data.X.data == np.rint(data.X.data)).all() and data.X.data.min() >= 1
    assert data.obs.groupby(["target_gene", "context"], observed=True).size().tolist() == [60] * 32
    off = total - share.loc[total.index, total.columns].mul(total.sum(axis=1), axis=0)
    assert np.abs(off.to_numpy()).max() < 1
    real = anndata.read_h5ad(folder / "cells.h5ad")
    for line in "AB":
        control = real[(real.obs["target_gene"] == "non-targeting") & (real.obs["context"] == line)]
        assert set(depths(data[data.obs["context"] == line])) <= set(depths(control))


def test_sampled_cells_have_the_prediction_in_expectation(made, tmp_path):
    """The sum of a gene is off by the noise of independent cells, which vary more than Poisson, and does not drift."""
    folder, study, share = made
    options = {"to": "vcc", "models": ["ridge"], "cells": folder / "cells.h5ad", "sampled": True}
    study.export(tmp_path / "out.h5ad", per_target=400, **options)
    _, total = sums_of(tmp_path / "out.h5ad")
    expected = share.loc[total.index, total.columns].mul(total.sum(axis=1), axis=0)
    z = ((total - expected) / np.sqrt(expected.clip(lower=1))).to_numpy()
    assert abs(z.mean()) < 0.1 and 0.5 < z.std() < 3


def test_the_same_seed_gives_the_same_cells_and_another_seed_others(made, tmp_path):
    folder, study, _ = made
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        options = {"to": "vcc", "models": ["ridge"], "cells": folder / "cells.h5ad", "per_target": 5, "seed": seed}
        study.export(tmp_path / f"{name}.h5ad", **options)
    a, b, c = (anndata.read_h5ad(tmp_path / f"{n}.h5ad").X.toarray() for n in "abc")
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_profiles_of_a_file_give_the_cells_that_a_model_of_the_study_gives(made, tmp_path):
    """``pertstack predict`` writes such files: one row a sample, with perturbation and cell_line."""
    folder, study, _ = made
    store = study.folder.store
    obs = pd.concat([store.obs(b) for b in store.blocks()])[["perturbation", "cell_line"]].astype(str)
    values = np.concatenate([store.read(b, "ridge") for b in store.blocks()])
    genes = pd.DataFrame(index=[str(g) for g in store.gene_names])
    anndata.AnnData(values, obs, genes).write_h5ad(tmp_path / "predicted.h5ad")
    options = {"to": "vcc", "cells": folder / "cells.h5ad", "per_target": 5}
    study.export(tmp_path / "a.h5ad", models=["ridge"], **options)
    study.export(tmp_path / "b.h5ad", profiles=tmp_path / "predicted.h5ad", **options)
    a, b = (anndata.read_h5ad(tmp_path / f"{n}.h5ad") for n in "ab")
    assert a.obs.equals(b.obs) and (a.X != b.X).nnz == 0
    anndata.AnnData(values, genes.iloc[:0].reindex(obs.index), genes).write_h5ad(tmp_path / "unsaid.h5ad")
    with pytest.raises(InputError, match=r"does not say perturbation and cell_line.*pertstack predict"):
        study.export(tmp_path / "c.h5ad", profiles=tmp_path / "unsaid.h5ad", **options)


def test_counts_are_moved_and_none_is_made_or_lost():
    rng = np.random.default_rng(0)
    templates = sparse.csr_matrix(rng.poisson(1.5, (30, 25)))
    share = rng.dirichlet(np.ones(25))
    made = cells_like(templates, share, rng)
    assert (made.sum(axis=1) == templates.sum(axis=1)).all() and made.min() >= 0
    assert np.abs(np.asarray(made.sum(axis=0)).ravel() - share * templates.sum()).max() < 1


def test_genes_without_a_prediction_keep_the_share_of_the_control_cells(made, tmp_path):
    folder, study, _ = made
    real = anndata.read_h5ad(folder / "cells.h5ad")
    more = anndata.AnnData(
        sparse.hstack([real.X, np.full((real.n_obs, 1), 3)], format="csr").astype(np.float32),
        real.obs,
        pd.DataFrame(index=[*real.var_names, "SPIKE"]),
    )
    more.write_h5ad(tmp_path / "more.h5ad")
    options = {"to": "vcc", "models": ["ridge"], "cells": tmp_path / "more.h5ad", "per_target": 50}
    study.export(tmp_path / "out.h5ad", **options)
    _, total = sums_of(tmp_path / "out.h5ad")
    templates = read_templates(tmp_path / "more.h5ad")
    for line in "AB":
        own = templates.of_line[line]
        usual = own[:, -1].sum() / own.sum()
        ours = total.xs(line, level=1)
        np.testing.assert_allclose(ours["SPIKE"] / ours.sum(axis=1), usual, rtol=0.02)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--models", "ridge"), "--cells controls.h5ad"),
        (("--cells", "cells.h5ad"), "Name one model with --models"),
        (("--models", "ridge", "--cells", "logs.h5ad"), "are no counts"),
        (("--models", "ridge", "--cells", "one_line.h5ad"), "no control cell of 'B'"),
    ],
)
def test_what_is_missing_for_cells_is_named(made, tmp_path, words, said):
    folder, _, _ = made
    real = anndata.read_h5ad(folder / "cells.h5ad")
    if "logs.h5ad" in words:
        real.X = np.log1p(real.X.toarray() / 3)
        real.write_h5ad(tmp_path / "logs.h5ad")
    if "one_line.h5ad" in words:
        real[real.obs["context"] == "A"].write_h5ad(tmp_path / "one_line.h5ad")
    place = tmp_path if any((tmp_path / w).exists() for w in words) else folder
    done = pertstack("export", folder / "study", tmp_path / "out.h5ad", "--to", "vcc", *words, cwd=place)
    assert done.returncode == 2 and said in " ".join(done.stderr.split()), done.stderr
    assert not (tmp_path / "out.h5ad").exists()


def test_a_study_of_means_of_logarithms_has_no_counts_to_read_back(tmp_path):
    obs = cells.design(cells.TARGETS)
    logs = cells.lognormal(cells.counts_of(obs, "target_gene", "cell_line"))
    study = Study.create(tmp_path / "study", data=cells.write(tmp_path / "cells.h5ad", obs, logs))
    with pytest.raises(InputError, match=r"made with mean_log1p.*--normalise cp10k"):
        study.export(tmp_path / "out.h5ad", to="vcc", models=["ridge"], cells=tmp_path / "cells.h5ad")


def test_pairs_for_cell_eval_are_written_for_each_cell_line(made, tmp_path):
    """The judges know perturbations only: two lines in one file would be taken for replicates."""
    folder, _, _ = made
    done = pertstack("export", folder / "study", "out", "--to", "cell-eval2", "--models", "ridge", cwd=tmp_path)
    assert done.returncode == 0 and "cell-eval2 run -ap out/ridge.A.predicted.h5ad" in done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        f"ridge.{line}.{side}.h5ad" for line in "AB" for side in ("predicted", "real")
    ]
    for line in "AB":
        pair = [anndata.read_h5ad(tmp_path / "out" / f"ridge.{line}.{side}.h5ad") for side in ("predicted", "real")]
        assert all((d.obs["cell_line"] == line).all() for d in pair)
        assert (pair[0].obs["perturbation"].to_numpy() == pair[1].obs["perturbation"].to_numpy()).all()


def test_scores_of_evaluate_as_a_document(made, tmp_path):
    """Means over the samples of a perturbation, and over perturbations, by plain pandas."""
    import pertstack as ps

    folder, study, _ = made
    study.export(tmp_path / "out.h5ad", to="vcc", models=["ridge"], cells=folder / "cells.h5ad", per_target=60)
    found = ps.evaluate(folder / "cells.h5ad", {"m": tmp_path / "out.h5ad"})
    found.save(tmp_path / "evaluation")
    document = json.loads((tmp_path / "evaluation" / "evaluation_results.json").read_text())
    assert document["suite"]["name"] == "pertstack" and document["suite"]["settings"]["model"] == "m"
    labels = document["axes"]["perturbation"]["labels"]
    rows = pd.Series(found.scores.values("m", "pearson_all@pooled"), found.scores.samples["perturbation"].to_numpy())
    theirs = rows.groupby(level=0).mean()
    ours = document["metrics"]["pearson_all_pooled"]
    np.testing.assert_allclose(ours["values"], theirs.loc[labels], rtol=0, atol=1e-12)
    assert ours["statistics"]["count"] == 16 and ours["headline"]["direction"] == "higher"
    assert abs(ours["statistics"]["mean"] - theirs.mean()) < 1e-12
    both = ps.evaluate(folder / "cells.h5ad", {"m": tmp_path / "out.h5ad", "n": tmp_path / "out.h5ad"})
    both.save(tmp_path / "two")
    names = {p.name for p in (tmp_path / "two").glob("*evaluation_results.json")}
    assert names == {"m.evaluation_results.json", "n.evaluation_results.json"}


def test_new_perturbations_that_nothing_is_known_of_are_named_with_their_near_spellings(made):
    """``predict`` gave all of them one profile without a word."""
    _, study, _ = made
    names = ["drugless", "GENE-003", *sorted(study.folder.samples["perturbation"])[:1]]
    obs = pd.DataFrame({"perturbation": names, "cell_line": "A"}, index=["x", "y", "z"])
    file = SimpleNamespace(obs=obs, uns={}, beside={})
    told = unknown_findings(study.folder, file, ["ridge", "mean_treated", "somebody's"], "new.h5ad")
    assert [f.code for f in told] == ["features_unknown"] and set(told[0].examples) == {"drugless", "GENE-003"}
    assert "GENE-003 = GENE003" in told[0].message and "'ridge' gives all of them one answer" in told[0].message
    assert not unknown_findings(study.folder, file, ["mean_treated"], "new.h5ad")
    obs["perturbation"] = ["gene003", *names[2:], names[2]]
    (said,) = unknown_findings(study.folder, file, ["ridge"], "new.h5ad")
    assert said.code == "genes_by_capitals" and "gene003 = GENE003" in said.message


def test_new_samples_that_were_made_of_cells_in_another_way_are_named(made, tmp_path):
    """Means of logarithms beside logarithms of sums moved every level, in silence."""
    folder, study = made[0], copied(made[0] / "study", tmp_path / "study")
    assert pertstack("stack", study, "--combiners", "mean").returncode == 0
    cells_of = anndata.read_h5ad(folder / "cells.h5ad")
    control = cells_of[cells_of.obs["target_gene"] == "non-targeting"]
    new = anndata.concat([control, control], index_unique="-")
    new.obs["target_gene"] = ["non-targeting"] * control.n_obs + ["GENE001+GENE002"] * control.n_obs
    for name, x in (("counts", new.X), ("logs", sparse.csr_matrix(cells.lognormal(new.X.toarray())))):
        anndata.AnnData(x, new.obs, new.var).write_h5ad(tmp_path / f"{name}.h5ad")
        out = tmp_path / f"{name}-out.h5ad"
        done = pertstack("predict", study, tmp_path / f"{name}.h5ad", out, "--use", "ridge")
        assert done.returncode == 0, done.stderr
        said = "each a mean of log1p values, and those of the study a log1p of summed counts"
        assert (said in " ".join(done.stderr.split())) == (name == "logs")


def test_targets_of_several_doses_are_refused_and_not_averaged(made, tmp_path):
    folder, study, share = made
    obs = pd.DataFrame({"perturbation": ["T0", "T0", "T1"], "cell_line": "A", "log10_dose": [-1.0, 1.0, 1.0]})
    profiles = anndata.AnnData(
        np.float32(np.log1p(1e4 * share.iloc[:3].to_numpy())),
        obs.set_axis(["a", "b", "c"]),
        pd.DataFrame(index=share.columns),
    )
    profiles.write_h5ad(tmp_path / "p.h5ad")
    options = {"to": "vcc", "cells": folder / "cells.h5ad", "per_target": 5}
    with pytest.raises(InputError, match=r"1 targets are predicted at several doses \('T0 / A'\)"):
        study.export(tmp_path / "out.h5ad", profiles=tmp_path / "p.h5ad", **options)
    profiles[1:].copy().write_h5ad(tmp_path / "one.h5ad")
    study.export(tmp_path / "out.h5ad", profiles=tmp_path / "one.h5ad", **options)
    assert sums_of(tmp_path / "out.h5ad")[1].index.tolist() == [("T0", "A"), ("T1", "A")]
