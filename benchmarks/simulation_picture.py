"""The picture a simulated study gives: the numbers of docs/simulation.md.

    python benchmarks/simulation_picture.py [--pairing random] [--seeds 3]

Plain numpy, independent of the package's own metrics: perturbations are split in three folds, simple predictors are
fitted on two of them and scored on the third.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from pertstack.data import SimulationConfig, simulate
from pertstack.data.side.structures import morgan_features


def top_r2(truth: np.ndarray, predicted: np.ndarray, k: int = 20) -> float:
    """Mean over samples of squared Pearson r on the k genes of largest |truth|; constant sides are left out."""
    top = np.argsort(-np.abs(truth), axis=1, kind="stable")[:, :k]
    return mean_defined(row_r(np.take_along_axis(truth, top, 1), np.take_along_axis(predicted, top, 1)) ** 2)


def mean_defined(values: np.ndarray) -> float:
    """Mean over defined values, 0 where none is."""
    return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else 0.0


def row_r(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson r of rows, NaN where one side is constant."""
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    length = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.divide((a * b).sum(1), length, out=np.full(len(a), np.nan), where=length > 1e-9)


def replicate_correlation(delta: np.ndarray, key: np.ndarray) -> tuple[float, float]:
    """Median correlation of deltas between two samples of one condition, and of two samples of different ones."""
    order = np.argsort(key, kind="stable")
    same = order[:-1][key[order[:-1]] == key[order[1:]]]
    partner = order[1:][key[order[:-1]] == key[order[1:]]]
    rng = np.random.default_rng(0)
    other = rng.permutation(len(delta))
    return float(np.median(row_r(delta[same], delta[partner]))), float(np.median(row_r(delta, delta[other])))


def predictions(control, treated, lines, features, fold) -> dict[str, np.ndarray]:
    """Out-of-fold treated predictions of simple models."""
    n, g = treated.shape
    names = ("no change", "mean shift", "mean treated", "ridge on fingerprints", "ridge per line", "centroid")
    out = {name: np.zeros((n, g)) for name in names}
    for f in np.unique(fold):
        fit, held = fold != f, fold == f
        for line in np.unique(lines):
            a, b = fit & (lines == line), held & (lines == line)
            centroid, mean_control = treated[a].mean(0), control[a].mean(0)
            out["no change"][b] = control[b]
            out["mean shift"][b] = control[b] + centroid - mean_control
            out["mean treated"][b] = centroid
            out["ridge per line"][b] = centroid + ridge(features[a], treated[a] - centroid, features[b], 100.0)
            out["centroid"][b] = centroid
        centroid = {line: treated[fit & (lines == line)].mean(0) for line in np.unique(lines)}
        base = np.stack([centroid[line] for line in lines])
        learned = ridge(features[fit], (treated - base)[fit], features[held], 100.0)
        out["ridge on fingerprints"][held] = base[held] + learned
    return out


def ridge(x: np.ndarray, y: np.ndarray, new: np.ndarray, penalty: float) -> np.ndarray:
    """Kernel form of ridge regression with an intercept."""
    mean = x.mean(0)
    kernel = (x - mean) @ (x - mean).T
    dual = np.linalg.solve(kernel + penalty * np.eye(len(x)), y - y.mean(0))
    return (new - mean) @ (x - mean).T @ dual + y.mean(0)


def picture(config: SimulationConfig) -> dict[str, dict[str, float]]:
    """Scores of simple predictors and of the truth itself."""
    data = simulate(config)
    obs, treated, control = data.obs, np.asarray(data.X, np.float64), np.asarray(data.layers["control"], np.float64)
    lines, perts = obs["cell_line"].to_numpy(str), obs["perturbation"].to_numpy(str)
    effect = np.asarray(data.layers["effect"], np.float64)
    smiles = dict(zip(perts, obs["smiles"], strict=True))
    table, _ = morgan_features(smiles)
    features = table.rows(perts)[0].astype(np.float64)
    names = np.unique(perts)
    fold = np.random.default_rng(config.seed).integers(0, 3, len(names))[np.searchsorted(names, perts)]
    every = predictions(control, treated, lines, features, fold)
    pooled = np.stack([{line: control[lines == line].mean(0) for line in np.unique(lines)}[line] for line in lines])
    centroid = every.pop("centroid")  # of the fit rows only
    every["true effect on the true basal profile"] = pooled + effect
    rows = {}
    for name, p in every.items():
        rows[name] = {
            "own R2 Top-20": top_r2(treated - control, p - control),
            "pooled R2 Top-20": top_r2(treated - pooled, p - pooled),
            "own Pearson": mean_defined(row_r(treated - control, p - control)),
            "centroid Pearson": float(np.nan_to_num(row_r(treated - centroid, p - centroid)).mean()),
            "r with true effect": float(np.nan_to_num(row_r(effect, p - pooled)).mean()),
            "RMSE": float(np.sqrt(((treated - p) ** 2).mean())),
        }
    key = obs.groupby(["perturbation", "cell_line", "dose", "time_h"], observed=True).ngroup().to_numpy()
    same, other = replicate_correlation(treated - control, key)
    same_pooled, other_pooled = replicate_correlation(treated - pooled, key)
    rows["replicates"] = {
        "same condition": same,
        "other condition": other,
        "same, pooled control": same_pooled,
        "other, pooled control": other_pooled,
    }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairing", default="random")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], help="more choices, such as well_sd=0.4")
    args = parser.parse_args()
    more = {k: json.loads(v) for k, v in (s.split("=") for s in args.set)}
    tables = [picture(SimulationConfig(pairing=args.pairing, seed=s, **more)) for s in range(args.seeds)]
    for name, row in tables[0].items():
        print(f"{name:42s}" + "  ".join(f"{k} {np.mean([t[name][k] for t in tables]):.3f}" for k in row))


if __name__ == "__main__":
    main()
