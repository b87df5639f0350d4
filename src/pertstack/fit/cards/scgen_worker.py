"""Runs the published scgen on an exchange folder; executed by its own interpreter, never imported by pertstack.

Control and treated fit rows are its two conditions, cell lines its cell types (which scgen uses to balance them only,
so a new line may bear any known name). One latent shift moves every new control; the perturbation is not looked at.
Values go in as they are and come back in the same scale (no library-size normalisation).
"""

# mypy: ignore-errors
# (its imports exist in its own environment only)

from __future__ import annotations

import json
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scgen
import torch


def _stack(values, condition, lines):
    """An AnnData with one condition per row, as scgen wants it."""
    obs = pd.DataFrame(
        {"condition": pd.Categorical(condition), "cell_type": pd.Categorical(np.asarray(lines, dtype=str))},
        index=[f"r{i}" for i in range(len(values))],
    )
    return anndata.AnnData(np.asarray(values, dtype=np.float32), obs=obs)


def main(folder):
    task = json.loads((folder / "task.json").read_text())
    p = task["params"]
    torch.manual_seed(task["seed"])
    np.random.seed(task["seed"] % 2**32)
    fit, new = anndata.read_h5ad(folder / "fit.h5ad"), anndata.read_h5ad(folder / "predict.h5ad")
    both = np.concatenate([np.asarray(fit.layers["control"]), np.asarray(fit.X)])
    mean, sd = both.mean(axis=0), both.std(axis=0) + 1e-6
    condition = np.repeat(["control", "treated"], fit.n_obs)
    rows = _stack((both - mean) / sd, condition, np.tile(fit.obs["cell_line"].astype(str), 2))
    scgen.SCGEN.setup_anndata(rows, batch_key="condition", labels_key="cell_type")
    model = scgen.SCGEN(rows, n_hidden=p["n_hidden"], n_latent=p["n_latent"], n_layers=p["n_layers"])
    model.train(
        max_epochs=p["max_epochs"],
        batch_size=p["batch_size"],
        early_stopping=True,
        early_stopping_patience=p["patience"],
        use_gpu=False,
    )
    known = sorted(set(rows.obs["cell_type"]))
    lines = [line if line in known else known[0] for line in new.obs["cell_line"].astype(str)]
    controls = _stack((np.asarray(new.layers["control"]) - mean) / sd, np.full(new.n_obs, "control"), lines)
    predicted, _ = model.predict(ctrl_key="control", stim_key="treated", adata_to_predict=controls)
    codes, out = model.get_latent_representation(controls), np.asarray(predicted.X) * sd + mean
    np.savez(
        folder / "predictions.npz",
        predictions=out.astype(np.float32),
        embedding=codes.astype(np.float32),
        sample_ids=np.array(list(new.obs_names), dtype=str),
        gene_names=np.array(list(new.var_names), dtype=str),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
