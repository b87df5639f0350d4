"""PDGrapher's export, written with torch here and read without it."""

from __future__ import annotations

import shutil
import sys
import types

import numpy as np
import pytest

from pertstack._base.errors import InputError
from pertstack.data import build_side, open_data, validate
from pertstack.design.plan.foreign import read_split

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


def split(test: object, train: object = (), val: object = ()) -> dict[str, object]:
    return {
        "train_index_backward": torch.as_tensor(list(train)),
        "val_index_backward": list(val),
        "test_index_backward": torch.as_tensor(list(test)),
        "train_index_forward": None,
    }


def five_cuts() -> dict[int, dict[str, object]]:
    """Numbered from 1, as the file has it; the test parts of all splits are the samples."""
    every = set(range(N))
    cuts = {k: sorted(i for i in every if i % 5 == k - 1) for k in range(1, 6)}
    return {k: split(held, sorted(every - set(held))[2:], sorted(every - set(held))[:2]) for k, held in cuts.items()}


def test_a_split_file_is_a_plan(export) -> None:
    """A sample held out by split 3 is in fold 2: folds count from 0, in the order of the numbers of the file."""
    folder, _ = export
    torch.save(five_cuts(), folder / "splits.pt")
    file = open_data(folder / "data_backward_A549.pt")
    read = read_split(folder / "splits.pt", file.obs)
    assert read is not None
    places = dict(zip(read.table["sample_id"], read.table["fold"], strict=True))
    assert places == {f"A549_{i:06d}": i % 5 for i in range(N)}


def test_a_split_that_cuts_once_is_a_test(export) -> None:
    folder, _ = export
    torch.save({1: split(range(10, N), range(8), [8, 9])}, folder / "splits.pt")
    read = read_split(folder / "splits.pt", open_data(folder / "data_backward_A549.pt").obs)
    assert read is not None
    assert read.table["role"].tolist() == ["development"] * 10 + ["test"] * 4


@pytest.mark.parametrize(
    ("cuts", "data", "said"),
    [
        ({1: split([99], [0])}, "data_backward_A549.pt", "position 99"),
        ({1: split([0, 1], [0, 2]), 2: split([2], [0])}, "data_backward_A549.pt", "1 names of its own test"),
        ({1: split([0, 1], [2]), 2: split([1], [0])}, "data_backward_A549.pt", "in the test of 1 and of 2"),
        (five_cuts(), "both", "not the rows of one such file"),
        ([1, 2], "data_backward_A549.pt", "no PDGrapher split file"),
    ],
)
def test_what_a_split_file_cannot_be(export, cuts, data, said) -> None:
    folder, _ = export
    torch.save(cuts, folder / "splits.pt")
    (folder / "both").mkdir()
    for line in ("A549", "PC3"):
        shutil.copy(folder / f"data_backward_{line}.pt", folder / "both")
    with pytest.raises(InputError, match=said):
        read_split(folder / "splits.pt", open_data(folder / data).obs)


def test_other_torch_files_are_no_export(tmp_path, geometric) -> None:
    torch.save({"a": 1}, tmp_path / "x.pt")
    with pytest.raises(InputError, match="no PDGrapher export"):
        open_data(tmp_path / "x.pt")
    torch.save([geometric(perturbagen_name="d")], tmp_path / "x.pt")
    with pytest.raises(InputError, match="'diseased'"):
        open_data(tmp_path / "x.pt")
