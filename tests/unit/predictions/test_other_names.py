"""Values under other names: rows shifted from a gap on, rows and genes exchanged; and honest models, which pass."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import MisalignedError
from pertstack.design.blocks import Block
from pertstack.predictions import PredictionStore
from pertstack.predictions.importers import add_predictions

GENES = [f"G{i:02d}" for i in range(48)]


class Study:
    """One cell line in two folds and a test; genes of different levels, effects of rank three, replicates in pairs."""

    def __init__(self, root, n: int = 150, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        level, n_genes = rng.normal(7, 2, len(GENES)), len(GENES)
        pert = np.repeat(np.arange((n + 1) // 2), 2)[:n]
        effect = (rng.normal(0, 1, (n, 3)) @ rng.normal(0, 0.6, (3, n_genes)))[pert]
        self.control = level + rng.normal(0, 0.3, (n, n_genes))
        self.effect, self.ids = effect, [f"s{i:04d}" for i in rng.permutation(n)]
        self.treated = self.control + effect + rng.normal(0, 0.2, (n, n_genes))
        self.rng, self.store = rng, PredictionStore.create(root, GENES, plan_digest="p" * 64)
        place = pert % 5
        for block, rows in (
            (Block("L", 0), place < 2),
            (Block("L", 1), (place > 1) & (place < 4)),
            (Block("L", None), place == 4),
        ):
            at = np.flatnonzero(rows)
            ids = [self.ids[i] for i in at]
            self.store.add_block(
                block, pd.DataFrame({"perturbation": [f"d{p}" for p in pert[at]], "cell_line": "L"}, index=ids)
            )
            names = {"sample_ids": ids, "gene_names": GENES}
            self.store.commit(block, "control", self.control[at].astype("f4"), fitted_on=None, **names)
            if block.role == "development":
                self.store.commit(block, "treated", self.treated[at].astype("f4"), fitted_on=None, **names)

    def model(self, skill: float = 0.7) -> np.ndarray:
        return self.control + skill * self.effect + self.rng.normal(0, 0.15, self.control.shape)

    def add(self, values, tmp_path, name="m", scale="treated", columns=GENES):
        frame = pd.DataFrame(np.asarray(values, "f4"), index=pd.Index(self.ids, name="id"), columns=columns)
        frame.to_csv(tmp_path / f"{name}.csv")
        return add_predictions(self.store, name, tmp_path / f"{name}.csv", fitted_on="plan", scale=scale)


@pytest.fixture
def study(tmp_path) -> Study:
    return Study(tmp_path / "store")


@pytest.mark.parametrize(("start", "stop"), [(60, 150), (0, 70), (40, 110)])
@pytest.mark.parametrize("step", [1, -2])
def test_rows_shifted_between_two_gaps_are_refused(study, tmp_path, start, stop, step):
    moved = study.model()
    moved[start:stop] = np.roll(moved[start:stop], step, axis=0)
    with pytest.raises(MisalignedError, match=r"look shifted against their ids|under other ids"):
        study.add(moved, tmp_path)
    assert study.store.models() == []


def test_rows_in_any_other_order_are_refused(study, tmp_path):
    order = np.argsort(study.ids)  # sorted by id, and the old ids written beside
    with pytest.raises(MisalignedError, match=r"under other ids.*Were rows sorted without their ids"):
        study.add(study.model()[order], tmp_path)
    far = np.roll(study.model(), 7, axis=0)
    with pytest.raises(MisalignedError, match="under other ids"):
        study.add(far, tmp_path)


def test_a_model_without_a_trace_of_the_control_is_only_doubted(study, tmp_path):
    """Effects under other ids look like those of a model that tells the perturbations apart wrongly."""
    effects = study.treated.mean(axis=0) + study.effect
    report = study.add(effects[np.argsort(study.ids)], tmp_path)
    told = {f.code: f for f in report.findings}["rows_exchanged"]
    assert told.severity == "warning" and "Or the model has no skill" in told.message
    right = study.add(effects, tmp_path, "right")
    assert "rows_exchanged" not in {f.code for f in right.findings}


def test_a_far_shift_is_seen_in_a_file_of_which_a_sample_is_looked_at(tmp_path):
    study = Study(tmp_path / "store", n=900)
    told = study.add(np.roll(study.model(), 5, axis=0), tmp_path)  # effects outweigh the controls: doubted
    assert {f.code: f.severity for f in told.findings}["rows_exchanged"] == "warning"
    assert "rows_exchanged" not in {f.code for f in study.add(study.model(), tmp_path, "right").findings}


@pytest.mark.parametrize("how", ["all", "half", "shifted", "half of the file"])
def test_genes_under_other_names_are_refused(study, tmp_path, how):
    values, columns, order = study.model(), GENES, np.arange(48)
    if how == "half of the file":  # the file has its genes in an order of its own
        columns = list(study.rng.permutation(GENES))
        values = values[:, [GENES.index(g) for g in columns]]
    if how == "all":
        order = study.rng.permutation(48)
    elif how == "shifted":
        order = np.roll(order, 1)
    else:
        order[24:] = study.rng.permutation(order[24:])
    with pytest.raises(MisalignedError, match=r"under other gene names.*Were genes sorted"):
        study.add(values[:, order], tmp_path, columns=columns)
    assert study.store.models() == []


def test_genes_of_differences_under_other_names_are_refused_by_how_they_vary(study, tmp_path):
    delta = study.model() - study.control
    with pytest.raises(MisalignedError, match="measured genes over samples"):
        study.add(delta[:, study.rng.permutation(48)], tmp_path, scale="delta")
    study.add(delta, tmp_path, scale="delta")


def test_honest_models_pass_whatever_they_know(study, tmp_path):
    mean, n = study.treated.mean(axis=0), len(study.ids)
    partner = np.arange(n) ^ 1
    models = {
        "good": study.model(0.9),
        "weak": study.model(0.1),
        "mean": np.tile(mean, (n, 1)),
        "controls": study.control,
        "backwards": study.model(-0.4),
        "replicate": study.control + (study.treated - study.control)[np.minimum(partner, n - 1)],
        "shrunk": 0.7 * mean + 0.3 * study.control,
        "noise": mean + study.rng.normal(0, 0.5, study.control.shape),
        "rank one": study.control + np.outer(study.effect[:, 0], study.effect[0]) / np.abs(study.effect[0]).max(),
    }
    for name, values in models.items():
        report = study.add(values, tmp_path, name)
        odd = {"rows_exchanged", "genes_exchanged", "rows_shifted"} & {f.code for f in report.findings}
        assert not odd or name == "rank one"  # whose effects are wrong: doubted, and admitted
