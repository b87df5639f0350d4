"""Runs the published biolord on an exchange folder; executed by its own interpreter, never imported by pertstack.

Rows are all controls, then the treated fit rows. Controls of rows to predict stay in training: they are inputs, and
biolord has no encoder, so a row it has not trained on has no code. Their treated profiles do not exist here. The
prediction of a row keeps the code of its control and replaces its drug-and-dose vector.
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
import torch
from biolord import Biolord


def read(path):
    """Control profiles, cell lines and drug-and-dose vectors of a file, and the file."""
    table = anndata.read_h5ad(path)
    drug = np.asarray(table.obsm["features"], dtype=np.float32)
    dose = (
        table.obs["log10_dose"].to_numpy(dtype=np.float32) if "log10_dose" in table.obs else np.full(len(drug), np.nan)
    )
    known = np.isfinite(dose)
    extra = [np.where(known, dose, 0), known, table.obs["features_known"].to_numpy(dtype=bool), np.ones(len(drug))]
    drug = np.concatenate([drug, np.stack(extra, axis=1).astype(np.float32)], axis=1)
    return table, np.asarray(table.layers["control"], dtype=np.float32), drug


def labels(table, task):
    """Whole groups of the fit rows for validation, the others for training."""
    rng = np.random.default_rng(task["seed"])
    groups = table.obs["group"].astype(str).to_numpy()
    names = np.unique(groups)
    n = min(max(1, round(task["params"]["validation_share"] * len(names))), len(names) - 1)
    chosen = rng.choice(names, size=max(n, 0), replace=False)
    held = np.isin(groups, chosen)
    if not held.any():
        held[rng.integers(len(held))] = True
    return np.where(held, "check", "learn")


def main(folder):
    task = json.loads((folder / "task.json").read_text())
    p = task["params"]
    torch.manual_seed(task["seed"])
    np.random.seed(task["seed"] % 2**32)
    fit, fit_control, fit_drug = read(folder / "fit.h5ad")
    new, new_control, new_drug = read(folder / "predict.h5ad")
    blank = np.zeros_like
    values = np.concatenate([fit_control, new_control, np.asarray(fit.X, dtype=np.float32)])
    mean, sd = values.mean(axis=0), values.std(axis=0) + 1e-6
    line = np.concatenate([fit.obs["cell_line"], new.obs["cell_line"], fit.obs["cell_line"]]).astype(str)
    drug = np.concatenate([blank(fit_drug), blank(new_drug), fit_drug])
    n_controls = len(fit_control) + len(new_control)
    split = np.concatenate([np.full(n_controls, "learn"), labels(fit, task)])
    obs = pd.DataFrame({"cell": pd.Categorical(line), "split": split}, index=[f"r{i}" for i in range(len(line))])
    rows = anndata.AnnData((values - mean) / sd, obs=obs, obsm={"drug": drug})

    Biolord.setup_anndata(rows, categorical_attributes_keys=["cell"], ordered_attributes_keys=["drug"])
    model = Biolord(
        adata=rows,
        n_latent=p["n_latent"],
        model_name="pertstack",
        split_key="split",
        train_split="learn",
        valid_split="check",
        test_split="nothing stands here",
        module_params={
            "decoder_width": p["decoder_width"],
            "decoder_depth": p["decoder_depth"],
            "attribute_nn_width": p["attribute_width"],
            "attribute_nn_depth": p["attribute_depth"],
            "n_latent_attribute_ordered": p["n_latent_attribute_ordered"],
            "reconstruction_penalty": p["reconstruction_penalty"],
            "unknown_attribute_penalty": p["unknown_attribute_penalty"],
            "unknown_attribute_noise_param": p["unknown_attribute_noise_param"],
            "gene_likelihood": "normal",
            "seed": task["seed"] % 2**31,
        },
    )
    model.train(
        max_epochs=p["max_epochs"],
        batch_size=p["batch_size"],
        accelerator="cpu",
        num_workers=0,
        early_stopping=True,
        early_stopping_patience=p["patience"],
        check_val_every_n_epoch=5,
        enable_checkpointing=False,
        enable_progress_bar=False,
        plan_kwargs={
            "latent_lr": p["latent_lr"],
            "latent_wd": p["latent_wd"],
            "decoder_lr": p["decoder_lr"],
            "attribute_nn_lr": p["attribute_lr"],
            "attribute_nn_wd": p["attribute_wd"],
        },
    )
    wanted = np.arange(len(fit_control), n_controls)
    dataset = model.get_dataset(rows[wanted].copy())
    dataset["drug"] = torch.as_tensor(new_drug, device=dataset["drug"].device, dtype=dataset["drug"].dtype)
    model.module.eval()
    with torch.no_grad():
        predicted, _ = model.module.get_expression(dataset)
    out = predicted.cpu().numpy() * sd + mean
    np.savez(
        folder / "predictions.npz",
        predictions=out.astype(np.float32),
        sample_ids=np.array(list(new.obs_names), dtype=str),
        gene_names=np.array(list(new.var_names), dtype=str),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
