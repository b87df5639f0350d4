"""Files of cells in one command: right to 1e-6 against plain pandas, or refused with the mend."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError
from pertstack.data.readers.open import open_data
from pertstack.study.study import Study
from references import cell_worlds as worlds

KEY = ["target_gene", "cell_line", "gem_group"]


def read(file):
    """Every sample's control and treated profile, by sample id."""
    control, treated = file.read(slice(None))
    return pd.DataFrame(control, file.sample_ids), pd.DataFrame(treated, file.sample_ids)


def assert_same(ours, theirs):
    pd.testing.assert_index_equal(ours.index.sort_values(), theirs.index.sort_values(), check_names=False, exact=False)
    np.testing.assert_allclose(ours.sort_index().to_numpy(), theirs.sort_index().to_numpy(), rtol=0, atol=1e-6)


def perturb_seq(tmp_path, **options):
    """Counts, sparse, three lines of keys, no cell left out."""
    parts = {k: options.pop(k) for k in ("form", "suffix") if k in options}
    obs = worlds.design(worlds.TARGETS, lines=("K562", "RPE1"), **options)
    x = worlds.counts_of(obs, "target_gene", "cell_line")
    return (
        worlds.write(tmp_path / f"cells{parts.get('suffix', '.h5ad')}", obs, x, form=parts.get("form", "csr")),
        obs,
        x,
    )


@pytest.mark.parametrize(("form", "suffix"), [("csr", ".h5ad"), ("dense", ".h5ad"), ("csc", ".h5ad"), ("csr", ".zarr")])
def test_counts_become_pseudobulk_samples_with_the_control_of_their_line_and_batch(tmp_path, form, suffix):
    path, obs, x = perturb_seq(tmp_path, form=form, suffix=suffix)
    file = open_data(path)
    control, treated = read(file)
    expected = worlds.pseudobulk_of(x, obs, KEY)
    is_control = expected.index.str.startswith("non-targeting")
    assert_same(treated, expected[~is_control])
    own = [f"non-targeting|{line}|{batch}" for _, line, batch in (i.split("|") for i in treated.index)]
    np.testing.assert_allclose(control, expected.loc[own], rtol=0, atol=1e-6)
    assert (file.obs["n_cells"] == 12).all()
    assert file.made.startswith("480 cells -> 36 pseudobulk samples (perturbation, cell line, batch)")


@pytest.mark.parametrize(("word", "per"), [("cp10k", 1e4), ("5e4", 5e4)])
def test_the_depth_is_chosen_by_name(tmp_path, word, per):
    path, obs, x = perturb_seq(tmp_path)
    _, treated = read(open_data(path, cells=_choice(normalise=word)))
    expected = worlds.pseudobulk_of(x, obs, KEY, per=per)
    assert_same(treated, expected[~expected.index.str.startswith("non-targeting")])


def test_lognormal_cells_are_averaged_and_never_taken_as_samples(tmp_path):
    obs = worlds.design(worlds.TARGETS)
    logs = worlds.lognormal(worlds.counts_of(obs, "target_gene", None))
    path = worlds.write(tmp_path / "cells.h5ad", obs, logs)
    file = open_data(path)
    _, treated = read(file)
    expected = worlds.means_of(logs, obs, KEY)
    assert_same(treated, expected[~expected.index.str.startswith("non-targeting")])
    assert "mean of log1p values" in file.made


def test_logs_of_counts_are_counted_again(tmp_path):
    obs = worlds.design(worlds.TARGETS)
    x = worlds.counts_of(obs, "target_gene", None)
    path = worlds.write(tmp_path / "cells.h5ad", obs, np.log1p(x))
    _, treated = read(open_data(path))
    expected = worlds.pseudobulk_of(x, obs, KEY)
    assert_same(treated, expected[~expected.index.str.startswith("non-targeting")])


@pytest.mark.parametrize("form", ["csr", "dense", "csc"])
def test_counts_with_values_below_zero_are_refused_with_their_number_and_the_cells(tmp_path, form):
    """They were cells of no known kind, and every cell a sample."""
    obs = worlds.design(worlds.TARGETS)
    x = worlds.counts_of(obs, "target_gene", None).astype(np.float32)
    x[17, 3], x[17, 5], x[30, 2] = -2, -1, -7
    path = worlds.write(tmp_path / "cells.h5ad", obs, x, form=form)
    named = rf"3 of their values are below zero, in 2 of {len(obs):,} cells \({obs.index[17]!r}, {obs.index[30]!r}\)"
    with pytest.raises(InputError, match=rf"{named}.*--treated-layer"):
        open_data(path).read(slice(None))


def test_scaled_cells_without_counts_are_refused_unless_every_row_is_said_to_be_a_sample(tmp_path):
    """Logarithms of cells are averaged; z-scores were taken as samples, a cell each, with a warning."""
    obs = worlds.design(worlds.TARGETS)
    logs = worlds.lognormal(worlds.counts_of(obs, "target_gene", None))
    scaled = ((logs - logs.mean(axis=0)) / np.maximum(logs.std(axis=0), 1e-3)).astype(np.float32)
    path = worlds.write(tmp_path / "cells.h5ad", obs, scaled, form="dense")
    with pytest.raises(InputError, match=r"neither counts nor logarithms.*--treated-layer LAYER.*--cells-as-samples"):
        open_data(path)
    assert open_data(path, cells=_choice(as_samples=True)).n_samples == (obs["target_gene"] != "non-targeting").sum()


def _choice(**said):
    from pertstack.data.cells import CellChoice

    return CellChoice(**said)


def test_cells_as_samples_are_taken_as_asked_with_a_word(tmp_path):
    obs = worlds.design(worlds.TARGETS)
    logs = worlds.lognormal(worlds.counts_of(obs, "target_gene", None))
    file = open_data(worlds.write(tmp_path / "cells.h5ad", obs, logs), cells=_choice(as_samples=True))
    assert file.n_samples == (obs["target_gene"] != "non-targeting").sum()
    assert [n.code for n in file.notes if n.severity == "warning"] == ["cells_as_samples"]


def test_samples_with_few_cells_are_left_out_and_named(tmp_path):
    obs = worlds.design(worlds.TARGETS)
    lonely = np.flatnonzero((obs["target_gene"] == "GENE03").to_numpy())[1:]
    obs = obs.drop(index=obs.index[lonely])
    path = worlds.write(tmp_path / "cells.h5ad", obs, worlds.counts_of(obs, "target_gene", None))
    file = open_data(path)
    assert file.n_samples == 16
    left = next(n for n in file.notes if n.code == "few_cells")
    assert left.numbers == {"cells": 1, "perturbations_lost": 1} and "GENE03" in left.message
    assert open_data(path, cells=_choice(min_cells=1)).n_samples == 17


def test_a_batch_without_control_cells_takes_those_of_the_line(tmp_path):
    obs = worlds.design(worlds.TARGETS, batches=("1", "2", "3"))
    obs = obs[~((obs["target_gene"] == "non-targeting") & (obs["gem_group"] == "2"))]
    x = worlds.counts_of(obs, "target_gene", None)
    file = open_data(worlds.write(tmp_path / "cells.h5ad", obs, x))
    control, _ = read(file)
    line = worlds.pseudobulk_of(x, obs, ["target_gene"]).loc["non-targeting"].to_numpy()
    own = worlds.pseudobulk_of(x, obs, KEY)
    for i, row in zip(control.index, control.to_numpy(), strict=True):
        batch = i.split("|")[2]
        expected = line if batch == "2" else own.loc[f"non-targeting|K562|{batch}"]
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-6)
    assert "controls_from_other_plates" in [n.code for n in file.notes]


def test_a_line_without_control_cells_is_refused(tmp_path):
    obs = worlds.design(worlds.TARGETS, lines=("K562", "RPE1"))
    obs = obs[~((obs["target_gene"] == "non-targeting") & (obs["cell_line"] == "RPE1"))]
    path = worlds.write(tmp_path / "cells.h5ad", obs, worlds.counts_of(obs, "target_gene", "cell_line"))
    with pytest.raises(InputError, match=r"RPE1.*--control-label"):
        open_data(path)


def test_counts_and_logs_in_one_file_are_refused_wherever_they_lie(tmp_path):
    obs = worlds.design(worlds.TARGETS, n=40)
    x = worlds.counts_of(obs, "target_gene", None)
    x[401] = worlds.lognormal(x[401:402])
    with pytest.raises(InputError, match=f"{obs.index[401]}.*mixed"):
        read(open_data(worlds.write(tmp_path / "late.h5ad", obs, x)))
    x[::2] = worlds.lognormal(x[::2])
    with pytest.raises(InputError, match="others logarithms"):
        open_data(worlds.write(tmp_path / "half.h5ad", obs, x))


def test_samples_are_split_further_by_guide(tmp_path):
    obs = worlds.design(worlds.TARGETS, n=24)
    turn = obs.groupby("target_gene").cumcount() % 2
    obs["guide_id"] = obs["target_gene"] + "_g" + turn.astype(str)
    x = worlds.counts_of(obs, "target_gene", None)
    path = worlds.write(tmp_path / "cells.h5ad", obs, x)
    file = open_data(path, cells=_choice(by=("guide",), min_cells=1))
    control, treated = read(file)
    expected = worlds.pseudobulk_of(x, obs, [*KEY, "guide_id"])
    assert_same(treated, expected[~expected.index.str.startswith("non-targeting")])
    own = worlds.pseudobulk_of(x, obs, KEY)
    np.testing.assert_allclose(
        control.iloc[0], own.loc[f"non-targeting|K562|{control.index[0].split('|')[2]}"], atol=1e-6
    )
    assert "mixed_guide" in [n.code for n in open_data(path).notes]


def test_a_file_without_a_cell_line_is_one_line_and_says_so(tmp_path):
    obs = worlds.design(worlds.TARGETS, names=("target_gene", None, "gem_group"))
    obs["cell_id"] = obs.index  # a barcode, no cell line
    file = open_data(worlds.write(tmp_path / "cells.h5ad", obs, worlds.counts_of(obs, "target_gene", None)))
    assert set(file.obs["cell_line"]) == {"all_cells"}
    assert "one_cell_line" in [n.code for n in file.notes]


@pytest.mark.parametrize("column", [None, "cell_line"])
def test_the_only_cell_line_has_the_name_that_was_given(tmp_path, column):
    """``--map cell_line=const:K562`` is the mend that the warning names; the line stayed ``all_cells``."""
    obs = worlds.design(worlds.TARGETS, names=("target_gene", column, "gem_group"), lines=("X",))
    path = worlds.write(tmp_path / "cells.h5ad", obs, worlds.counts_of(obs, "target_gene", None))
    file = open_data(path, mapping={"cell_line": "const:K562"})
    assert set(file.obs["cell_line"]) == {"K562"} and "one_cell_line" not in [n.code for n in file.notes]
    assert set(open_data(path, mapping={"cell_line": "none"}).obs["cell_line"]) == {"all_cells"}


def test_sums_of_cells_made_elsewhere_are_samples(tmp_path):
    obs = worlds.design(worlds.TARGETS, n=1, batches=[str(i) for i in range(12)])
    obs["psbulk_cells"] = 40
    x = worlds.lognormal(worlds.counts_of(obs, "target_gene", None))
    file = open_data(worlds.write(tmp_path / "bulk.h5ad", obs, x))
    assert file.n_samples == 108 and not file.made


def test_init_says_how_many_samples_were_made_of_how_many_cells(tmp_path, capsys):
    from typer.testing import CliRunner

    from pertstack.cli.entry import app

    path, _, _ = perturb_seq(tmp_path)
    runner = CliRunner(env={"COLUMNS": "800"})
    done = runner.invoke(app, ["init", str(tmp_path / "study"), "--data", str(path), "--folds", "2"])
    assert done.exit_code == 0, done.output
    assert done.stdout.count("480 cells -> 36 pseudobulk samples") == 1  # it stood in the table and below it
    study = Study.open(tmp_path / "study")
    assert study.folder.card.made.startswith("480 cells -> 36") and study.folder.choices["cells"]["min_cells"] == 10
    assert "pseudobulk" in [f.code for f in study.findings()]


def test_halves_of_cells_calibrate_metrics_where_nothing_was_measured_twice(tmp_path):
    """Against plain numpy: correlation of the changes of two disjoint halves of the cells of each sample."""
    from pertstack.data.cells.groups import halves

    obs = worlds.design(worlds.TARGETS, batches=("1",), n=20, names=("target_gene", "cell_line", None))
    logs = worlds.lognormal(worlds.counts_of(obs, "target_gene", "cell_line"))
    path = worlds.write(tmp_path / "cells.h5ad", obs, logs)
    study = Study.create(tmp_path / "study", data=path, folds=2)
    found = study.calibrate()
    assert "second half of the cells" in found.positive
    group = obs["target_gene"].to_numpy()
    first = halves(obs.index, pd.factorize(group)[0])
    control = logs[group == "non-targeting"].astype(np.float64).mean(axis=0)
    table = study.plan.table
    development = [s.split("|")[0] for s in table["sample_id"][table["role"] == "development"]]
    expected = [
        np.corrcoef(*(logs[(group == p) & half].astype(np.float64).mean(axis=0) - control for half in (first, ~first)))
        for p in development
    ]
    value = found.metrics["pearson_all@pooled"]
    assert value.n == len(development)
    np.testing.assert_allclose(value.positive, np.mean([c[0, 1] for c in expected]), rtol=1e-5)


def test_halves_of_the_test_stay_behind_the_door_of_its_truth(tmp_path):
    from pertstack._base.errors import LeakError
    from pertstack.predictions.sources.store_source import StoreSource

    path, _, _ = perturb_seq(tmp_path)
    folder = Study.create(tmp_path / "study", data=path, folds=2).folder
    source = StoreSource(folder.store, None, "test", (), groups=folder.plan.groups)
    for block in source.blocks():
        assert not {"treated", "half_a", "half_b"} & set(folder.store.layers(block))
        with pytest.raises(LeakError):
            source.read(block, "half_a", start=0, stop=1)
