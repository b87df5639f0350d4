"""Probes against models that saw the rows they are judged on, and honest ones; power: benchmarks/probe_power.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pertstack._base.errors import InputError
from pertstack.design.plan.folds import FoldPlan
from pertstack.verdict.probes.batches import batch_effects
from pertstack.verdict.probes.of_folds import fold_fingerprint, oof_against_fit, permuted_truth
from pertstack.verdict.probes.of_noise import PLATES_TOLD, replicate_noise, too_good
from realdata import real_data

Array = np.ndarray[Any, Any]
N_GENES, N_FOLDS = 80, 3


class World:
    """100 perturbations, two replicates each, three folds by perturbation; effects driven by ten features."""

    def __init__(self, seed: int = 0, n: int = 100) -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.group = np.repeat([f"d{i}" for i in range(n)], 2)
        code = np.repeat(np.arange(n), 2)
        features = rng.normal(size=(n, 10))
        effect = 0.3 * features @ rng.normal(size=(10, N_GENES)) / np.sqrt(10)
        self.x = features[code]
        self.control = 8 + rng.normal(0, 0.5, (2 * n, N_GENES))
        self.truth = 9 + effect[code] + rng.normal(0, 0.5, (2 * n, N_GENES))
        self.fold = rng.permutation(np.arange(n) % N_FOLDS)[code]

    def fitted_outside(self, folds: Array) -> Array:
        """Honest ridge predictions for the given folds, plus half the control: an input, so no leak."""
        out = np.empty_like(self.truth)
        for k in np.unique(folds):
            out[folds == k] = self.ridge(folds != k)[folds == k]
        return out

    def ridge(self, rows: Array) -> Array:
        x, y = self.x[rows], self.truth[rows] - 0.5 * self.control[rows]
        weight = np.linalg.solve(x.T @ x + 5 * np.eye(10), x.T @ (y - y.mean(axis=0)))
        return y.mean(axis=0) + self.x @ weight + 0.5 * self.control


def test_an_honest_model_passes_every_probe() -> None:
    w = World()
    honest = w.fitted_outside(w.fold)
    rng = np.random.default_rng(1)
    assert too_good(honest, w.truth, w.group, groups=w.group, rng=rng).code == "too_good_passed"
    assert replicate_noise(honest, w.truth, w.control, conditions=w.group, rng=rng).severity == "note"
    found = fold_fingerprint(honest, w.truth, w.fold, groups=w.group, rng=rng)
    assert (found.code, found.severity) == ("fold_fingerprint_found", "note")
    assert found.numbers["z"] < -2


def test_an_error_below_replicate_noise_is_an_accusation_with_both_numbers() -> None:
    w = World()
    memory = 0.5 * w.truth + 0.5 * w.fitted_outside(w.fold)
    found = too_good(memory, w.truth, w.group, groups=w.group, rng=w.rng, model="biolord")
    assert (found.severity, found.code, found.where) == ("error", "too_good_to_be_true", "biolord")
    assert found.numbers["noise"] == pytest.approx(0.25, rel=0.05)
    assert found.numbers["error"] < 0.1


def test_the_noise_bound_is_the_variance_between_replicates() -> None:
    """A perfect model (the noise-free truth) has exactly that error on average, and is not accused."""
    accused = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        group = np.repeat(np.arange(40), 2)
        perfect = rng.normal(9, 1, (40, N_GENES))[group]
        found = too_good(perfect, perfect + rng.normal(0, 0.5, perfect.shape), group, groups=group, rng=rng)
        accused += found.severity == "error"
    assert accused <= 2


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_knowing_the_noise_of_single_rows_is_found_also_for_a_tenth_of_them(share: float) -> None:
    w = World()
    seen = w.rng.random(len(w.truth)) < share
    memory = w.fitted_outside(w.fold)
    memory[seen] = 0.5 * memory[seen] + 0.5 * w.truth[seen]
    ids = np.array([f"s{i}" for i in range(len(w.truth))])
    found = replicate_noise(memory, w.truth, w.control, conditions=w.group, rng=w.rng, sample_ids=ids)
    assert found.severity == "error"
    assert found.numbers["extreme_pairs"] >= 5
    accused = {int(s[1:]) for pair in found.examples for s in pair.split(" / ")}
    assert all(seen[i] or seen[i ^ 1] for i in accused)


def test_controls_are_an_input_and_no_leak() -> None:
    """Truth follows its control and so does the prediction: replicates differ alike, but the controls explain it."""
    w = World()
    truth = w.truth + 0.8 * w.control
    prediction = 9 + 0.8 * w.control
    assert replicate_noise(prediction, truth, w.control, conditions=w.group, rng=w.rng).severity == "note"


@pytest.mark.parametrize("named", [True, False])
def test_plates_that_a_control_names_are_no_leak(named: bool) -> None:
    """Replicates on two plates with effects on all genes; the model knows the plate by its mean control."""
    w = World()
    plate = np.array([0, 1] * 100)
    effect, level = w.rng.normal(0, 0.5, (2, N_GENES)), w.rng.normal(8, 1, (2, N_GENES))
    truth, prediction = w.truth + effect[plate], w.fitted_outside(w.fold) - 0.5 * w.control + effect[plate]
    batches = plate if named else None
    assert (
        replicate_noise(prediction, truth, level[plate], conditions=w.group, rng=w.rng, batches=batches).severity
        == "note"
    )
    memory = 0.8 * prediction + 0.2 * truth
    assert (
        replicate_noise(memory, truth, level[plate], conditions=w.group, rng=w.rng, batches=batches).severity == "error"
    )


@pytest.mark.parametrize("named", [True, False])
def test_replicates_on_plates_of_different_compounds_are_no_leak(named: bool) -> None:
    """Issue 16, A5: the mean of a plate holds the mean effect of its compounds, which an honest model predicts. With it
    taken out of truth and prediction 20 of 20 honest models were accused."""
    accused = {"honest": 0, "memory": 0}
    for seed in range(20):
        w = World(seed, 60)
        of_drug = w.rng.permutation(np.arange(60) % 6)  # first replicates by six plates, second by another six
        second = 6 + w.rng.permutation(np.arange(60) % 6)
        plate = np.stack([of_drug, second], axis=1).ravel()
        effect = w.rng.normal(0, 0.3, (12, N_GENES))[plate]
        truth, honest = w.truth + effect, w.fitted_outside(w.fold) - 0.5 * w.control + effect
        control = w.rng.normal(8, 1, (12, N_GENES))[plate]  # the mean of a plate names the plate
        for name, p in {"honest": honest, "memory": 0.7 * honest + 0.3 * truth}.items():
            found = replicate_noise(p, truth, control, conditions=w.group, rng=w.rng, batches=plate if named else None)
            accused[name] += found.severity == "error"
    assert accused["honest"] == 0 and accused["memory"] >= 18


def test_batch_effects_are_those_of_a_regression_with_a_level_for_every_condition() -> None:
    rng = np.random.default_rng(3)
    condition, batch = np.repeat(np.arange(30), 2), rng.integers(0, 4, 60).astype(str)
    truth = rng.normal(size=(30, 5))[condition] + rng.normal(size=(4, 5))[batch.astype(int)]
    rows = truth + 0.1 * rng.normal(size=truth.shape)
    got = batch_effects(rows, condition, batch)
    dummies = np.hstack([np.eye(30)[condition], np.eye(4)[batch.astype(int)]])
    fitted = dummies @ np.linalg.lstsq(dummies, rows, rcond=None)[0]
    for a in range(60):
        for b in range(60):
            if condition[a] == condition[b]:  # only differences between batches are identified
                np.testing.assert_allclose(got[a] - got[b], fitted[a] - fitted[b], atol=1e-8)


def test_without_replicates_the_probes_say_they_could_not_run() -> None:
    w = World()
    names = np.arange(len(w.truth))
    assert too_good(w.truth, w.truth, names, groups=names, rng=w.rng).code == "too_good_not_applicable"
    assert (
        replicate_noise(w.truth, w.truth, w.control, conditions=names, rng=w.rng).code
        == "replicate_noise_not_applicable"
    )
    same = np.repeat(w.truth[::2], 2, axis=0)
    assert (
        replicate_noise(same, w.truth, w.control, conditions=w.group, rng=w.rng).code
        == "replicate_noise_not_applicable"
    )


@pytest.mark.parametrize("fitted", ["all rows", "other folds"])
def test_predictions_without_the_mark_of_the_claimed_folds(fitted: str) -> None:
    missing, matched = 0, 0
    for seed in range(10):
        w = World(seed)
        code = np.repeat(np.arange(100), 2)
        other = w.rng.permutation(np.arange(100) % N_FOLDS)[code]
        p = w.ridge(np.ones(len(code), dtype=bool)) if fitted == "all rows" else w.fitted_outside(other)
        found = fold_fingerprint(p, w.truth, w.fold, groups=w.group, rng=w.rng)
        assert found.severity == "note"  # honest flexible models lack it as well: it accuses nobody
        missing += found.code == "fold_fingerprint_missing"
        if fitted == "other folds":
            matched += fold_fingerprint(p, w.truth, other, groups=w.group, rng=w.rng).code == "fold_fingerprint_found"
    assert missing >= 7
    assert matched >= 7 or fitted == "all rows"


def test_the_fingerprint_equals_a_plain_loop() -> None:
    """Statistic of the claimed folds and of every shuffle, from fold means gene by gene; z and p from these."""
    w = World(3, 20)
    p, lines = w.fitted_outside(w.fold), np.array(["a", "b"] * 20)
    found = fold_fingerprint(
        p, w.truth, w.fold, groups=w.group, rng=np.random.default_rng(4), cell_lines=lines, permutations=50
    )
    rng = np.random.default_rng(4)
    names = np.unique(w.group)
    of_group = np.array([w.fold[w.group == g][0] for g in names])
    values = []
    for shuffle in [of_group, *(rng.permutation(of_group) for _ in range(50))]:
        fold, total = shuffle[np.searchsorted(names, w.group)], 0.0
        for line in ("a", "b"):
            for k in range(N_FOLDS):
                rows = (lines == line) & (fold == k)
                if rows.any():
                    a = p[rows].mean(axis=0) - p[lines == line].mean(axis=0)
                    b = w.truth[rows].mean(axis=0) - w.truth[lines == line].mean(axis=0)
                    total += rows.sum() * float(a @ b)
        values.append(total)
    rest = np.array(values[1:])
    assert found.numbers["z"] == pytest.approx((values[0] - rest.mean()) / rest.std(), rel=1e-6)
    assert found.numbers["p"] == (1 + (rest <= values[0]).sum()) / 51


def test_fingerprints_need_whole_groups_and_enough_of_them() -> None:
    w = World()
    with pytest.raises(InputError, match="several folds"):
        fold_fingerprint(w.truth, w.truth, np.arange(len(w.fold)) % 3, groups=w.group, rng=w.rng)
    few = slice(0, 10)
    code = fold_fingerprint(w.truth[few], w.truth[few], w.fold[few], groups=w.group[few], rng=w.rng).code
    assert code == "fold_fingerprint_not_applicable"


def test_errors_on_claimed_rows_against_errors_on_seen_rows() -> None:
    w = World()
    noise = np.abs(w.rng.normal(0, 0.02, len(w.group)))
    fit, base = 0.1 + noise, np.full(len(w.group), 1.0)
    equal = oof_against_fit(fit, fit, base, groups=w.group, rng=w.rng)
    assert (equal.severity, equal.code) == ("error", "oof_equals_fit")
    close = oof_against_fit(fit + 0.02, fit, base, groups=w.group, rng=w.rng)
    assert (close.severity, close.code) == ("warning", "oof_like_fit")
    assert close.numbers["share"] == pytest.approx(0.02 / (1 - fit.mean()), rel=1e-6)
    honest = oof_against_fit(fit + 0.5, fit, base, groups=w.group, rng=w.rng)
    assert honest.severity == "note"
    plain = oof_against_fit(base + noise, base - noise + noise[::-1], base, groups=w.group, rng=w.rng)
    assert plain.code == "oof_against_fit_not_applicable"


def stacker(w: World, in_sample: bool) -> Callable[[Array], float]:
    """Least squares per gene over eight useless predictions; gain over the mean, out of fold or not."""
    predictions = w.rng.normal(size=(8, *w.truth.shape))

    def gain(order: Array) -> float:
        y, total = w.truth[order], 0.0
        for k in range(N_FOLDS):
            rows, out = (w.fold != k), w.fold == k
            learn = np.ones(len(rows), dtype=bool) if in_sample else rows
            level = y[rows].mean(axis=0)
            for gene in range(0, N_GENES, 8):
                a = predictions[:, learn, gene].T
                weight = np.linalg.lstsq(a, (y[learn] - level)[:, gene], rcond=None)[0]
                t = (y[out] - level)[:, gene]
                total += float((t**2).sum() - ((t - predictions[:, out, gene].T @ weight) ** 2).sum())
        return total / len(order)

    return gain


def test_a_gain_that_survives_exchanged_truths_is_a_leak() -> None:
    w = World()
    lines = np.array(["a", "b"] * 100)
    leak = permuted_truth(stacker(w, True), lines, rng=w.rng, permutations=8)
    assert (leak.severity, leak.code) == ("error", "gain_survives_permutation")
    honest = permuted_truth(stacker(w, False), lines, rng=w.rng, permutations=8)
    assert honest.code == "permuted_truth_passed"
    assert honest.numbers["permuted_gain"] <= 0


def test_truths_are_exchanged_within_strata_only() -> None:
    lines, orders = np.array(["a", "b", "a", "b", "b", "a"]), []
    permuted_truth(lambda order: orders.append(order) or 0.0, lines, rng=np.random.default_rng(0), permutations=6)  # type: ignore[func-returns-value]
    assert len(orders) == 7
    assert all((lines[order] == lines).all() and sorted(order) == list(range(6)) for order in orders)


@pytest.mark.parametrize("layer", ["control", "paired_control"])
@pytest.mark.parametrize("share", [0.0, 0.1])
def test_a_real_plate_with_an_honest_and_a_leaking_model(layer: str, share: float) -> None:
    """HT115, compounds held out: kernel ridge on fingerprint and control, honest or with a tenth of the rows seen.

    Its controls nearly tell its plates: without these the answer is the right one, or that it cannot be asked.
    """
    chem = pytest.importorskip("rdkit.Chem")
    generator = pytest.importorskip("rdkit.Chem.rdFingerprintGenerator").GetMorganGenerator(radius=2, fpSize=512)
    import anndata

    data = anndata.read_h5ad(real_data("l1000_single_line/ht115_cpc006.h5ad"))
    obs = data.obs.astype({"perturbation": object, "smiles": object})
    y, c = np.asarray(data.X, dtype=float), np.asarray(data.layers[layer], dtype=float)
    bits = {s: generator.GetFingerprintAsNumPy(chem.MolFromSmiles(s)) for s in obs["smiles"].unique()}
    x = np.hstack([np.array([bits[s] for s in obs["smiles"]], dtype=float), 0.5 * (c - c.mean(axis=0))])
    size = (x**2).sum(axis=1)
    kernel = np.exp(-(size[:, None] + size - 2 * x @ x.T) / 60)
    fold = FoldPlan.make(obs, "perturbation", test_share=0).table["fold"].to_numpy(int)
    rng, predictions = np.random.default_rng(0), np.empty_like(y)
    for k in range(N_FOLDS):
        rows = np.flatnonzero((fold != k) | (rng.random(len(y)) < share))
        delta = y[rows] - c[rows]
        level = delta.mean(axis=0)
        weight = np.linalg.solve(kernel[np.ix_(rows, rows)] + 0.3 * np.eye(len(rows)), delta - level)
        predictions[fold == k] = (c + level + kernel[:, rows] @ weight)[fold == k]
    condition = obs["pert_id"].astype(str) + "|" + obs["dose"].astype(str)
    plate, condition = obs["plate"].astype(str).to_numpy(), condition.to_numpy()
    found = replicate_noise(predictions, y, c, conditions=condition, batches=plate, rng=rng)
    right = "replicate_noise_passed" if share == 0 else "knows_replicate_noise"
    assert found.code == right
    for seed in range(6):
        unnamed = replicate_noise(predictions, y, c, conditions=condition, rng=np.random.default_rng(seed))
        assert unnamed.code == right or unnamed.numbers.get(PLATES_TOLD), seed
    if share == 0:
        mark = fold_fingerprint(predictions, y, fold, groups=obs["perturbation"].to_numpy(), rng=rng)
        assert mark.code == "fold_fingerprint_found"
