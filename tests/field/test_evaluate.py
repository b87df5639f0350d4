"""``pertstack evaluate``: predictions of a test set, by id or by what was done, against plain pandas."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import pertstack as ps
from pertstack._base.errors import InputError, IntegrityError, MisalignedError
from pertstack.cli.entry import app
from pertstack.verdict.ranking import UNSEEN

GENES = [f"GENE{i:02d}" for i in range(40)]
LINES = ("A549", "K562")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """24 perturbations in two lines, each measured twice, with one control per line and replicate."""
    rng = np.random.default_rng(3)
    names = [f"P{i:02d}" for i in range(24)]
    rows = [(p, line, r) for p in names for line in LINES for r in (1, 2)]
    obs = pd.DataFrame(rows, columns=["perturbation", "cell_line", "replicate"])
    obs.index = [f"s{i:03d}" for i in range(len(obs))]
    base = {line: rng.gamma(2, 1.5, len(GENES)) for line in LINES}
    effect = {p: rng.normal(0, 0.7, len(GENES)) for p in names}
    control = {(line, r): base[line] + rng.normal(0, 0.1, len(GENES)) for line in LINES for r in (1, 2)}
    c = np.stack([control[line, r] for _, line, r in rows])
    y = np.stack([base[line] + effect[p] for p, line, _ in rows]) + rng.normal(0, 0.25, (len(rows), len(GENES)))
    folder = tmp_path_factory.mktemp("world")
    truth = anndata.AnnData(y.astype(np.float32), obs, pd.DataFrame(index=GENES))
    truth.layers["control"] = c.astype(np.float32)
    truth.write_h5ad(folder / "truth.h5ad")
    pairs = pd.DataFrame({(p, line): base[line] + 0.8 * effect[p] for p in names for line in LINES}, index=GENES).T
    return folder, truth, pairs


def by_sample(truth, pairs, noise=0.0, seed=0):
    """Predicted profile of every sample, (n, n_genes)."""
    keys = zip(truth.obs["perturbation"].astype(str), truth.obs["cell_line"].astype(str), strict=True)
    values = pairs.loc[list(keys)].to_numpy()
    return values + np.random.default_rng(seed).normal(0, noise, values.shape)


def written(folder, name, values, obs, genes=GENES):
    anndata.AnnData(np.asarray(values, np.float32), obs, pd.DataFrame(index=list(genes))).write_h5ad(folder / name)
    return folder / name


def correlations(truth, predicted):
    """Pearson r of change from the pooled control, by plain pandas, a sample at a time."""
    line = truth.obs["cell_line"].astype(str).to_numpy()
    pooled = pd.DataFrame(truth.layers["control"].astype(np.float64)).groupby(line).mean().loc[line].to_numpy()
    y, p = pd.DataFrame(truth.X.astype(np.float64) - pooled), pd.DataFrame(predicted - pooled)
    return y.corrwith(p, axis=1).to_numpy()


def scores_of(found, name, metric="pearson_all@pooled"):
    table = found.scores
    return pd.Series(table.values(name, metric), index=table.samples["sample_id"])


@pytest.fixture(scope="module")
def two(world):
    """Two models by sample id, rows and genes in another order; the second is worse."""
    folder, truth, pairs = world
    rng = np.random.default_rng(1)
    rows, genes = rng.permutation(truth.n_obs), rng.permutation(len(GENES))
    values = {"good": by_sample(truth, pairs), "poor": by_sample(truth, pairs, noise=0.8)}
    paths = {
        name: written(folder, f"{name}.h5ad", v[rows][:, genes], truth.obs[[]].iloc[rows], np.array(GENES)[genes])
        for name, v in values.items()
    }
    return values, ps.evaluate(folder / "truth.h5ad", paths)


def test_scores_are_those_of_plain_pandas_whatever_the_order_of_rows_and_genes(world, two):
    _, truth, _ = world
    values, found = two
    for name, predicted in values.items():
        ours = scores_of(found, name).loc[truth.obs_names]
        theirs = correlations(truth, predicted.astype(np.float32).astype(np.float64))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    plain = np.mean([values["good"].astype(np.float32), values["poor"].astype(np.float32)], axis=0)
    np.testing.assert_allclose(scores_of(found, "mean").loc[truth.obs_names], correlations(truth, plain), atol=1e-6)


def test_the_floor_is_the_mean_of_the_other_perturbations_of_the_line(world, two):
    _, truth, _ = world
    name, line = (truth.obs[c].astype(str).to_numpy() for c in ("perturbation", "cell_line"))
    floor = np.stack(
        [truth.X[(line == line[i]) & (name != name[i])].astype(np.float64).mean(axis=0) for i in range(truth.n_obs)]
    )
    np.testing.assert_allclose(
        scores_of(two[1], "mean_of_others").loc[truth.obs_names], correlations(truth, floor), atol=1e-6
    )


def test_the_answer_names_the_best_model_its_lead_and_what_cannot_be_known(two):
    board = two[1].leaderboard
    assert board.best_single == "good" and board.chosen is None and board.decision.action == "rank"
    assert board.decision.light == "green", board.headline
    assert "good scores best" in board.headline and "It leads poor" in board.headline
    assert "above the mean of the other perturbations" in board.headline
    assert UNSEEN in board.decision.notes
    assert "opened" not in board.footer() and "Nothing was fitted, held out or chosen here." in board.footer()
    kinds = {r.name: r.kind for r in board.rows}
    assert kinds["mean_of_others"] == kinds["mean"] == kinds["no_change"] == "reference"
    assert kinds["replicate"] == kinds["oracle"] == "ceiling"


def test_a_prediction_of_a_pair_serves_all_its_samples_and_rows_of_a_pair_are_averaged(world, two, tmp_path):
    """Three noisy rows per pair, shuffled, with integer names and control rows among them, A+ctrl for A."""
    folder, truth, pairs = world
    rng = np.random.default_rng(5)
    rows = [
        (p, line, pairs.loc[(p, line)] + rng.normal(0, 0.2, len(GENES))) for p, line in pairs.index for _ in range(3)
    ]
    rows += [("ctrl", line, np.zeros(len(GENES))) for line in LINES for _ in range(4)]
    rows = [rows[i] for i in rng.permutation(len(rows))]
    obs = pd.DataFrame(rows, columns=["condition", "cell_type", "v"], index=map(str, range(len(rows))))
    obs["condition"] = [f"{p}+ctrl" if p != "ctrl" else p for p in obs["condition"]]
    obs = obs[["condition", "cell_type"]]
    path = written(tmp_path, "cells.h5ad", np.stack([v for _, _, v in rows]), obs)
    found = ps.evaluate(folder / "truth.h5ad", path)
    table = pd.DataFrame(np.stack([v for _, _, v in rows]).astype(np.float32).astype(np.float64))
    means = table.groupby([[p for p, _, _ in rows], [line for _, line, _ in rows]]).mean()
    theirs = correlations(truth, by_sample(truth, means))
    np.testing.assert_allclose(scores_of(found, "cells").loc[truth.obs_names], theirs, atol=1e-6)
    match = next(f for f in found.findings if f.code == "matched_by_key")
    assert "48 predictions, each the mean of 3 rows, serve 96 samples; 8 control rows are not used" in match.message


def test_pairs_missing_and_left_over_are_counted_and_named(world, tmp_path):
    folder, _, pairs = world
    kept = pairs.iloc[4:]
    obs = pd.DataFrame(kept.index.tolist(), columns=["perturbation", "cell_line"])
    obs.loc[len(obs)] = ["P99", "K562"]
    values = np.vstack([kept.to_numpy(), kept.to_numpy()[:1]])
    path = written(tmp_path, "some.h5ad", values, obs.set_axis(map(str, obs.index)))
    found = ps.evaluate(folder / "truth.h5ad", path)
    by_code = {f.code: f for f in found.findings}
    assert by_code["keys_missing"].count == 4 and "'P00 / A549'" in by_code["keys_missing"].message
    assert by_code["keys_left_over"].count == 1 and "'P99 / K562'" in by_code["keys_left_over"].message
    assert "Scored on 88 of 96 samples" in by_code["samples_common"].message
    assert len(found.scores.samples) == 88
    assert any("no prediction for 4 of 48" in c for r in found.leaderboard.rows for c in r.cautions)


def test_the_same_pairs_missing_everywhere_are_one_line(world, tmp_path):
    folder, _, pairs = world
    kept = pairs.iloc[4:]
    obs = pd.DataFrame(kept.index.tolist(), columns=["perturbation", "cell_line"], index=map(str, range(len(kept))))
    models = {
        m: written(tmp_path, f"{m}.h5ad", kept.to_numpy() + a, obs) for m, a in (("a", 0), ("b", 0.1), ("c", 0.2))
    }
    found = ps.evaluate(folder / "truth.h5ad", models)
    (said,) = [f for f in found.findings if f.severity == "warning" and f.code in ("samples_common", "keys_missing")]
    assert "88 of 96 samples" in said.message and "'P00'" in said.message and said.count == 8


def test_a_truth_of_differences_beside_its_control_is_refused_with_the_mend(world, two, tmp_path):
    folder, truth, _ = world
    differences = truth.copy()
    differences.X = truth.X - truth.layers["control"]
    differences.write_h5ad(path := tmp_path / "differences.h5ad")
    command = ["evaluate", str(path), f"good={folder / 'good.h5ad'}", "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(app, command)
    assert isinstance(refused.exception, InputError) and "--delta --control-layer ''" in str(refused.exception)
    mended = CliRunner().invoke(app, [*command, "--delta", "--control-layer", "", "--scale", "treated"])
    assert "resemble" not in f"{mended.exception}"


def test_names_that_the_two_sides_spell_otherwise_are_shown(world, tmp_path):
    """A cell line in another spelling leaves its samples out; perturbations in another match nothing at all."""
    folder, _, pairs = world
    keys = pd.DataFrame(list(pairs.index), columns=["perturbation", "cell_line"]).rename(str)
    other = keys.assign(cell_line=keys["cell_line"].replace("A549", "A-549"))
    found = ps.evaluate(folder / "truth.h5ad", {"m": written(tmp_path, "line.h5ad", pairs, other)})
    left = next(f.message for f in found.findings if f.code == "keys_left_over")
    assert "Perhaps the same, spelt otherwise: A-549 = A549." in left
    none = keys.assign(perturbation=[f"p-{x[1:]}" for x in keys["perturbation"]])
    with pytest.raises(MisalignedError, match=r"spelt otherwise: P00 = p-00; .* and 21 more"):
        ps.evaluate(folder / "truth.h5ad", {"m": written(tmp_path, "none.h5ad", pairs, none)})


def test_half_of_the_pairs_is_no_ranking(world, tmp_path):
    folder, _, pairs = world
    kept = pairs.iloc[:20]
    obs = pd.DataFrame(kept.index.tolist(), columns=["perturbation", "cell_line"], index=map(str, range(20)))
    with pytest.raises(MisalignedError, match=r"Only 40 of 96 samples.*a truth file of only"):
        ps.evaluate(folder / "truth.h5ad", written(tmp_path, "half.h5ad", kept, obs))


def test_one_pair_twice_with_different_values_is_refused(world, tmp_path):
    folder, _, pairs = world
    obs = pd.DataFrame(pairs.index.tolist(), columns=["perturbation", "cell_line"])
    obs.loc[len(obs)] = ["P03", "A549"]
    path = written(tmp_path, "twice.h5ad", np.vstack([pairs, pairs.to_numpy()[:1]]), obs.set_axis(map(str, obs.index)))
    with pytest.raises(MisalignedError, match=r"1 of 48 keys are predicted more than once.*'P03 / A549"):
        ps.evaluate(folder / "truth.h5ad", path)


def test_several_lines_and_a_file_that_names_none_is_refused_with_the_mend(world, tmp_path):
    folder, _, pairs = world
    obs = pd.DataFrame({"perturbation": [p for p, _ in pairs.index]}, index=map(str, range(len(pairs))))
    with pytest.raises(InputError, match="--map cell_line=const:A549"):
        ps.evaluate(folder / "truth.h5ad", written(tmp_path, "no_line.h5ad", pairs, obs))


def test_the_truth_itself_is_no_prediction(world, tmp_path):
    folder, truth, _ = world
    with pytest.raises(IntegrityError, match="are the measured values themselves"):
        ps.evaluate(folder / "truth.h5ad", written(tmp_path, "copy.h5ad", truth.X, truth.obs[[]]))


def test_values_against_the_wrong_rows_are_refused(world, tmp_path):
    """Predictions shifted by a perturbation against their ids, within each cell line."""
    folder, truth, pairs = world
    order = np.lexsort((np.arange(truth.n_obs), truth.obs["cell_line"].astype(str)))
    values = np.roll(by_sample(truth, pairs)[order], 2, axis=0)
    path = written(tmp_path, "shifted.h5ad", values, truth.obs[[]].iloc[order])
    with pytest.raises(IntegrityError, match="look shifted against their ids"):
        ps.evaluate(folder / "truth.h5ad", path)


def test_ids_that_fit_by_accident_give_way_to_what_was_done(world, tmp_path):
    """Both files number their rows, in different orders; the names of the perturbations decide."""
    _, truth, pairs = world
    numbered = truth.copy()
    numbered.obs_names = [str(i) for i in range(truth.n_obs)]
    numbered.write_h5ad(tmp_path / "truth.h5ad")
    order = np.random.default_rng(0).permutation(len(pairs))
    obs = pd.DataFrame(
        [pairs.index[i] for i in order], columns=["perturbation", "cell_line"], index=map(str, range(48))
    )
    path = written(tmp_path, "pred.h5ad", pairs.to_numpy()[order], obs)
    found = ps.evaluate(tmp_path / "truth.h5ad", {"model": path})
    ours = scores_of(found, "model").loc[numbered.obs_names]
    np.testing.assert_allclose(ours, correlations(truth, by_sample(truth, pairs).astype(np.float32)), atol=1e-6)


def test_one_command_prints_the_board_and_writes_the_page(world, two, tmp_path, monkeypatch):
    folder, _, _ = world
    monkeypatch.chdir(tmp_path)
    files = [f"first={folder / 'good.h5ad'}", str(folder / "poor.h5ad")]
    done = CliRunner().invoke(app, ["evaluate", str(folder / "truth.h5ad"), *files], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "first" in done.output and "poor" in done.output and UNSEEN[:40] in " ".join(done.output.split())
    board = json.loads((tmp_path / "evaluation" / "leaderboard.json").read_text())
    assert board["decision"]["action"] == "rank" and board["best_single"] == "first"
    page = (tmp_path / "evaluation" / "report.html").read_text()
    assert "What was evaluated" in page and UNSEEN in page
    for word in ("fold plan", "ledger", "has been opened", "ships", "shipped"):
        assert word not in page.split("<footer>")[0].split("</style>")[1].casefold(), word


def test_a_model_below_an_answer_that_knows_no_perturbation_is_not_to_be_acted_on(world, tmp_path):
    """Noise around the control: worse than the control itself, the better of the two floors here."""
    folder, truth, _ = world
    noise = truth.layers["control"] + np.random.default_rng(4).normal(0, 0.3, truth.shape)
    found = ps.evaluate(
        folder / "truth.h5ad", written(tmp_path, "noise.h5ad", noise, truth.obs[[]]), primary="rmse_all"
    )
    decision = found.leaderboard.decision
    assert decision.light == "red"
    assert decision.reasons[0].startswith("noise is below the control itself (−")
    assert decision.reasons[0].endswith("it is not shown to know anything about single perturbations.")


def test_objects_in_memory_give_what_their_files_give(world, two):
    """A notebook has AnnData and tables: PerturBench a dict of AnnData per model."""
    _, truth, _ = world
    values, by_files = two
    table = pd.DataFrame(values["good"].astype(np.float32), truth.obs_names, GENES)
    given = {"good": table, "poor": anndata.AnnData(values["poor"].astype(np.float32), truth.obs, truth.var)}
    found = ps.evaluate(truth, given)
    for name in given:
        theirs = scores_of(by_files, name).loc[truth.obs_names]
        np.testing.assert_allclose(scores_of(found, name).loc[truth.obs_names], theirs, atol=1e-6)
    assert found.facts["truth"] == "in memory"


def test_models_that_say_the_same_for_every_perturbation_are_called_so(world):
    folder, truth, _ = world
    line = truth.obs["cell_line"].astype(str).to_numpy()
    mean = pd.DataFrame(truth.layers["control"] + 0.3).groupby(line).mean().loc[line].to_numpy()
    one, two = (written(folder, f"{n}.h5ad", mean + 0.05 * i, truth.obs) for i, n in enumerate(("one", "two")))
    alone = ps.evaluate(folder / "truth.h5ad", {"one": one})
    assert any(r.startswith("one says the same for every perturbation: ") for r in alone.verdict.decision.reasons)
    found = ps.evaluate(folder / "truth.h5ad", {"one": one, "two": two})
    assert found.verdict.decision.light == "red" and found.verdict.decision.reasons
    assert any(
        "says the same for every perturbation, and so does" in r and "one" in r and "two" in r
        for r in found.verdict.decision.reasons
    )


@pytest.mark.parametrize("scale", ["treated", "delta"])
def test_values_between_0_and_1_are_refused_however_they_are_declared(world, tmp_path, scale):
    """The advice was once to say --scale delta, and then they were scored."""
    folder, _, pairs = world
    small = (pairs - pairs.min().min()) / (pairs.max().max() - pairs.min().min())
    path = written(tmp_path, "m.h5ad", small, keyed(pairs))
    with pytest.raises(IntegrityError, match="on another scale"):
        ps.evaluate(folder / "truth.h5ad", {"m": path}, scale=scale)


def keyed(pairs):
    """What was done in each predicted row."""
    said = pd.DataFrame(list(pairs.index), columns=["perturbation", "cell_line"])
    return said.set_axis([f"row{i}" for i in range(len(said))])


def test_genes_under_permuted_names_are_warned_of_where_rows_are_matched_by_what_was_done(world, tmp_path):
    folder, _, pairs = world
    permuted = np.random.default_rng(2).permutation(GENES)
    path = written(tmp_path, "m.h5ad", pairs, keyed(pairs), permuted)
    (said,) = [f for f in ps.evaluate(folder / "truth.h5ad", {"m": path}).findings if f.code == "gene_names"]
    assert said.severity == "warning" and "they may be under the names of others" in said.message
    right = written(tmp_path, "right.h5ad", pairs, keyed(pairs))
    assert "gene_names" not in [f.code for f in ps.evaluate(folder / "truth.h5ad", {"m": right}).findings]


def test_levels_of_expression_beside_a_truth_of_differences_are_refused(world, tmp_path):
    _, truth, pairs = world
    path = written(tmp_path, "truth.h5ad", truth.X - truth.layers["control"], truth.obs)
    model = written(tmp_path, "m.h5ad", pairs, keyed(pairs))
    with pytest.raises(IntegrityError, match=r"are differences from the control.*Subtract the control"):
        ps.evaluate(path, {"m": model}, delta=True)
    effects = pairs - np.stack([pairs.xs(line, level=1).mean() for _, line in pairs.index])
    model = written(tmp_path, "m.h5ad", 4 * effects, keyed(pairs))
    assert "scale_checked" in [f.code for f in ps.evaluate(path, {"m": model}, delta=True).findings]


def test_controls_and_metadata_of_a_truth_in_tables_lie_beside_it(world, two, tmp_path):
    folder, truth, _ = world
    profiles = pd.DataFrame(truth.X, truth.obs_names, GENES)
    pd.concat([truth.obs, profiles], axis=1).to_csv(tmp_path / "truth.csv", index_label="sample_id")
    controls = pd.DataFrame(truth.layers["control"], truth.obs_names, GENES)
    controls.iloc[::-1].to_csv(tmp_path / "control.csv", index_label="sample_id")
    profiles.to_csv(tmp_path / "values.csv", index_label="sample_id")
    truth.obs.iloc[::-1].to_csv(tmp_path / "said.csv", index_label="sample_id")
    said = ["--control", str(tmp_path / "control.csv"), "--metadata", str(tmp_path / "said.csv")]
    for name, options in (("truth.csv", said[:2]), ("values.csv", said)):
        to = tmp_path / f"out_{name}"
        asked = ["evaluate", str(tmp_path / name), f"good={folder / 'good.h5ad'}", *options, "--out", str(to), "--json"]
        done = CliRunner().invoke(app, asked)
        assert done.exit_code == 0, done.output
        stored = np.load(to / "scores.npz")
        assert stored["values"].shape[2] == truth.n_obs
