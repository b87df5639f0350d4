"""How often do the probes accuse honest models, and how often do they find those that saw what they are judged on?

Worlds are small screens: 8 to 180 perturbations, two to four replicates, folds by perturbation; without plates, or with
replicates together on a plate or apart on plates of different perturbations, plates named or to be read off the control
only. Nine kinds of model, stiff and flexible, are fitted outside each fold (honest) or with a share of the fold's rows
too (10, 50, 100 %); a tenth kind fails to train in two fits of five. Everything goes the road of a study:
``probe_model`` on sampled rows, and ``oof_against_fit``.
Seeds are fixed here; every world is looked at once. ``--look``: the probes of the test after a look, on worlds 420 on:
a quarter of the perturbations is the test, final fits predict it (honest) or saw a share of its rows too.

    OMP_NUM_THREADS=1 nice -n 15 python benchmarks/probe_false_alarms.py
    OMP_NUM_THREADS=1 nice -n 15 python benchmarks/probe_false_alarms.py --look --first 420
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.neural_network import MLPRegressor

from pertstack.predictions.sources.array_source import ArraySource
from pertstack.reduce.references import References
from pertstack.reduce.scoring.score import score
from pertstack.study.audit.probes import probe_model
from pertstack.verdict.probes.of_folds import oof_against_fit
from pertstack.verdict.probes.of_test import ERROR, as_out_of_fold, jump
from pertstack.verdict.probes.rows import sample_rows

Array = np.ndarray[Any, Any]
SEED, N_GENES, N_FEATURES, N_FOLDS = 20261126, 60, 15, 3
SIZES = (8, 12, 24, 60, 120, 180)
DESIGNS = ("no plates", "together", "apart", "apart, named by control", "apart, own wells")
FAILS = 0.4
SHARES = (0.0, 0.1, 0.5, 1.0)
PROBES = ("too_good", "replicate_noise", "oof_against_fit", "fold_fingerprint")
AFTER = ("too_good", "replicate_noise", "noise_floor", "jump", "jump, one other")


class World:
    """A screen with its fold plan; ``x`` what a model may know: features of perturbations, controls, plates."""

    def __init__(self, number: int) -> None:
        rng = self.rng = np.random.default_rng([SEED, number])
        self.size, self.design = SIZES[number % len(SIZES)], DESIGNS[number // len(SIZES) % len(DESIGNS)]
        replicates = int(rng.integers(2, 5)) if self.size < 60 else 2
        drug = np.repeat(np.arange(self.size), replicates)
        features = rng.normal(size=(self.size, N_FEATURES))
        strength, noise = rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.6)
        seen = features @ rng.normal(size=(N_FEATURES, N_GENES)) / np.sqrt(N_FEATURES)
        effect = strength * (seen + rng.normal(size=(self.size, N_GENES))) + 0.4 * rng.normal(size=N_GENES)
        self.plate = self._plates(drug, replicates)
        n_plates = self.plate.max() + 1
        shift = rng.normal(0, 0.4, (n_plates, N_GENES)) * (self.design != "no plates")
        base = rng.normal(8, 1.5, N_GENES)
        well = noise * rng.normal(size=(len(drug), N_GENES))
        if self.design in ("together", "apart", "apart, named by control"):  # the control is the mean of a plate
            well = (noise / 3 * rng.normal(size=(n_plates, N_GENES)))[self.plate]
        self.control = base + shift[self.plate] + well
        self.treated = base + effect[drug] + shift[self.plate] + noise * rng.normal(size=(len(drug), N_GENES))
        self.drug, self.features = drug, features[drug]
        self.fold = rng.permutation(np.arange(self.size) % N_FOLDS)[drug]

    def _plates(self, drug: Array, replicates: int) -> Array:
        of_plate = max(4, self.size // 6)
        if self.design in ("no plates", "together"):
            return self.rng.permutation(np.arange(self.size) // of_plate)[drug]
        parts = [self.rng.permutation(np.arange(self.size) // of_plate) for _ in range(replicates)]
        n = parts[0].max() + 1
        return np.stack([part + i * n for i, part in enumerate(parts)], axis=1).ravel()

    def source(
        self, predictions: dict[str, Array], rows: Array | None = None, role: Any = "development"
    ) -> ArraySource:
        """All rows, or some of them with a role; the test has no folds."""
        at = np.arange(len(self.drug)) if rows is None else np.flatnonzero(rows)
        obs = (
            pd.DataFrame({"plate": [f"P{p}" for p in self.plate[at]]}) if self.design in ("together", "apart") else None
        )
        return ArraySource(
            {m: p[at].astype(np.float32) for m, p in predictions.items()},
            self.treated[at],
            self.control[at],
            folds=[None] * len(at) if role == "test" else self.fold[at],
            perturbation=[f"d{d}" for d in self.drug[at]],
            obs=obs,
            role=role,
        )


Fit = Callable[[World, Array], Array]


def features_of(w: World, control: float) -> Array:
    return np.hstack([w.features, control * (w.control - w.control.mean(axis=0))]) if control else w.features


def mean(w: World, rows: Array) -> Array:
    return np.repeat(w.treated[rows].mean(axis=0)[None], len(rows), axis=0)


def ridge(w: World, rows: Array, control: float = 0.0, penalty: float = 5.0) -> Array:
    x, level = features_of(w, control), w.treated[rows].mean(axis=0)
    a = x[rows] - x[rows].mean(axis=0)
    weight = np.linalg.solve(a.T @ a + penalty * np.eye(a.shape[1]), a.T @ (w.treated[rows] - level))
    return level + (x - x[rows].mean(axis=0)) @ weight


def kernel(w: World, rows: Array, control: float = 0.0) -> Array:
    x, y = features_of(w, control), w.treated[rows]
    size = (x**2).sum(axis=1)
    k = np.exp(-(size[:, None] + size - 2 * x @ x.T) / (2 * x.shape[1]))
    level = y.mean(axis=0)
    return level + k[:, rows] @ np.linalg.solve(k[np.ix_(rows, rows)] + 0.3 * np.eye(rows.sum()), y - level)


def nearest(w: World, rows: Array) -> Array:
    x, y = features_of(w, 0.3), w.treated[rows]
    distance = (x**2).sum(axis=1)[:, None] + (x[rows] ** 2).sum(axis=1) - 2 * x @ x[rows].T
    return 0.5 * y.mean(axis=0) + 0.5 * y[np.argmin(distance, axis=1)]


def trees(w: World, rows: Array) -> Array:
    x = features_of(w, 0.3)
    model = ExtraTreesRegressor(n_estimators=10, min_samples_leaf=2, max_features=0.3, random_state=0)
    return np.asarray(model.fit(x[rows], w.treated[rows]).predict(x))


def network(w: World, rows: Array) -> Array:
    x, level = features_of(w, 0.3), w.treated[rows].mean(axis=0)
    model = MLPRegressor(hidden_layer_sizes=(32,), max_iter=60, learning_rate_init=0.01, random_state=0, tol=0.0)
    return level + np.asarray(model.fit(x[rows], w.treated[rows] - level).predict(x))


def plate_reader(w: World, rows: Array) -> Array:
    """Ridge on features, and the mean residual of the plate over the rows it was fitted on."""
    out = ridge(w, rows)
    left = w.treated - out
    for p in np.unique(w.plate[rows]):
        out[w.plate == p] += (
            left[rows & (w.plate == p)].mean(axis=0)
            * (rows & (w.plate == p)).sum()
            / (1 + (rows & (w.plate == p)).sum())
        )
    return out


def unlucky(w: World, rows: Array) -> Array:
    """Ridge on features, but two fits of five fail and say next to nothing, as a network does that does not train."""
    fails = np.random.default_rng([SEED, len(w.drug), *np.flatnonzero(rows).tolist()]).random() < FAILS
    return mean(w, rows) * 0.1 + 0.9 * w.control if fails else ridge(w, rows)


MODELS: dict[str, Fit] = {
    "mean": mean,
    "ridge, features": ridge,
    "ridge, features and control": lambda w, r: ridge(w, r, 1.0, 20.0),
    "kernel ridge, features": kernel,
    "kernel ridge, features and control": lambda w, r: kernel(w, r, 0.3),
    "nearest neighbour": nearest,
    "extra trees": trees,
    "network": network,
    "ridge and plate": plate_reader,
    "ridge that fails at times": unlucky,
}


def claimed(w: World, fit: Fit, share: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Predictions claimed as out of fold, and the mean squared error of each row where it was fitted on."""
    out, error, times = np.empty_like(w.treated), np.zeros(len(w.drug)), np.zeros(len(w.drug))
    for k in range(N_FOLDS):
        rows = (w.fold != k) | (rng.random(len(w.drug)) < share)
        predicted = fit(w, rows)
        out[w.fold == k] = predicted[w.fold == k]
        error[rows] += ((predicted - w.treated) ** 2).mean(axis=1)[rows]
        times += rows
    return out, error / times


def probe(w: World, fit: Fit, share: float) -> dict[str, str]:
    """Code and severity of what every probe finds."""
    rng = np.random.default_rng([SEED, 7, int(100 * share), len(w.drug)])
    p, fit_error = claimed(w, fit, share, rng)
    source = w.source({"model": p})
    found = probe_model(source, sample_rows(source, rng), "model", seed=SEED)
    base = np.stack([w.treated[w.fold != k].mean(axis=0) for k in range(N_FOLDS)])[w.fold]
    errors = [((a - w.treated) ** 2).mean(axis=1) for a in (p, base)]
    found.append(oof_against_fit(errors[0], fit_error, errors[1], groups=w.drug.astype(str), rng=rng))
    names = ("too_good", "replicate_noise", "fold_fingerprint", "oof_against_fit")
    return {
        name: "n. a." if f.code.endswith("_not_applicable") else f"{f.severity}|{f.code}"
        for name, f in zip(names, found, strict=True)
    }


def look(w: World, share: float) -> dict[str, dict[str, str]]:
    """Model -> what every probe finds after a look, when the final fits saw a share of the test's rows.

    With a share above 0 each model cheats alone, beside others that are honest.
    """
    rng = np.random.default_rng([SEED, 11, int(100 * share), len(w.drug)])
    test = np.isin(w.drug, rng.permutation(w.size)[: max(2, w.size // 4)])
    honest = {name: _predicted(w, fit, test, np.zeros_like(test)) for name, fit in MODELS.items()}
    references = References.collect(w.source(honest, ~test))
    oof = score(w.source(honest, ~test), {}, references, metrics=[ERROR])
    found: dict[str, dict[str, str]] = {}
    for name, fit in MODELS.items():
        seen = test & (rng.random(len(test)) < share)
        mine = honest if not share else {**honest, name: _predicted(w, fit, test, seen)}
        source = w.source(mine, test, "test")
        table_ = score(source, {}, references.with_controls_of(source), metrics=[ERROR])
        probes = probe_model(source, sample_rows(source, rng), name, seed=SEED, claims_folds=False, floor=True)
        before = w.source({name: mine[name]}, ~test)
        told = probe_model(before, sample_rows(before, rng), name, seed=SEED)
        other = [m for m in mine if m != name][len(name) % (len(mine) - 1)]
        probes = [
            *(as_out_of_fold(f, told) for f in probes[:3]),
            jump(name, list(mine), oof, table_, rng=rng),
            jump(name, [name, other], oof, table_, rng=rng),
        ]
        found[name] = {
            probe: "n. a." if f.code.endswith("_not_applicable") else f"{f.severity}|{f.code}"
            for probe, f in zip(AFTER, probes, strict=True)
        }
    return found


def _predicted(w: World, fit: Fit, test: Array, seen: Array) -> Array:
    """Out of fold on development rows; on the test by a fit on these and on the rows ``seen``."""
    out = fit(w, ~test | seen)
    for k in range(N_FOLDS):
        out[~test & (w.fold == k)] = fit(w, ~test & (w.fold != k))[~test & (w.fold == k)]
    return out


def looks(first: int, worlds: int, honest_only: bool) -> None:
    """Tables of the probes after a look."""
    honest: dict[str, dict[str, Counter[str]]] = {}
    power: dict[str, dict[str, Counter[str]]] = {}
    for i in range(first, first + worlds):
        w = World(i)
        for share in SHARES if (i - first) % 3 == 0 and not honest_only else SHARES[:1]:
            for name, codes in look(w, share).items():
                keys = [(power, f"{name}, {share:.0%} seen")] if share else [(honest, name), (honest, "all")]
                for counts, key in keys:
                    for which, code in codes.items():
                        counts.setdefault(key, {p: Counter() for p in AFTER})[which][code] += 1
    print("After a look, honest models accused, of those that could be tested.")
    table("model", honest, AFTER)
    if honest_only:
        return
    print("\nModels whose final fit saw rows of the test, accused.")
    table("model", power, AFTER)


def cell(name: str, found: Counter[str]) -> str:
    total, missing = found.total(), found["n. a."]
    accused = sum(n for key, n in found.items() if key.startswith(("error", "warning")))
    if name == "fold_fingerprint":
        seen = found["note|fold_fingerprint_found"]
        return f"{seen / max(1, total - missing):.0%} seen"
    return f"{accused} of {total - missing}" + (f" ({missing} n. a.)" if missing else "")


def table(title: str, counts: dict[str, dict[str, Counter[str]]], probes: tuple[str, ...] = PROBES) -> None:
    print(f"\n| {title} | {' | '.join(probes)} |\n|---|{'---|' * len(probes)}")
    for name, found in counts.items():
        print(f"| {name} | {' | '.join(cell(p, found[p]) for p in probes)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=210, help="honest models; a third as many for power")
    parser.add_argument("--first", type=int, default=210, help="0 to 209 were looked at while the probes were mended")
    parser.add_argument("--design", choices=DESIGNS, help="only worlds of this design")
    parser.add_argument("--look", action="store_true", help="the probes of the test after a look")
    parser.add_argument("--honest", action="store_true", help="with --look: honest models alone, a third of the time")
    options = parser.parse_args()
    started = time.perf_counter()
    if options.look:
        looks(options.first, options.worlds, options.honest)
        print(f"\n{options.worlds} worlds from {options.first}, seed {SEED}, {time.perf_counter() - started:.0f} s.")
        return
    by: dict[str, dict[str, dict[str, Counter[str]]]] = {"model": {}, "design": {}, "perturbations": {}, "all": {}}
    power: dict[str, dict[str, Counter[str]]] = {}
    for i in range(options.first, options.first + options.worlds):
        w = World(i)
        if options.design not in (None, w.design):
            continue
        for name, fit in MODELS.items():
            found = probe(w, fit, 0.0)
            for kind, key in (("model", name), ("design", w.design), ("perturbations", str(w.size)), ("all", "all")):
                for which, code in found.items():
                    by[kind].setdefault(key, {p: Counter() for p in PROBES})[which][code] += 1
            for share in SHARES[1:] if (i - options.first) % 3 == 0 else ():
                for which, code in probe(w, fit, share).items():
                    power.setdefault(f"{name}, {share:.0%} seen", {p: Counter() for p in PROBES})[which][code] += 1
    print("Honest models accused (errors and warnings), of those that could be tested.")
    for kind, counts in by.items():
        table(kind, counts)
    print("\nModels that saw rows of their fold, accused.")
    table("model", power)
    print(f"\n{options.worlds} worlds from {options.first}, seed {SEED}, {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()
