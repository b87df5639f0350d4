"""A study whose values are stored in 16 bits: half of the disk, and the same answers to about a thousandth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest

import pertstack as ps
from pertstack._base.errors import UnknownNameError
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.study import laid_out

MODELS = {"near": 0.3, "far": 0.6, "middle": 0.45}


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[int, ps.Study]:
    """The same data and predictions in 32 and in 16 bits, judged."""
    home = tmp_path_factory.mktemp("precision")
    rng = np.random.default_rng(5)
    n, genes = 240, 80
    drug, line = np.arange(n) % 40, np.arange(n) % 2
    base = rng.normal(6, 2, (2, genes)).astype(np.float32)
    wells = base[:, None] + rng.normal(0, 0.2, (2, 6, genes)).astype(np.float32)
    effect = (rng.normal(0, 1, (40, 4)) @ rng.normal(0, 0.5, (4, genes)))[drug].astype(np.float32)
    well = rng.integers(0, 6, n)
    control = wells[line, well]
    treated = base[line] + effect + rng.normal(0, 0.3, (n, genes)).astype(np.float32)
    data = anndata.AnnData(treated.astype(np.float32), layers={"control": control})
    data.obs_names, data.var_names = [f"s{i}" for i in range(n)], [f"g{i}" for i in range(genes)]
    data.obs["perturbation"] = [f"drug{d}" for d in drug]
    data.obs["cell_line"] = [f"line{v}" for v in line]
    data.obs["control_id"] = [f"well{v}_{w}" for v, w in zip(line, well, strict=True)]
    data.write_h5ad(home / "data.h5ad")
    made = {}
    for bits in (32, 16):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(laid_out, "POUR_BYTES", 100_000)  # several pieces, whose spreads are merged
            study = made[bits] = ps.Study.create(home / str(bits), data=home / "data.h5ad", precision=bits)
        for name, error in MODELS.items():
            noise = np.random.default_rng(len(name)).normal(0, error, (40, genes))[drug]
            predicted = (control + 0.8 * effect + noise).astype(np.float32)
            if name == "near":
                predicted[drug == 7] = control[drug == 7]  # nothing predicted: no correlation is defined
            study.add(name, data_like(data, predicted), fitted_on="plan", scale="treated")
        study.stack()
        study.verdict()
    return made


def data_like(data: anndata.AnnData, values: Any) -> anndata.AnnData:
    return anndata.AnnData(values, obs=data.obs[[]], var=data.var)


def test_every_metric_of_every_row_is_the_same_to_a_thousandth_or_so(studies: dict[int, ps.Study]) -> None:
    compared = 0
    for part in ("oof_scores.npz", "test_scores.npz"):
        one, other = (ScoreTable.load(study.folder.path("results", part)) for study in studies.values())
        assert one.names == other.names and one.metrics == other.metrics
        for m, metric in enumerate(one.metrics):
            a, b = one.values_by_name[:, m], other.values_by_name[:, m]
            np.testing.assert_array_equal(np.isnan(a), np.isnan(b), err_msg=metric)
            for name, before, after in zip(one.names, a, b, strict=True):
                known = np.isfinite(before)
                if known.any():
                    assert abs(before[known].mean() - after[known].mean()) < 0.005, (name, metric)
            off = np.abs(a - b)[np.isfinite(a)]  # a gene that nearly ties may leave the top 20 of a sample
            assert (off < 0.005).mean() > 0.9, metric
            compared += 1
    assert compared > 60


def test_weights_are_the_same_to_a_few_thousandths(studies: dict[int, ps.Study]) -> None:
    one, other = (np.load(study.folder.path("results", "weights.npz")) for study in studies.values())
    names = [name for name in one.files if not name.startswith("state/")]  # those are named by their content
    assert names == [name for name in other.files if not name.startswith("state/")] and len(names) > 40
    for name in [name for name in names if one[name].dtype.kind == "f"]:
        np.testing.assert_allclose(other[name], one[name], atol=0.01, err_msg=name)


def test_the_store_is_half_as_large_and_says_so(studies: dict[int, ps.Study]) -> None:
    sizes = {}
    for bits, study in studies.items():
        store = study.predictions
        sizes[bits] = sum(record.n_bytes for record in store.records())
    assert 0.49 < sizes[16] / sizes[32] < 0.51
    assert "stored_in_16_bits" in [f.code for f in studies[16].findings()]
    assert "stored_in_16_bits" not in [f.code for f in studies[32].findings()]
    assert not [f for f in studies[16].audit(deep=True) if f.severity == "error"]


def test_steps_are_a_512th_of_the_spread_of_treated_development_rows_within_lines(studies: dict[int, ps.Study]) -> None:
    store = studies[32].predictions
    rows: dict[str, list[np.ndarray]] = {}
    for block in store.blocks():
        if block.role != "test":
            rows.setdefault(block.cell_line, []).append(store.read(block, "treated").astype(np.float64))
    lines = [np.vstack(parts) for parts in rows.values()]
    assert len(lines) == 2 and sum(map(len, lines)) < 240
    squares = sum(((line - line.mean(axis=0)) ** 2).sum(axis=0) for line in lines)
    spread = np.sqrt(squares / sum(map(len, lines)))
    for block in studies[16].predictions.blocks():
        rounding = studies[16].predictions.rounding(block, "control")
        assert rounding is not None
        np.testing.assert_allclose(rounding.step, spread / 512, rtol=1e-6)


def test_controls_that_samples_share_stay_the_same_rows(studies: dict[int, ps.Study]) -> None:
    store = studies[16].predictions
    wells: dict[str, set[bytes]] = {}
    for block in store.blocks():
        for well, row in zip(store.obs(block)["control_id"], store.read(block, "control"), strict=True):
            wells.setdefault(str(well), set()).add(row.tobytes())
    assert len(wells) == 12 and all(len(rows) == 1 for rows in wells.values())


def test_other_numbers_of_bits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="precision '8'"):
        ps.Study.create(tmp_path / "s", data=tmp_path / "none.h5ad", precision=8)
