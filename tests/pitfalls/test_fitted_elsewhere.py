"""Models trained elsewhere: what their list of fit rows gives away of the question that the study asks."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

import pertstack as ps
from pertstack.study.members import stack_warnings

GENES = [f"g{i:02d}" for i in range(24)]
DOUBLES = [f"g{i:02d}+g{(i + 1) % 24:02d}" for i in range(24)]  # a ring: every gene is in two doubles
SINGLES = [f"{g}+ctrl" for g in GENES]


def made(folder, names, *, group, **choices):
    """A study of perturbations, each measured as often as it is named, and predictions that nobody can object to."""
    rng = np.random.default_rng(0)
    effect = {g: rng.normal(0, 1, len(GENES)) for g in GENES}
    control = np.full((len(names), len(GENES)), 8.0)
    change = np.stack([sum(effect[g] for g in n.split("+") if g in effect) for n in names])
    obs = pd.DataFrame({"perturbation": names, "cell_line": "K562"}, index=[f"s{i:02d}" for i in range(len(names))])
    treated = control + change + rng.normal(0, 0.3, change.shape)
    data = anndata.AnnData(treated.astype(np.float32), obs, pd.DataFrame(index=GENES))
    data.layers["control"] = control.astype(np.float32)
    data.write_h5ad(folder / "data.h5ad")
    guess = control + 0.6 * change + rng.normal(0, 0.5, change.shape)
    anndata.AnnData(guess.astype(np.float32), obs[[]], data.var).write_h5ad(folder / "guess.h5ad")
    return ps.Study.create(folder / "study", data=folder / "data.h5ad", group=group, seed=1, **choices), obs


def parts(names):
    return {g for n in names for g in str(n).split("+")} - {"ctrl"}


def taken(study, name):
    """Predicted rows that take part, by their ids."""
    from pertstack.predictions import StoreSource

    source = StoreSource(study.folder.store, None, "development", [name], groups=study.folder.plan.groups)
    return {s for b in source.blocks() for s in source.obs(b).index[source.sound(b, name)]}


def fits_outside(samples, keep):
    """fold -> ids that ``keep`` leaves to the fit that predicts it; None: the final fit."""
    rows = samples[samples["role"] != "test"]
    return {
        fold: [
            s for s, r in rows.iterrows() if (fold is None or pd.isna(r["fold"]) or r["fold"] != fold) and keep(fold, r)
        ]
        for fold in (0, 1, 2, None)
    }


def codes(report):
    return [f.code for f in report.findings]


def test_a_model_that_saw_other_replicates_of_what_it_predicts_takes_no_part_there(tmp_path):
    """The list names no predicted row, only the other measurement of each: 'out of fold' by id and by nothing else."""
    study, _ = made(tmp_path, [n for n in DOUBLES for _ in "12"], group="perturbation")
    samples = study.folder.samples
    development = samples[samples["role"] == "development"]
    first = development[~development.duplicated("perturbation")]
    report = study.add("theirs", tmp_path / "guess.h5ad", fitted_on=list(first.index), scale="treated")
    assert "group_was_fitted_on" in codes(report) and "in_sample_rows" in codes(report)
    assert taken(study, "theirs") == set()
    # one perturbation that no listed row measures
    spared = first["perturbation"].iloc[0]
    ids = list(first.index[first["perturbation"] != spared])
    study.add("other", tmp_path / "guess.h5ad", fitted_on=ids, scale="treated")
    assert taken(study, "other") == set(development.index[development["perturbation"] == spared])


def test_a_list_that_an_older_version_read_by_id_alone_is_named(tmp_path, monkeypatch):
    """Other replicates of a listed row stay out of fold in such a study, until the model is added again."""
    study, _ = made(tmp_path, [n for n in DOUBLES for _ in "12"], group="perturbation")
    samples = study.folder.samples
    first = samples[(samples["role"] == "development") & ~samples.duplicated("perturbation")]
    said = {"fitted_on": list(first.index), "scale": "treated"}
    with monkeypatch.context() as older:
        older.setattr("pertstack.study.steps.add.kin_in", lambda folder: None)
        study.add("old", tmp_path / "guess.h5ad", **said)
    study.add("new", tmp_path / "guess.h5ad", **said)
    (text,) = stack_warnings(study.folder)
    assert text.startswith(f"old was added by an older version: {len(first):,} of its rows") and "--why" in text
    assert [f.where for f in study.audit() if f.code == "fit_rows_by_older_rule"] == ["old"]
    study.withdraw("old", "added again")
    study.add("old", tmp_path / "guess.h5ad", **said)
    assert stack_warnings(study.folder) == []


def test_where_samples_are_the_groups_other_replicates_may_be_seen(tmp_path):
    study, _ = made(tmp_path, [n for n in DOUBLES for _ in "12"], group="sample")
    samples = study.folder.samples
    development = samples[samples["role"] == "development"]
    ids = list(development.index[::2])
    report = study.add("theirs", tmp_path / "guess.h5ad", fitted_on=ids, scale="treated")
    assert "group_was_fitted_on" not in codes(report)
    assert taken(study, "theirs") == set(development.index) - set(ids)


@pytest.fixture
def ring(tmp_path):
    return made(tmp_path, [*SINGLES, *DOUBLES], group="parts", support=["kind=single"], test=0.1)[0]


def test_parts_that_a_list_of_fit_rows_met_are_seen(ring, tmp_path):
    samples = ring.folder.samples
    asked = {k: parts(samples.loc[samples["fold"] == k, "perturbation"]) for k in (0, 1, 2)}
    asked[None] = parts(samples.loc[samples["role"] == "test", "perturbation"])
    development = set(samples.index[samples["role"] == "development"])

    def met(fold, row):
        return row["role"] == "support" or not parts([row["perturbation"]]) & asked[fold]

    clean = ring.add("clean", tmp_path / "guess.h5ad", fitted_on=fits_outside(samples, met), scale="treated")
    assert not {"group_was_fitted_on", "parts_on_your_word"} & set(codes(clean))
    assert taken(ring, "clean") == development
    fits = fits_outside(samples, lambda fold, row: True)
    report = ring.add("by_fold", tmp_path / "guess.h5ad", fitted_on=fits, scale="treated")
    assert "group_was_fitted_on" in codes(report)
    fitted = {
        k: parts(samples.loc[[s for s in ids if "ctrl" not in samples.at[s, "perturbation"]], "perturbation"])
        for k, ids in fits.items()
    }
    seen = {s for s in development if parts([samples.at[s, "perturbation"]]) & fitted[int(samples.at[s, "fold"])]}
    assert seen and taken(ring, "by_fold") == development - seen


def test_the_word_plan_is_said_to_promise_more_where_parts_are_kept_apart(ring, tmp_path):
    report = ring.add("theirs", tmp_path / "guess.h5ad", fitted_on="plan", scale="treated")
    assert "parts_on_your_word" in codes(report)
    assert "share a part" in next(f.message for f in report.findings if f.code == "parts_on_your_word")
