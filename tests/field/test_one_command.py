"""Every row of the field's files through the command line: one command, no map, an empty folder, right to 1e-6 as plain
pandas has it."""

from __future__ import annotations

import json
import pickle

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from e2e.conftest import ok, pertstack
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.study.study import Study
from references import cell_worlds as cells
from references import prediction_files as files

ENSEMBL = [f"ENSG{i:011d}" for i in range(len(cells.GENES))]
KEY = ["target_gene", "cell_line", "gem_group"]


def stored(study, name="treated"):
    """Development rows of a study, by sample id, as they lie in its store."""
    store = Study.open(study).folder.store
    parts = [
        pd.DataFrame(store.read(b, name, start=0, stop=store.n_samples(b)), store.sample_ids(b), list(store.gene_names))
        for b in store.blocks()
        if b.role == "development"
    ]
    return pd.concat(parts)


def screen(*names, control="non-targeting", **options):
    """Cells of nine targets in two batches, their counts, and the columns they go by."""
    obs = cells.design(cells.TARGETS, control=control, names=names or tuple(KEY), **options)
    return obs, cells.counts_of(obs, obs.columns[0], None)


def written(folder, x, obs, *, genes=cells.GENES, var=None, **parts):
    var = pd.DataFrame(index=list(genes)) if var is None else var
    anndata.AnnData(x, obs=obs, var=var, **parts).write_h5ad(folder / "cells.h5ad")


def perturb_seq(folder):
    """Counts, guides, GEM groups, no cell line (VCC 2025 training data)."""
    obs, x = screen("target_gene", None, "batch")
    expected = cells.pseudobulk_of(x, obs, ["target_gene", "batch"])
    written(folder, sparse.csr_matrix(x), obs.assign(guide_id=obs["target_gene"] + "_g1"))
    return expected


def gears(folder):
    """Ensembl index, ``A+ctrl``, a flag, ``dose_val`` that is none, counts in a layer."""
    obs, x = screen("condition", "cell_type", None, control="ctrl")
    obs["condition"] = [c if c == "ctrl" else f"{c}+ctrl" for c in obs["condition"]]
    expected = cells.means_of(logs := cells.lognormal(x), obs, ["condition", "cell_type"])
    more = {"control": (obs["condition"] == "ctrl").astype(int), "condition_name": "K562_" + obs["condition"]}
    more["dose_val"] = np.where(more["control"] == 1, "1", "1+1")
    var = pd.DataFrame({"gene_name": cells.GENES}, index=ENSEMBL)
    written(folder, sparse.csr_matrix(logs), obs.assign(**more), var=var, layers={"counts": sparse.csr_matrix(x)})
    return expected


def state(folder):
    """``adata_real.h5ad`` of STATE: dense logs clipped to 14, positions for names."""
    obs, x = screen("target_gene", "cell_type", "gem_group")
    logs = np.clip(cells.lognormal(x), 0, 14)
    written(folder, logs, obs, genes=[str(i) for i in range(30)])
    return cells.means_of(logs, obs, ["target_gene", "cell_type", "gem_group"])


def tahoe(folder):
    """Labels that are the text of lists of tuples; several cell lines on one plate."""
    options = {"lines": ("CVCL_0023", "CVCL_0480"), "batches": ("plate1",)}
    obs, x = screen("drug", "cell_line", "plate", control="DMSO_TF", **options)
    expected = cells.pseudobulk_of(x, obs, ["drug", "cell_line", "plate"])
    label = [f"[('{d}', {0.0 if d == 'DMSO_TF' else 0.5}, 'uM')]" for d in obs["drug"]]
    written(folder, sparse.csr_matrix(x), obs.drop(columns="drug").assign(drugname_drugconc=label))
    expected.index = [f"{i}|0.5" for i in expected.index]
    return expected


def perturbench(folder):
    obs, x = screen("condition", "cell_type", None, control="control")
    logs = cells.lognormal(x)
    written(folder, sparse.csr_matrix(logs), obs)
    return cells.means_of(logs, obs, ["condition", "cell_type"])


def scperturb(folder):
    """``celltype`` in one word, ``control``, and numbers of counts and perturbations beside them."""
    obs, x = screen("perturbation", "celltype", "batch", control="control")
    expected = cells.pseudobulk_of(x, obs, list(obs.columns))
    more = {"ncounts": x.sum(axis=1), "nperts": (obs["perturbation"] != "control").astype(int), "organism": "human"}
    written(folder, sparse.csr_matrix(x), obs.assign(perturbation_type="CRISPR", tissue_type="cell_line", **more))
    return expected


def genome_wide(folder):
    """Replogle et al.: ``gene``, ``gem_group``, names of guides and transcripts, symbols in a column."""
    obs, x = screen("gene", None, "gem_group")
    expected = cells.pseudobulk_of(x, obs, ["gene", "gem_group"])
    more = {"gene_id": "ENSG1", "transcript": "P1", "gene_transcript": "7_" + obs["gene"], "sgID_AB": obs["gene"] + "_"}
    var = pd.DataFrame({"gene_name": cells.GENES, "chr": "1", "mean": 1.0}, index=ENSEMBL)
    written(folder, sparse.csr_matrix(x), obs.assign(**more, UMI_count=x.sum(axis=1)), var=var)
    return expected


def sciplex(folder):
    """Drugs by ``product_name``, a flag ``vehicle``."""
    obs, x = screen("product_name", "cell_type", None, control="Vehicle")
    expected = cells.pseudobulk_of(x, obs, ["product_name", "cell_type"])
    written(folder, sparse.csr_matrix(x), obs.assign(dose=10.0, vehicle=obs["product_name"] == "Vehicle"))
    return expected


def open_problems(folder):
    """``sm_name``, a boolean ``control``, Ensembl ids of symbols in a column."""
    obs, x = screen("sm_name", "cell_type", "plate_name", control="Dimethyl Sulfoxide")
    expected = cells.pseudobulk_of(x, obs, list(obs.columns))
    var = pd.DataFrame({"gene_ids": ENSEMBL}, index=cells.GENES)
    written(folder, sparse.csr_matrix(x), obs.assign(control=obs["sm_name"] == "Dimethyl Sulfoxide"), var=var)
    return expected


def challenge_2026(folder):
    obs, x = screen("target_gene", "context", "batch")
    written(folder, sparse.csr_matrix(x), obs)
    return cells.pseudobulk_of(x, obs, list(obs.columns))


def counts_as(kind):
    def made(folder):
        obs, x = screen()
        written(folder, sparse.csr_matrix(x.astype(kind)) if kind != "int64" else x.astype(kind), obs)
        return cells.pseudobulk_of(x, obs, KEY)

    return made


def nullable_columns(folder):
    """Categories, nullable whole numbers and booleans, with a row that is neither."""
    obs, x = screen()
    expected = cells.pseudobulk_of(x, obs, KEY)
    flag = pd.array(obs["target_gene"] == "non-targeting", dtype="boolean")
    number = pd.array(obs["gem_group"].astype(int), dtype="Int64")
    written(folder, sparse.csr_matrix(x), obs.astype("category").assign(is_control=flag, gem_group=number))
    return expected


def barcodes_that_repeat(folder):
    obs, x = screen()
    expected = cells.pseudobulk_of(x, obs, KEY)
    obs.index = [f"AAAC{i % 50}-1" for i in range(len(obs))]
    written(folder, sparse.csr_matrix(x), obs)
    return expected


def by_columns(folder):
    obs, x = screen()
    written(folder, sparse.csc_matrix(x), obs)
    return cells.pseudobulk_of(x, obs, KEY)


def logs_beside_raw_counts(folder):
    """scanpy's habit: logarithms in X, counts in ``.raw``. X is what is taken; the table says so."""
    obs, x = screen()
    data = anndata.AnnData(sparse.csr_matrix(x), obs=obs, var=pd.DataFrame(index=cells.GENES))
    data.raw = data.copy()
    data.X = cells.lognormal(x)
    data.write_h5ad(folder / "cells.h5ad")
    return cells.means_of(cells.lognormal(x), obs, KEY)


DATA = {
    "perturb-seq": perturb_seq,
    "gears": gears,
    "state": state,
    "tahoe": tahoe,
    "perturbench": perturbench,
    "scperturb": scperturb,
    "genome-wide": genome_wide,
    "sciplex": sciplex,
    "open-problems": open_problems,
    "vcc-2026": challenge_2026,
    "int32": counts_as("int32"),
    "int64-dense": counts_as("int64"),
    "float64": counts_as("float64"),
    "uint16": counts_as("uint16"),
    "nullable": nullable_columns,
    "barcodes-repeat": barcodes_that_repeat,
    "csc": by_columns,
    "logs-and-raw": logs_beside_raw_counts,
}


@pytest.mark.parametrize("row", DATA)
def test_a_data_file_of_the_field_is_a_study_in_one_command(tmp_path, row):
    expected = DATA[row](tmp_path)
    ok("init", "study", "--data", "cells.h5ad", cwd=tmp_path)
    ours = stored(tmp_path / "study")
    assert len(ours) >= 6
    np.testing.assert_allclose(ours.to_numpy(), expected.loc[ours.index].to_numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("where", ["raw", "counts"])
def test_scaled_cells_are_refused_where_the_file_has_counts_and_the_mend_works(tmp_path, where):
    """X centred and cut to variable genes; every cell was taken for a sample once."""
    obs, x = screen()
    logs = cells.lognormal(x)
    scaled = ((logs - logs.mean(axis=0)) / np.maximum(logs.std(axis=0), 1e-3)).astype(np.float32)
    data = anndata.AnnData(sparse.csr_matrix(x), obs=obs, var=pd.DataFrame(index=cells.GENES))
    if where == "raw":
        data.raw = data.copy()
        data.X = scaled
        data = data[:, :20].copy()
    else:
        data.layers["counts"], data.X = data.X, scaled
    data.write_h5ad(tmp_path / "cells.h5ad")
    cells.write(tmp_path / "model.h5ad", obs.reset_index(drop=True).set_axis(map(str, range(len(obs)))), x + 1)
    for words in (("init", "study", "--data", "cells.h5ad"), ("evaluate", "cells.h5ad", "m=model.h5ad")):
        done = pertstack(*words, cwd=tmp_path)
        assert done.returncode == 2 and f"--treated-layer {where}" in " ".join(done.stderr.split())
        ok(*words, "--treated-layer", where, cwd=tmp_path)
    ours = stored(tmp_path / "study")
    expected = cells.pseudobulk_of(x, obs, KEY)
    np.testing.assert_allclose(ours.to_numpy(), expected.loc[ours.index].to_numpy(), rtol=0, atol=1e-6)


def test_evaluate_takes_what_init_takes_of_cells(tmp_path):
    """Limits and depth of the truth, as ``init`` has them."""
    obs, x = screen(n=6)
    cells.write(tmp_path / "cells.h5ad", obs, x)
    cells.write(tmp_path / "model.h5ad", obs.set_axis(map(str, range(len(obs)))), x + 1)
    done = pertstack("evaluate", "cells.h5ad", "m=model.h5ad", cwd=tmp_path)
    assert done.returncode == 2 and "--min-cells 6" in " ".join(done.stderr.split())
    ok("evaluate", "cells.h5ad", "m=model.h5ad", "--min-cells", 6, "--normalise", "5e4", cwd=tmp_path)
    table = ScoreTable.load(tmp_path / "evaluation" / "scores.npz")
    truth, foretold = (cells.pseudobulk_of(v, obs, KEY, per=5e4) for v in (x, x + 1))
    ids = list(table.samples["sample_id"])
    expected = np.sqrt(((truth.loc[ids] - foretold.loc[ids]) ** 2).mean(axis=1))
    np.testing.assert_allclose(table.values("m", "rmse_all"), expected, rtol=1e-5)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A measured file, a study of it, and one predicted profile for each perturbation."""
    folder = tmp_path_factory.mktemp("truth")
    data = files.truth(folder)
    ok("init", "study", "--data", "truth.h5ad", "--folds", 2, "--seed", 1, cwd=folder)
    return folder, data, files.profiles(data)


def table_of(profiles, name="condition"):
    return pd.DataFrame({name: profiles.index, "cell_type": files.LINE}, index=[f"r{i}" for i in range(len(profiles))])


def predicted_gears(folder, profiles):
    return files.gears_json(folder / "gears", profiles), profiles


def predicted_pickle(folder, profiles):
    return files.gears_pickle(folder / "gears.pkl", profiles), profiles


def predicted_vcc(year):
    def made(folder, profiles):
        x, obs = files.cells_of(profiles)
        obs = obs if year == 2025 else obs[obs["target_gene"] != "ctrl"].assign(context=files.LINE)
        x = x[obs.index.astype(int)]
        inner = files.h5ad(folder / f"pred_{year}.h5ad", x, obs, files.GENES)
        return files.vcc(folder / f"entry_{year}.vcc", inner, year=year), files.mean_of_cells(x, obs)

    return made


def predicted_state(folder, profiles):
    (folder / "state").mkdir()
    x, obs = files.cells_of(profiles)
    files.h5ad(folder / "state" / "adata_real.h5ad", x[:3], obs[:3], files.GENES)
    path = files.h5ad(folder / "state" / "adata_pred.h5ad", x, obs.assign(cell_type=files.LINE, gem_group="9"))
    return path, files.mean_of_cells(x, obs)


def predicted_pseudobulk(folder, profiles):
    obs = table_of(profiles, "target_gene").assign(pseudobulk_n_cells=100)
    return files.h5ad(folder / "pseudobulk.h5ad", profiles, obs, files.GENES), profiles


def predicted_folds(folder, profiles):
    place = folder / "scperteval"
    place.mkdir()
    for i in range(3):
        part = profiles.iloc[i::3]
        obs = pd.DataFrame({"perturbation": part.index}, index=[str(k) for k in range(len(part))])
        files.h5ad(place / f"fold_{i}.h5ad", part, obs, files.GENES)
    (place / "kfold_splits.json").write_text(json.dumps({}))
    return place, profiles


def predicted_perturbench(folder, profiles):
    x, obs = files.cells_of(profiles)
    expected = files.mean_of_cells(x, obs)
    turned = ["+".join(reversed(c.split("+"))) for c in obs["target_gene"]]
    obs = pd.DataFrame({"condition": turned, "cell_type": files.LINE}, index=obs.index)
    return files.h5ad(folder / "perturbench.h5ad", x, obs, files.GENES), expected


def predicted_scarchon(folder, profiles):
    x, obs = files.cells_of(profiles)
    obs["status"] = np.where(obs["target_gene"] == "ctrl", "control", "predicted")
    treated = pd.DataFrame({"target_gene": profiles.index, "status": "treated"}, index=[f"t{i}" for i in range(18)])
    both = np.vstack([x, profiles.to_numpy() + 5])
    path = files.h5ad(folder / "scarchon.h5ad", both, pd.concat([obs, treated]), files.GENES)
    return path, files.mean_of_cells(x, obs)


def predicted_layer(folder, profiles):
    layers = {"prediction": profiles.to_numpy()}
    return files.h5ad(
        folder / "layer.h5ad", np.zeros((18, 40)), table_of(profiles), files.GENES, layers=layers
    ), profiles


def predicted_ensembl(folder, profiles):
    order = np.random.default_rng(3).permutation(40)
    names = [f"{files.ENSEMBL[i]}.7" for i in order]
    return files.h5ad(folder / "ensembl.h5ad", profiles.to_numpy()[:, order], table_of(profiles), names), profiles


def predicted_csv(folder, profiles):
    frame = profiles.reset_index(names="perturbation")
    frame.insert(1, "cell_line", files.LINE)
    frame.to_csv(folder / "table.csv", index=False)
    return folder / "table.csv", profiles


def predicted_sparse(folder, profiles):
    """Sparse, by columns, 64 bits, categories."""
    x, obs = files.cells_of(profiles)
    path = folder / "sparse.h5ad"
    var = pd.DataFrame(index=files.GENES)
    anndata.AnnData(sparse.csc_matrix(x.astype(np.float64)), obs.astype("category"), var).write_h5ad(path)
    return path, files.mean_of_cells(x, obs)


def predicted_zarr(folder, profiles):
    x, obs = files.cells_of(profiles)
    anndata.AnnData(x, obs, pd.DataFrame(index=files.GENES)).write_zarr(folder / "cells.zarr")
    return folder / "cells.zarr", files.mean_of_cells(x, obs)


PREDICTED = {
    "gears": predicted_gears,
    "pickle": predicted_pickle,
    "vcc25": predicted_vcc(2025),
    "vcc26": predicted_vcc(2026),
    "state": predicted_state,
    "pseudobulk": predicted_pseudobulk,
    "folds": predicted_folds,
    "perturbench": predicted_perturbench,
    "scarchon": predicted_scarchon,
    "layer": predicted_layer,
    "ensembl": predicted_ensembl,
    "csv": predicted_csv,
    "sparse": predicted_sparse,
    "zarr": predicted_zarr,
}


@pytest.mark.parametrize("row", PREDICTED)
def test_a_prediction_file_of_the_field_is_added_in_one_command(world, tmp_path, row):
    folder, data, profiles = world
    path, expected = PREDICTED[row](tmp_path, profiles)
    ok("add", folder / "study", row, path, "--fitted-on", "unknown", "--scale", "treated", cwd=tmp_path)
    ours = stored(folder / "study", row)
    condition = data.obs["condition"].astype(str)[ours.index].to_numpy()
    theirs = expected.loc[condition, ours.columns]
    np.testing.assert_allclose(ours.to_numpy(), theirs.to_numpy(), rtol=0, atol=1e-6)


def test_prediction_files_of_the_field_are_evaluated_together_in_one_command(world, tmp_path):
    """RMSE of every sample against plain pandas, for every file."""
    folder, data, profiles = world
    made = {row: make(tmp_path, profiles) for row, make in PREDICTED.items()}
    ok("evaluate", folder / "truth.h5ad", *(f"{row}={path}" for row, (path, _) in made.items()), cwd=tmp_path)
    table = ScoreTable.load(tmp_path / "evaluation" / "scores.npz")
    ids = list(table.samples["sample_id"])
    measured = pd.DataFrame(data.X, data.obs_names, files.GENES).loc[ids]
    condition = data.obs["condition"].astype(str)[ids].to_numpy()
    for row, (_, expected) in made.items():
        error = measured.to_numpy() - expected.loc[condition, files.GENES].to_numpy()
        np.testing.assert_allclose(table.values(row, "rmse_all"), np.sqrt((error**2).mean(axis=1)), rtol=0, atol=2e-6)


def twice(folder, profiles):
    both = pd.concat([profiles, profiles.iloc[:1] + 1])
    return files.h5ad(folder / "p.h5ad", both, table_of(both), files.GENES)


def half(folder, profiles):
    return files.h5ad(folder / "p.h5ad", profiles.iloc[:8], table_of(profiles.iloc[:8]), files.GENES)


def cut_short(folder, profiles):
    x, obs = files.cells_of(profiles)
    inner = files.h5ad(folder / "pred.h5ad", x, obs, files.GENES)
    return files.vcc(folder / "p.vcc", inner, cut=9_000)


def mixed(folder, profiles):
    """Counts among logarithms."""
    x, obs = files.cells_of(profiles)
    x[::2] = np.rint(np.expm1(x[::2]))
    return files.h5ad(folder / "p.h5ad", x, obs, files.GENES)


def genes_that_collide(folder, profiles):
    var = pd.DataFrame({"gene_name": [*files.GENES[:39], files.GENES[0]]}, index=[f"X{i}" for i in range(40)])
    return files.h5ad(folder / "p.h5ad", profiles, table_of(profiles), var=var)


def huge_json(folder, profiles):
    with (folder / "p.json").open("wb") as stream:
        stream.truncate(2_000_000_000)
    return folder / "p.json"


def bomb(folder, profiles):
    class Bomb:
        def __reduce__(self):
            return (print, ("boom",))

    (folder / "p.pkl").write_bytes(pickle.dumps({"A": Bomb()}))
    return folder / "p.pkl"


def no_names(folder, profiles):
    return files.h5ad(folder / "p.h5ad", profiles, table_of(profiles))


def other_order(folder, profiles):
    """A list of genes that is not that of the columns, beside the file."""
    path = files.h5ad(folder / "p.h5ad", profiles, table_of(profiles))
    (folder / "gene_names.json").write_text(json.dumps(list(np.random.default_rng(0).permutation(files.GENES))))
    return path


FAULTS = [
    (twice, 3, "more than once"),
    (half, 3, "predict"),
    (cut_short, 2, "cut short"),
    (mixed, 2, "ogarithms"),
    (genes_that_collide, 3, "more than one column"),
    (huge_json, 2, "to_parquet"),
    (bomb, 2, "print"),
    (no_names, 2, "--genes FILE"),
    (other_order, 3, "another order"),
]


@pytest.mark.parametrize(("fault", "code", "said"), FAULTS, ids=[f[0].__name__ for f in FAULTS])
@pytest.mark.parametrize("command", ["evaluate", "add"])
def test_a_fault_is_refused_with_nothing_left(world, tmp_path, fault, code, said, command):
    folder, _, profiles = world
    path = fault(tmp_path, profiles)
    before = sorted(p.name for p in tmp_path.iterdir()), Study.open(folder / "study").folder.store.models()
    words = ("evaluate", folder / "truth.h5ad", f"m={path}")
    if command == "add":
        words = ("add", folder / "study", "m", path, "--fitted-on", "unknown", "--scale", "treated")
    done = pertstack(*words, cwd=tmp_path)
    text = " ".join(done.stderr.split())
    assert done.returncode == code and said in text and "Traceback" not in text, f"{done.returncode}: {text}"
    after = sorted(p.name for p in tmp_path.iterdir()), Study.open(folder / "study").folder.store.models()
    assert after == before
