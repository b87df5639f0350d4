"""``predict`` with models that were added: their files for new samples are read as those of the study were.

The right values are made by plain arithmetic on what is written into the files.
"""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from e2e.conftest import ok, pertstack

GENES = [f"GENE{i:02d}" for i in range(24)]
IDS = [f"ENSG{i:011d}" for i in range(24)]
LINES = ("A549", "K562")
OLD, NEW = [f"P{i:02d}" for i in range(20)], [f"N{i}" for i in range(4)]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def samples(names, prefix, doses=(1.0, 10.0)):
    rows = [(p, line, d, "uM") for p in names for line in LINES for d in doses]
    table = pd.DataFrame(rows, columns=["perturbation", "cell_line", "dose", "dose_unit"])
    return table.set_axis([f"{prefix}{i:03d}" for i in range(len(table))])


def write(path, values, obs, *, names=GENES, control=None, **columns):
    layers = None if control is None else {"control": control.astype(np.float32)}
    var = pd.DataFrame(columns, index=list(names))
    anndata.AnnData(np.asarray(values, np.float32), obs, var, layers=layers).write_h5ad(path)
    return path


def flat(done):
    return " ".join(done.stderr.split())


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A study with a model of differences, one in decimal logarithms and one of plain levels; and new samples."""
    folder, rng = tmp_path_factory.mktemp("new"), np.random.default_rng(4)
    base = {line: rng.gamma(2, 1.5, len(GENES)) + 2 for line in LINES}
    change = {p: rng.normal(0, 0.6, len(GENES)) for p in (*OLD, *NEW)}
    old, new = samples(OLD, "s"), samples(NEW, "n")
    level = {"old": np.stack([base[x] for x in old["cell_line"]]), "new": np.stack([base[x] for x in new["cell_line"]])}
    said = {
        "old": np.stack([change[p] for p in old["perturbation"]]),
        "new": np.stack([change[p] for p in new["perturbation"]]),
    }
    noise = rng.normal(0, 0.2, said["old"].shape)
    control = level["old"] + rng.normal(0, 0.05, noise.shape)
    write(folder / "data.h5ad", level["old"] + said["old"] + noise, old, names=IDS, control=control, gene_symbols=GENES)
    write(folder / "new.h5ad", level["new"], new, control=level["new"])
    ok("init", folder / "s", "--data", folder / "data.h5ad", "--folds", 2)
    off = rng.normal(0, 0.3, (3, *noise.shape))
    given = {
        "differences": (0.8 * said["old"] + off[0], 0.8 * said["new"], ("--scale", "delta")),
        "levels": (level["old"] + 0.7 * said["old"] + off[1], level["new"] + 0.7 * said["new"], ("--scale", "treated")),
        "decimal": (
            (level["old"] + said["old"] + off[2]) / np.log2(10),
            (level["new"] + 0.9 * said["new"]) / np.log2(10),
            ("--scale", "treated", "--transform", "log10_to_log2"),
        ),
    }
    for name, (values, later, words) in given.items():
        ok("add", folder / "s", name, write(folder / f"{name}.h5ad", values, old[[]]), "--fitted-on", "plan", *words)
        write(folder / f"new_{name}.h5ad", later, new[[]])
    ok("stack", folder / "s", "--combiners", "mean")
    treated = [level["new"] + x * said["new"] for x in (0.8, 0.7, 0.9)]
    return folder, new, level["new"], given, np.mean(treated, axis=0)


def predict(world, out, **files):
    folder = world[0]
    pairs = {name: folder / f"new_{name}.h5ad" for name in ("differences", "levels", "decimal")} | files
    words = [w for name, path in pairs.items() for p in np.atleast_1d(path) for w in ("--predictions", f"{name}={p}")]
    return pertstack("predict", folder / "s", folder / "new.h5ad", out, "--use", "mean", *words)


def test_scale_and_transform_are_those_the_model_was_added_with(world, tmp_path):
    """Differences were taken for levels, and decimal logarithms for those of the study, in silence."""
    done = predict(world, tmp_path / "out.h5ad")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(anndata.read_h5ad(tmp_path / "out.h5ad").X, world[-1], atol=1e-4)


def test_rows_are_matched_by_what_was_done_and_genes_by_any_name_from_several_files(world, tmp_path):
    """The tables name rows otherwise, in another order, a line in each; genes go by ids, and two are no genes here."""
    _, new, _, given, expected = world
    values, files = given["levels"][1], []
    for line in LINES:
        rows = np.flatnonzero(new["cell_line"] == line)[::-1]
        said = new.iloc[rows].set_axis([f"row {i}" for i in range(len(rows))]).assign(dose_unit="nM")
        x = np.hstack([values[rows][:, ::-1], np.zeros((len(rows), 2))])
        files.append(
            write(tmp_path / f"{line}.h5ad", x, said.assign(dose=1000 * said["dose"]), names=[*IDS[::-1], "X1", "X2"])
        )
    done = predict(world, tmp_path / "out.h5ad", levels=files)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(anndata.read_h5ad(tmp_path / "out.h5ad").X, expected, atol=1e-4)


@pytest.mark.parametrize("model", ["differences", "levels"])
def test_values_of_the_other_scale_are_refused(world, tmp_path, model):
    _, new, control, given, _ = world
    other = given[model][1] + (control if model == "differences" else -control)
    done = predict(world, tmp_path / "out.h5ad", **{model: write(tmp_path / "x.h5ad", other, new[[]])})
    scale = given[model][2][1]
    assert done.returncode == 3 and f"{model} was added to the study with --scale {scale}" in flat(done)
    assert not (tmp_path / "out.h5ad").exists()


def test_values_that_were_mapped_already_are_refused(world, tmp_path):
    _, new, control, _, _ = world
    done = predict(world, tmp_path / "out.h5ad", levels=write(tmp_path / "x.h5ad", control * 9, new[[]]))
    assert done.returncode == 3 and "one unit predicted is 0.111 there" in flat(done)


def test_rows_and_genes_that_are_not_predicted_are_named(world, tmp_path):
    _, new, _, given, _ = world
    values = given["levels"][1]
    fewer = write(tmp_path / "rows.h5ad", values[1:], new[[]].iloc[1:])
    done = predict(world, tmp_path / "out.h5ad", levels=fewer)
    assert done.returncode == 3 and "lack 1 of 16 new samples: 'n000'" in flat(done)
    fewer = write(tmp_path / "genes.h5ad", values[:, 1:], new[[]], names=GENES[1:])
    done = predict(world, tmp_path / "out.h5ad", levels=fewer)
    assert done.returncode == 3 and "lack 1 of 24 genes: 'GENE00'" in flat(done)


def test_new_samples_may_go_by_second_names_of_genes(world, tmp_path):
    folder, new, control, _, expected = world
    words = [w for m in ("differences", "levels", "decimal") for w in ("--predictions", f"{m}={folder}/new_{m}.h5ad")]
    for i, names in enumerate((IDS, [f"{n}.7" for n in IDS])):
        path = write(tmp_path / f"{i}.h5ad", control[:, ::-1], new, names=names[::-1], control=control[:, ::-1])
        ok("predict", folder / "s", path, tmp_path / f"out{i}.h5ad", "--use", "mean", *words)
        np.testing.assert_allclose(anndata.read_h5ad(tmp_path / f"out{i}.h5ad").X, expected, atol=1e-4)


def test_what_the_study_knows_and_new_samples_do_not_say_is_said(world, tmp_path):
    """Doses under an unknown name, a cell line in another spelling, warnings of the reader: all were silent."""
    folder, new, control, _, _ = world
    said = new.rename(columns={"dose": "amount"}).drop(columns="dose_unit").replace({"K562": "k-562"})
    rows = pd.DataFrame({"perturbation": ["NTC", "safe-targeting"] * 2, "cell_line": ["A549"] * 2 + ["k-562"] * 2})
    obs = pd.concat([said, rows.set_axis([f"c{i}" for i in range(4)])])
    x = np.vstack([control, control[[0, 0, 2, 2]]])
    path = write(tmp_path / "new.h5ad", x, obs)
    words = [w for m in ("differences", "levels", "decimal") for w in ("--predictions", f"{m}={folder}/new_{m}.h5ad")]
    done = pertstack("predict", folder / "s", path, tmp_path / "out.h5ad", "--use", "mean", *words)
    assert done.returncode == 0, done.stderr
    for words in ("16 of 16 samples", "say no dose", "'K562 = k-562'", "'NTC' (2 rows)"):
        assert words in flat(done), words
    kept = " ".join(anndata.read_h5ad(tmp_path / "out.h5ad").uns["pertstack"]["warnings"])
    assert "say no dose" in kept and "'NTC' (2 rows)" in kept
