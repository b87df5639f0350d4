"""The silent errors of issue 16, A, through every reader and door: one world, written as each of them has it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

import pertstack as ps
from e2e.conftest import ok, pertstack
from pertstack._base.errors import InputError
from pertstack.data import DataFile, open_data, validate
from pertstack.data.labels import perturbation_keys

GENES = [f"GENE{i:02d}" for i in range(24)]
LINES = ("T cell", "B cell")
SINGLES = ["KLF1", "GATA2", "TP53", "MYC", "SOX4", "RUNX1", "CEBPA", "SPI1"]
DOUBLES = [("KLF1+GATA2", "GATA2+KLF1"), ("TP53+MYC", "MYC + TP53"), ("SOX4+RUNX1", "RUNX1+SOX4")]
"""The same pair of genes, written in two ways in two cell lines."""


def world(names: dict[str, list[str]] | None = None, *, dose: bool = False) -> tuple[np.ndarray, pd.DataFrame]:
    """Two plates of two cell lines each; per line and plate two wells of DMSO. Gene 0 says the line (10 or 20), gene 1
    the plate; the line of a name is the first or second spelling of ``DOUBLES``."""
    rng = np.random.default_rng(0)
    rows = []
    for c, line in enumerate(LINES):
        treated = (names or {}).get(line) or [*SINGLES, *(pair[c] for pair in DOUBLES)]
        for plate in ("P1", "P2"):
            rows += [(line, plate, "DMSO"), (line, plate, "DMSO"), *((line, plate, name) for name in treated)]
    obs = pd.DataFrame(rows, columns=["cell_id", "rna_plate", "pert_id"])
    obs["pert_type"] = np.where(obs["pert_id"] == "DMSO", "ctl_vehicle", "trt_cp")
    obs["is_control"] = obs["pert_id"] == "DMSO"
    if dose:
        obs["pert_dose"] = np.where(obs["is_control"], 0.0, [0.5 + 0.5 * (i % 4) for i in range(len(obs))])
    obs.index = [f"{r.rna_plate}:w{i:02d}" for i, r in enumerate(obs.itertuples())]
    x = rng.normal(8, 1, (len(obs), len(GENES)))
    x[:, 0] = obs["cell_id"].map({line: 10.0 * (c + 1) for c, line in enumerate(LINES)})
    x[:, 1] = obs["rna_plate"].str[1:].astype(float)
    return x.astype(np.float32), obs


def _anndata(folder: Path, x: np.ndarray, obs: pd.DataFrame, how: str) -> tuple[Path, dict]:
    data = anndata.AnnData(x, obs.drop(columns="pert_type"), pd.DataFrame(index=GENES))
    path = folder / f"d.{how}"
    (data.write_h5ad if how == "h5ad" else data.write_zarr)(path)
    return path, {}


def _gctx(folder: Path, x: np.ndarray, obs: pd.DataFrame) -> tuple[Path, dict]:
    with h5py.File(folder / "d.gctx", "w") as file:
        file["0/DATA/0/matrix"] = x
        file["0/META/ROW/id"] = np.array(GENES, dtype="S")
        file["0/META/COL/id"] = np.array(obs.index, dtype="S")
        for column in obs.columns.drop("is_control"):
            kind = "S" if obs[column].dtype == object else None
            file[f"0/META/COL/{column}"] = np.array(obs[column], dtype=kind)
    return folder / "d.gctx", {}


def _gct(folder: Path, x: np.ndarray, obs: pd.DataFrame) -> tuple[Path, dict]:
    meta = obs.drop(columns="is_control")
    lines = ["#1.3", f"{len(GENES)}\t{len(obs)}\t0\t{meta.shape[1]}", "\t".join(["id", *obs.index])]
    lines += ["\t".join([c, *map(str, meta[c])]) for c in meta.columns]
    lines += ["\t".join([g, *(f"{v:.6f}" for v in x[:, k])]) for k, g in enumerate(GENES)]
    (folder / "d.gct").write_text("\n".join(lines) + "\n")
    return folder / "d.gct", {}


def _table(folder: Path, x: np.ndarray, obs: pd.DataFrame, how: str) -> tuple[Path, dict]:
    """A pair of tables; the control of a sample is the mean of its line and plate, named by ``control_id``."""
    values = pd.DataFrame(x, obs.index, GENES)
    key = obs["cell_id"] + " " + obs["rna_plate"]
    controls = values[obs["is_control"]].groupby(key[obs["is_control"]]).mean().rename_axis("control_id").reset_index()
    treated = obs[~obs["is_control"]].drop(columns=["is_control", "pert_type"])
    treated = treated.assign(control_id=key[treated.index]).join(values).rename_axis("sample_id").reset_index()
    for name, table in (("d", treated), ("c", controls)):
        if how == "parquet":
            table.to_parquet(folder / f"{name}.parquet")
        else:
            table.to_csv(folder / f"{name}.csv", index=False)
    return folder / f"d.{how}", {"control": folder / f"c.{how}"}


def _tuples(folder: Path, x: np.ndarray, obs: pd.DataFrame) -> tuple[Path, dict]:
    """One column holds drug, dose and unit, as Tahoe-100M and STATE write them."""

    def label(name: str, dose: float) -> str:
        parts = [(p.strip(), dose, "uM") for p in name.split("+")]
        return str([("DMSO_TF", 0.0, "uM")] if name == "DMSO" else parts)

    dose = obs["pert_dose"] if "pert_dose" in obs else pd.Series(1.0, obs.index)
    words = [label(n, float(d)) for n, d in zip(obs["pert_id"], dose, strict=True)]
    kept = pd.DataFrame({"drugname_drugconc": words, "cell_name": obs["cell_id"], "plate": obs["rna_plate"]}, obs.index)
    anndata.AnnData(x, kept, pd.DataFrame(index=GENES)).write_h5ad(folder / "t.h5ad")
    return folder / "t.h5ad", {}


WRITERS: dict[str, Callable[[Path, np.ndarray, pd.DataFrame], tuple[Path, dict]]] = {
    "h5ad": lambda f, x, o: _anndata(f, x, o, "h5ad"),
    "zarr": lambda f, x, o: _anndata(f, x, o, "zarr"),
    "gctx": _gctx,
    "gct": _gct,
    "csv": lambda f, x, o: _table(f, x, o, "csv"),
    "parquet": lambda f, x, o: _table(f, x, o, "parquet"),
    "tuples": _tuples,
}
WELLS = ("h5ad", "zarr", "gctx", "gct", "tuples")
"""Readers whose controls are rows or wells of the same file."""


def opened(how: str, folder: Path, x: np.ndarray, obs: pd.DataFrame, **options: object) -> DataFile:
    path, more = WRITERS[how](folder, x, obs)
    return open_data(path, **more, **options)


def codes(file: DataFile) -> list[str]:
    return [f.code for f in validate(file)]


@pytest.mark.parametrize("choice", ["plate_mean", "plate_random"])
@pytest.mark.parametrize("how", WELLS)
def test_a1_no_control_crosses_a_cell_line_and_each_is_of_its_plate(how, choice, tmp_path):
    file = opened(how, tmp_path, *world(), controls=choice)
    control, treated = file.read(slice(None))
    assert len(treated) == 44
    np.testing.assert_allclose(control[:, :2], treated[:, :2], atol=1e-5)  # line and plate of every sample


@pytest.mark.parametrize("name", ["Plate", "BATCH", "gem_group", "gem-group", "Library ID", "PlateName"])
def test_a1_a_plate_is_known_by_its_usual_names_in_any_case(name, tmp_path):
    """A plate that is passed over gives every sample the mean control of all plates, and no view within plates."""
    x, obs = world()
    path, _ = _anndata(tmp_path, x, obs.rename(columns={"rna_plate": name}), "h5ad")
    control, treated = open_data(path, controls="plate_mean").read(slice(None))
    np.testing.assert_allclose(control[:, :2], treated[:, :2], atol=1e-5)


@pytest.mark.parametrize("how", ["csv", "parquet"])
def test_a1_a_table_that_gives_one_control_to_two_cell_lines_is_not_taken_in_silence(how, tmp_path):
    x, obs = world()
    path, more = WRITERS[how](tmp_path, x, obs)
    read = pd.read_csv if how == "csv" else pd.read_parquet
    table = read(path).assign(control_id=lambda t: "all on " + t["rna_plate"])
    controls = read(more["control"]).assign(control_id=lambda c: "all on " + c["control_id"].str[-2:])
    for file, content in ((path, table), (more["control"], controls.drop_duplicates("control_id"))):
        content.to_csv(file, index=False) if how == "csv" else content.to_parquet(file)
    assert "control_of_several_cell_lines" in codes(open_data(path, **more))


@pytest.mark.parametrize("how", WRITERS)
def test_a4_both_orders_of_a_pair_are_one_perturbation_by_every_reader(how, tmp_path):
    file = opened(how, tmp_path, *world())
    pairs = {n for n in file.obs["perturbation"] if "+" in n}
    assert len(pairs) == 3, pairs
    assert file.obs["perturbation"].nunique() == len(SINGLES) + 3
    assert len(set(perturbation_keys(file.obs["perturbation"]).values())) == len(SINGLES) + 3


@pytest.mark.parametrize("how", WRITERS)
def test_a4_names_that_nearly_agree_are_listed_by_every_reader(how, tmp_path):
    names = {"T cell": [*SINGLES, "drug-00", "Imatinib"], "B cell": [*SINGLES, "DRUG 00", "imatinib mesylate"]}
    found = [f for f in validate(opened(how, tmp_path, *world(names))) if f.code == "names_alike"]
    assert found and found[0].severity == "warning"
    assert "drug-00" in found[0].message.replace("DRUG 00", "drug-00")


def test_a4_names_that_nearly_agree_are_listed_by_evaluate_and_by_arrays():
    rng = np.random.default_rng(4)
    names = np.array([*(f"{a}-{i}" for i in range(12) for a in "p"), "drug07", "DRUG-7", "imatinib", "Imatinib HCl"])
    obs = pd.DataFrame({"perturbation": names, "cell_line": "A"}, index=[f"s{i}" for i in range(len(names))])
    truth = anndata.AnnData(rng.normal(8, 1, (len(names), 24)).astype(np.float32), obs)
    truth.layers["control"] = np.full(truth.shape, 8, np.float32)
    guess = anndata.AnnData(truth.X + rng.normal(0, 1, truth.shape).astype(np.float32), obs[[]], truth.var)
    said = [f.message for f in ps.evaluate(truth, {"m": guess}).findings if f.code == "names_alike"]
    assert len(said) == 1 and "DRUG-7 = drug07" in said[0] and "Imatinib HCl = imatinib" in said[0]
    given = {"treated": truth.X, "folds": np.arange(len(names)) % 3, "perturbation": names, "combiners": ["mean"]}
    with pytest.warns(UserWarning, match="DRUG-7 = drug07"):
        ps.stack({"m": guess.X, "n": guess.X + 0.1}, **given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ps.stack({"m": guess.X, "n": guess.X + 0.1}, **given, group=[f"g{i}" for i in range(len(names))])


@pytest.mark.parametrize("how", ["h5ad", "zarr", "gctx", "gct", "csv", "parquet"])
def test_a8_doses_without_a_unit_are_taken_as_they_are_and_warned_of(how, tmp_path):
    file = opened(how, tmp_path, *world(dose=True))
    assert "dose_without_unit" in codes(file)
    doses = 10 ** file.obs["log10_dose"].to_numpy(dtype=float)
    assert set(np.round(doses, 6)) <= {0.5, 1.0, 1.5, 2.0}


@pytest.mark.parametrize("how", ["h5ad", "gctx", "csv"])
def test_a8_units_that_differ_stop_and_doses_with_and_without_one_stop(how, tmp_path):
    x, obs = world(dose=True)
    obs["pert_dose_unit"] = ["uM" if i % 2 else "" for i in range(len(obs))]
    with pytest.raises(InputError, match="dose without a unit"):
        opened(how, tmp_path, x, obs)


# -- plans, tables and predictions matched by name -------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A study of singles and pairs, grouped by perturbation, from the file that spells pairs both ways."""
    folder = tmp_path_factory.mktemp("pairs")
    path, _ = WRITERS["h5ad"](folder, *world())
    ok("init", folder / "study", "--data", path, "--group", "perturbation")
    return folder, ps.Study.open(folder / "study")


def test_a4_a_pair_lies_in_one_place_of_the_plan(pairs):
    table = pairs[1].plan.table.set_index("sample_id")
    name = pairs[1].folder.samples["perturbation"].reindex(table.index)
    place = table["role"] + table["fold"].astype(object).map(str)
    assert (place.groupby(name).nunique() == 1).all()


@pytest.mark.parametrize("group", [(), ("--group", "perturbation")])
def test_a4_an_imported_plan_that_parts_the_two_orders_of_a_pair_is_refused(pairs, tmp_path, group):
    """By name the groups are whole; as perturbations they are on both sides."""
    folder, _ = pairs
    raw = anndata.read_h5ad(folder / "d.h5ad").obs
    raw = raw[raw["pert_id"] != "DMSO"]
    fold = {n: str(i % 3) for i, n in enumerate(sorted(set(raw["pert_id"])))}
    assert any(fold[a] != fold[b] for a, b in DOUBLES)
    pd.DataFrame({"sample_id": raw.index, "fold": [fold[n] for n in raw["pert_id"]]}).to_csv(
        tmp_path / "p.csv", index=False
    )
    said = pertstack("init", tmp_path / "s", "--data", folder / "d.h5ad", "--plan", tmp_path / "p.csv", *group)
    assert said.returncode == 3 and not (tmp_path / "s").exists()
    assert any(a in said.stderr or b in said.stderr for a, b in DOUBLES), said.stderr


def predicted(study: ps.Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A profile of every perturbation and cell line, the pairs written the other way round; and the same by key."""
    keys = study.folder.samples[["perturbation", "cell_line"]].drop_duplicates().to_numpy()
    values = np.random.default_rng(5).normal(8, 1, (len(keys), len(GENES))).astype(np.float32)
    values[:, 0] = [10.0 * (LINES.index(line) + 1) for _, line in keys]
    values[:, 1] = 1.5
    turned = ["+".join(reversed(p.split("+"))) for p, _ in keys]
    table = pd.DataFrame({"perturbation": turned, "cell_line": keys[:, 1]}).join(pd.DataFrame(values, columns=GENES))
    return table, pd.DataFrame(values, pd.MultiIndex.from_tuples(map(tuple, keys)), GENES)


@pytest.mark.parametrize("how", ["csv", "parquet", "h5ad"])
def test_a4_predictions_matched_by_what_was_done_find_a_pair_in_either_order(pairs, how, tmp_path):
    study = ps.Study.open(pairs[1].folder.root)
    table, by_key = predicted(study)
    path = tmp_path / f"p.{how}"
    if how == "h5ad":
        data = anndata.AnnData(table[GENES].to_numpy(np.float32), table[["perturbation", "cell_line"]])
        data.var_names = GENES
        data.obs_names = [f"row{i}" for i in range(len(table))]
        data.write_h5ad(path)
    elif how == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    report = study.add(f"turned_{how}", path, fitted_on="unknown", scale="treated")
    assert report.n_samples == len(study.folder.samples)
    store, samples = study.folder.store, study.folder.samples
    for block in store.blocks():
        rows = samples.loc[list(store.sample_ids(block)), ["perturbation", "cell_line"]]
        wanted = by_key.loc[list(map(tuple, rows.to_numpy()))].to_numpy()
        np.testing.assert_allclose(store.read(block, f"turned_{how}"), wanted, rtol=1e-6)


@pytest.mark.parametrize("through", ["file", "arrays"])
def test_a4_evaluate_matches_a_pair_in_either_order(pairs, through, tmp_path):
    study = ps.Study.open(pairs[1].folder.root)
    table, _ = predicted(study)
    guess = anndata.AnnData(table[GENES].to_numpy(np.float32), table[["perturbation", "cell_line"]])
    guess.var_names, guess.obs_names = GENES, [f"row{i}" for i in range(len(table))]
    truth = pairs[0] / "d.h5ad"
    if through == "file":
        guess.write_h5ad(tmp_path / "guess.h5ad")
        found = ps.evaluate(truth, {"m": tmp_path / "guess.h5ad"})
    else:
        found = ps.evaluate(anndata.read_h5ad(truth), {"m": guess})
    assert found.facts["samples scored"] == 44 and found.facts["perturbations"] == len(SINGLES) + 3


def test_a4_features_of_genes_reach_a_pair_in_either_order(pairs, tmp_path):
    table = pd.DataFrame(np.random.default_rng(1).normal(size=(len(SINGLES), 3)), SINGLES, list("abc"))
    for a, _ in DOUBLES:
        table.loc["+".join(reversed(a.split("+")))] = [1.0, 2.0, 3.0]
    table.rename_axis("perturbation").to_csv(tmp_path / "f.csv")
    ok("init", tmp_path / "s", "--data", pairs[0] / "d.h5ad", "--features", tmp_path / "f.csv")
    side = ps.Study.open(tmp_path / "s").folder.side.features["user"]
    assert side.known.all()


# -- scores ----------------------------------------------------------------------------------------------------------


def test_a3_the_centroid_of_a_part_leaves_it_out_in_evaluate():
    """A constant that knows the mean of all rows scores no better than one that knows the others' alone can."""
    rng = np.random.default_rng(2)
    names = [f"d{i:02d}" for i in range(30)]
    obs = pd.DataFrame({"perturbation": names, "cell_line": "A"}, index=[f"s{i}" for i in range(30)])
    truth = anndata.AnnData(rng.normal(8, 1, (30, 24)).astype(np.float32), obs)
    truth.layers["control"] = np.full((30, 24), 8, np.float32)
    guess = anndata.AnnData(np.tile(truth.X.mean(axis=0), (30, 1)), obs[[]], truth.var)
    found = ps.evaluate(truth, {"constant": guess}, primary="pearson_all@centroid")
    by_hand = []
    parts = pd.factorize(np.array(sorted(names)))[0] % 5
    for i in range(30):
        rest = truth.X[parts != parts[i]].mean(axis=0)
        by_hand.append(np.corrcoef(truth.X[i] - rest, guess.X[i] - rest)[0, 1])
    got = pd.Series(found.scores.values("constant", "pearson_all@centroid"), index=found.scores.samples["sample_id"])
    np.testing.assert_allclose(got.loc[obs.index], by_hand, atol=1e-4)


def test_a5_a_memoriser_is_accused_by_evaluate_and_by_arrays():
    rng = np.random.default_rng(3)
    names = np.repeat([f"d{i:02d}" for i in range(30)], 3)
    obs = pd.DataFrame({"perturbation": names, "cell_line": "A"}, index=[f"s{i}" for i in range(90)])
    effect = np.repeat(rng.normal(0, 1, (30, 40)), 3, axis=0)
    control = np.full((90, 40), 8.0)
    treated = control + effect + rng.normal(0, 1, effect.shape)
    leak = treated + 0.05 * rng.normal(size=treated.shape)
    honest = control + 0.7 * effect + np.repeat(rng.normal(0, 0.5, (30, 40)), 3, axis=0)
    truth = anndata.AnnData(treated.astype(np.float32), obs)
    truth.layers["control"] = control.astype(np.float32)
    guess = {m: anndata.AnnData(v.astype(np.float32), obs[[]], truth.var) for m, v in (("l", leak), ("h", honest))}
    board = ps.evaluate(truth, guess).leaderboard
    assert "A probe accuses l" in board.headline and "accuses h" not in board.headline
    with pytest.warns(UserWarning, match="takes no part"):
        fit = ps.stack(
            {"l": leak, "h": honest, "c": control + 0.3 * effect},
            treated=treated,
            control=control,
            folds=pd.factorize(names)[0] % 3,
            perturbation=names,
            condition=names,
            combiners=["mean"],
        )
    assert set(fit.accused) == {"l"}


@pytest.mark.parametrize("name", ["mean", "mean_of_others", "no_change", "replicate", "oracle"])
def test_evaluate_refuses_a_model_that_is_called_like_a_row_of_its_own(name):
    x, obs = world()
    truth = anndata.AnnData(x, obs.drop(columns="pert_type"), pd.DataFrame(index=GENES))
    guess = anndata.AnnData(x + 0.5, truth.obs[[]], truth.var)
    with pytest.raises(InputError, match=f"{name!r} is the name of a row"):
        ps.evaluate(truth, {name: guess, "other": guess})
