"""Runs the published State (arc-state) on an exchange folder; executed by its own interpreter, never imported here.

``state tx train`` learns from log-normalised cells of the fit rows and the control cells of their lines; perturbations
are given by their features (``perturbation_features_file``), so that those it has not seen have a vector too. Whole
perturbations of the fit rows are held back for early stopping. ``state tx infer`` then moves control cells of each line
to each perturbation asked for. What is written is the change of the mean cell, in the space of the study's profiles.
"""

# mypy: ignore-errors
# (its imports exist in its own environment only)

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import torch
from scipy import sparse

CONTROL = "control"
PER = {"cp10k": 1e4, "5e4": 5e4}


def logs_of(cells):
    """log1p of counts per 10,000 of each cell; logarithms of something else as they are."""
    x = sparse.csr_matrix(cells.X, dtype=np.float64)
    kind = cells.uns["values"]
    if kind == "log1p_counts":
        x.data = np.rint(np.expm1(x.data))
    if kind in ("counts", "log1p_counts"):
        depth = np.maximum(np.asarray(x.sum(axis=1)).ravel(), 1.0)
        x = sparse.diags(1e4 / depth) @ x
        x.data = np.log1p(x.data)
    return sparse.csr_matrix(x, dtype=np.float32)


def profile(logs, normalise):
    """Mean of log cells in the space of the study: as expression, brought to its depth, or as logarithms."""
    logs = np.asarray(logs, dtype=np.float64)
    if normalise not in PER:
        return logs.mean(axis=0)
    mean = np.expm1(logs).mean(axis=0)
    return np.log1p(PER[normalise] * mean / max(mean.sum(), 1e-9))


def features_of(fit, new):
    """Name of a perturbation -> its features, and codes that are safe in file names and settings."""
    table = {}
    for rows in (fit, new):
        for name, vector in zip(rows.obs["perturbation"].astype(str), np.asarray(rows.obsm["features"]), strict=True):
            table[name] = torch.as_tensor(vector, dtype=torch.float32)
    codes = {name: f"P{i}" for i, name in enumerate(sorted(table))}
    width = len(next(iter(table.values())))
    return codes, {CONTROL: torch.zeros(width), **{codes[n]: v for n, v in table.items()}}


def _held_back(names, share, seed):
    """Whole perturbations for early stopping."""
    names = sorted(set(names))
    n = min(max(1, round(share * len(names))), len(names) - 1)
    return set(np.random.default_rng(seed).choice(names, size=n, replace=False))


def _as_anndata(x, gene, line, batch, var):
    obs = pd.DataFrame({"gene": gene, "cell_type": line, "gem_group": batch}).astype("category")
    obs.index = [f"c{i}" for i in range(len(obs))]
    out = anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=list(var)))
    out.uns["log1p"] = {}
    return out


def _train(place, p, seed):
    """``state tx train``, with the width and depth of the card."""
    backbone = "model.kwargs.transformer_backbone_kwargs"
    words = [
        f"data.kwargs.toml_config_path={place / 'split.toml'}",
        f"data.kwargs.perturbation_features_file={place / 'features.pt'}",
        "data.kwargs.embed_key=null",
        "data.kwargs.output_space=all",
        "data.kwargs.pert_col=gene",
        f"data.kwargs.control_pert={CONTROL}",
        "data.kwargs.num_workers=0",
        "data.kwargs.pin_memory=false",
        "use_wandb=false",
        f"output_dir={place}",
        "name=run",
        "model=state",
        f"training.max_steps={p['max_steps']}",
        f"training.val_freq={p['val_freq']}",
        f"training.ckpt_every_n_steps={p['val_freq']}",
        f"training.batch_size={p['batch_size']}",
        f"training.lr={p['lr']}",
        f"training.train_seed={seed % 2**31}",
        f"model.kwargs.cell_set_len={p['cell_set_len']}",
        f"model.kwargs.hidden_dim={p['hidden_dim']}",
        f"{backbone}.intermediate_size={2 * p['hidden_dim']}",
        f"{backbone}.num_hidden_layers={p['n_layers']}",
        f"{backbone}.num_attention_heads={p['n_heads']}",
        f"{backbone}.num_key_value_heads={p['n_heads']}",
        f"{backbone}.head_dim={p['hidden_dim'] // p['n_heads']}",
    ]
    run(["train", *words], place)


def run(words, place):
    """A ``state tx`` command of this environment. Its checkpoint, written a moment ago in this folder, holds more than
    weights, which torch loads only when it is told so."""
    env = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    subprocess.run([sys.executable, "-m", "state", "tx", *words], cwd=place, check=True, env=env)


def main(folder):
    task = json.loads((folder / "task.json").read_text())
    p, seed = task["params"], task["seed"]
    cells, fit, new = (anndata.read_h5ad(folder / f"{n}.h5ad") for n in ("cells", "fit", "predict"))
    logs, genes = logs_of(cells), list(cells.var_names)
    codes, vectors = features_of(fit, new)
    control = cells.obs["is_control"].to_numpy(dtype=bool)
    lines = {name: f"L{i}" for i, name in enumerate(sorted(set(cells.obs["cell_line"].astype(str))))}
    line = np.array([lines[v] for v in cells.obs["cell_line"].astype(str)])
    named = cells.obs["perturbation"].astype(str)
    gene = np.array([CONTROL if c else codes[n] for n, c in zip(named, control, strict=True)])
    plate = cells.obs["plate"].astype(str).to_numpy() if "plate" in cells.obs else np.full(len(gene), "1")

    place = folder / "state"
    (place / "data").mkdir(parents=True)
    _as_anndata(logs, gene, line, plate, genes).write_h5ad(place / "data" / "fit.h5ad")
    torch.save(vectors, place / "features.pt")
    back = _held_back(gene[~control], p["validation_share"], seed)
    few = "".join(
        f'[fewshot."screen.{c}"]\nval = {json.dumps(sorted(back & set(gene[line == c])))}\ntest = []\n'
        for c in sorted(set(line))
        if back & set(gene[line == c])
    )
    head = f'[datasets]\nscreen = {json.dumps(str(place / "data"))}\n[training]\nscreen = "train"\n[zeroshot]\n'
    (place / "split.toml").write_text(head + few)
    _train(place, p, seed)

    wanted = sorted({(str(a), str(b)) for a, b in zip(new.obs["cell_line"], new.obs["perturbation"], strict=True)})
    rng, parts = np.random.default_rng(seed), []
    for name, perturbation in wanted:
        pool = np.flatnonzero(control & (line == lines[name]))
        parts += [(i, codes[perturbation], lines[name]) for i in rng.choice(pool, p["cells_per_target"])]
    parts += [(i, CONTROL, line[i]) for i in np.flatnonzero(control)]
    rows = np.array([i for i, _, _ in parts])
    asked = _as_anndata(logs[rows].toarray(), [g for _, g, _ in parts], [c for _, _, c in parts], plate[rows], genes)
    asked.write_h5ad(place / "asked.h5ad")
    checkpoints = place / "run" / "checkpoints"
    best = next(f for f in (checkpoints / "best.ckpt", checkpoints / "last.ckpt") if f.exists())
    run(
        [
            "infer",
            "--checkpoint",
            str(best),
            "--adata",
            str(place / "asked.h5ad"),
            "--pert-col",
            "gene",
            "--celltype-col",
            "cell_type",
            "--control-pert",
            CONTROL,
            "--model-dir",
            str(place / "run"),
            "--output",
            str(place / "answer.h5ad"),
            "--seed",
            str(seed % 2**31),
            "--quiet",
        ],
        place,
    )
    answer = anndata.read_h5ad(place / "answer.h5ad")
    x = answer.X.toarray() if sparse.issparse(answer.X) else np.asarray(answer.X)
    space, delta = str(cells.uns["normalise"]), {}
    for name, perturbation in wanted:
        mine = (answer.obs["cell_type"] == lines[name]).to_numpy()
        moved = profile(x[mine & (answer.obs["gene"] == codes[perturbation]).to_numpy()], space)
        start = profile(logs[control & (line == lines[name])].toarray(), space)
        delta[name, perturbation] = moved - start
    keys = zip(new.obs["cell_line"].astype(str), new.obs["perturbation"].astype(str), strict=True)
    np.savez(
        folder / "predictions.npz",
        predictions=np.stack([delta[k] for k in keys]).astype(np.float32),
        sample_ids=np.array(list(new.obs_names), dtype=str),
        gene_names=np.array(genes, dtype=str),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
