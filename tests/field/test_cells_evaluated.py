"""A file of all measured cells and files of predicted cells of the test: ranked in one command, on the test alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import pertstack as ps
from references import cell_worlds as worlds

KEY = ["target_gene", "cell_line", "gem_group"]


@pytest.mark.slow
def test_predicted_counts_of_the_test_against_the_cells_of_the_whole_screen(tmp_path, monkeypatch):
    """Root mean squared error of every sample against plain pandas: sums of counts on both sides."""
    monkeypatch.setattr(worlds, "TARGETS", worlds.GENES[:16])
    obs = worlds.design(worlds.TARGETS, lines=("K562", "RPE1"), n=10)
    x = worlds.counts_of(obs, "target_gene", "cell_line")
    worlds.write(tmp_path / "cells.h5ad", obs, x)
    test = obs["target_gene"].isin(worlds.TARGETS[10:]).to_numpy()
    asked = obs[test][["target_gene", "cell_line"]].set_axis([str(i) for i in range(test.sum())])
    rng = np.random.default_rng(0)
    predicted = {name: rng.poisson(x[test] * a + x.mean(axis=0) * (1 - a)) for name, a in (("near", 0.8), ("far", 0.2))}
    for name, counts in predicted.items():
        worlds.write(tmp_path / f"{name}.h5ad", asked, counts.astype(np.float32))
    found = ps.evaluate(tmp_path / "cells.h5ad", {n: tmp_path / f"{n}.h5ad" for n in predicted})
    said = {f.code: f.message for f in found.findings}
    assert "Scored on the 24 of 64 samples" in said["samples_common"]
    truth = worlds.pseudobulk_of(x, obs, KEY)
    samples = found.scores.samples["sample_id"]
    for name, counts in predicted.items():
        pairs = worlds.pseudobulk_of(counts, asked, KEY[:2])
        own = pairs.loc[[s.rsplit("|", 1)[0] for s in samples]].to_numpy()
        expected = np.sqrt(((own - truth.loc[list(samples)].to_numpy()) ** 2).mean(axis=1))
        np.testing.assert_allclose(found.scores.values(name, "rmse_all@own"), expected, rtol=1e-4)
    board = found.leaderboard.to_frame(form="wide")
    assert board.loc["near", "rmse_all@own"] < board.loc["far", "rmse_all@own"]
    found.save(tmp_path / "evaluation")  # findings with numbers that are not finite are written as null
    assert pd.read_json(tmp_path / "evaluation" / "findings.json").shape[0] > 0
