"""PDGrapher's export, written with torch here and read without it."""

from __future__ import annotations

import sys
import types

import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError
from pertstack.data import build_side, open_data, validate
from pertstack.data.readers.pdgrapher import fold_table, read_splits, split_findings

torch = pytest.importorskip("torch")
N, G = 14, 6
GENES = [f"G{i}" for i in range(G)]


@pytest.fixture
def geometric(monkeypatch):
    """Stand-ins with the module names and the inner shape of torch_geometric's Data, so that the pickle names them."""
    data, storage = types.ModuleType("torch_geometric.data.data"), types.ModuleType("torch_geometric.data.storage")

    class GlobalStorage:
        def __init__(self, parent: object, mapping: dict) -> None:
            self._mapping, self._parent = mapping, parent

    class Data:
        def __init__(self, **mapping: object) -> None:
            self._store = GlobalStorage(self, mapping)

    for cls, module in ((Data, data), (GlobalStorage, storage)):
        cls.__module__, cls.__qualname__ = module.__name__, cls.__name__
        setattr(module, cls.__name__, cls)
    stand_ins = {
        "torch_geometric": types.ModuleType("torch_geometric"),
        "torch_geometric.data": types.ModuleType("torch_geometric.data"),
        data.__name__: data,
        storage.__name__: storage,
    }
    for name, module in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, module)
    return Data


@pytest.fixture
def export(tmp_path, geometric):
    rng = np.random.default_rng(0)
    wells = rng.random((4, G)).astype(np.float32)
    truth = {}
    for line in ("A549", "PC3"):
        treated = rng.random((N, G)).astype(np.float32)
        listed = []
        for i in range(N):
            hit = torch.zeros(G)
            hit[i % 3] = 1
            listed.append(
                geometric(
                    perturbagen_name=f"drug{i % 5}",
                    diseased=torch.tensor(wells[i % 4]),
                    treated=torch.tensor(treated[i]).unsqueeze(1),
                    intervention=hit,
                    mutations=torch.zeros(G),
                    gene_symbols=GENES,
                    num_nodes=G,
                )
            )
        torch.save(listed, tmp_path / f"data_backward_{line}.pt")
        truth[line] = (wells[np.arange(N) % 4], treated)
    return tmp_path, truth


def test_values_names_and_recovered_controls(export) -> None:
    folder, truth = export
    for module in [m for m in sys.modules if m.startswith("torch_geometric")]:
        del sys.modules[module]  # reading must not need it
    file = open_data(folder)
    control, treated = file.read(slice(None))
    np.testing.assert_array_equal(control, np.concatenate([truth[line][0] for line in ("A549", "PC3")]))
    np.testing.assert_array_equal(treated, np.concatenate([truth[line][1] for line in ("A549", "PC3")]))
    assert file.obs.index[0] == "A549_000000" and file.obs.index[-1] == f"PC3_{N - 1:06d}"
    assert file.gene_names.tolist() == GENES
    assert file.obs["perturbation"].iloc[7] == "drug2"
    ids = file.obs["control_id"].to_numpy()
    assert ids[0] == ids[4] == "A549:control00001" and ids[1] != ids[0] and ids[N] == "PC3:control00001"
    assert len(set(ids)) == 8


def test_what_the_export_lost_is_reported(export) -> None:
    folder, _ = export
    codes = {f.code for f in validate(open_data(folder / "data_backward_PC3.pt"))}
    assert {"dose_and_time_lost", "scaled_on_all_rows", "controls_in_turn", "replicates_present"} <= codes


def test_interventions_become_targets(export) -> None:
    file = open_data(export[0])
    side, _ = build_side(file.obs, file.gene_names, uns=file.uns)
    assert side.features["targets"].columns == ("G0", "G1", "G2")


def test_splits_keep_their_numbers_and_leaks_are_counted(export) -> None:
    folder, _ = export
    file = open_data(folder / "data_backward_A549.pt")
    parts = {
        "train_index_backward": np.arange(8),
        "val_index_backward": [8, 9],
        "test_index_backward": torch.arange(10, N),
        "train_index_forward": None,
    }
    torch.save({1: parts, 2: {k: [] for k in parts}}, folder / "splits.pt")
    table = read_splits(folder / "splits.pt", list(file.obs.index))
    assert list(table.columns) == ["split_1", "split_2"]
    assert table["split_1"].tolist() == ["train"] * 8 + ["val"] * 2 + ["test"] * 4
    assert table["split_2"].isna().all()
    finding = split_findings(file.obs, table)[0]
    assert finding.code == "replicates_split" and finding.count == 4
    torch.save({1: {**parts, "test_index_backward": [99]}}, folder / "splits.pt")
    with pytest.raises(InputError, match="position 99"):
        read_splits(folder / "splits.pt", list(file.obs.index))
    torch.save({1: {**parts, "test_index_backward": [0]}}, folder / "splits.pt")
    with pytest.raises(InputError, match="two parts"):
        read_splits(folder / "splits.pt", list(file.obs.index))


def test_splits_become_a_fold_table(export) -> None:
    ids = [f"s{i}" for i in range(4)]
    table = pd.DataFrame(
        {"split_1": ["test", "train", "test", "val"], "split_2": ["train", "test", "val", "test"]}, ids
    )
    folds = fold_table(table)
    assert folds["fold"].tolist() == [0, 1, 0, 1] and folds["sample_id"].tolist() == ids
    with pytest.raises(InputError, match="'s1'"):
        fold_table(table[["split_1"]])


def test_other_torch_files_are_no_export(tmp_path, geometric) -> None:
    torch.save({"a": 1}, tmp_path / "x.pt")
    with pytest.raises(InputError, match="no PDGrapher export"):
        open_data(tmp_path / "x.pt")
    torch.save([geometric(perturbagen_name="d")], tmp_path / "x.pt")
    with pytest.raises(InputError, match="'diseased'"):
        open_data(tmp_path / "x.pt")
