"""Names, plug-ins, reasons why a model is not available, and inner splits."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint

import double_models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pertstack._base.errors import ConflictError, InputError, NeedsExtraError, UnknownNameError
from pertstack.data.rows import FitRows
from pertstack.data.side.side import SideInformation
from pertstack.fit import Job, Needs, RegistryRow, available, get_model, get_row, inner_split, list_models, register
from pertstack.fit import registry as module
from pertstack.fit.encoders import RowEncoder
from references.fit_world import make_rows


@pytest.fixture(autouse=True)
def own_registrations(monkeypatch):
    monkeypatch.setattr(module, "_registered", {})


def test_names_are_found_ignoring_case_and_marks():
    for name in ("PerGeneLinear", "per_gene_linear", "PER-GENE-LINEAR", "pergenelinear"):
        assert get_row(name).name == "per_gene_linear"
    with pytest.raises(UnknownNameError, match="Did you mean 'mean_treated'"):
        get_row("mean_traeted")


def test_a_shipped_model_keeps_the_identity_by_which_its_fits_are_seeded_and_found_again():
    """A job is seeded and recognised by its class's address: a moved file would train other networks, all of them."""
    known = {
        "additive": "pertstack.fit.baselines.additive:Additive",
        "mean_treated": "pertstack.fit.baselines.means:MeanTreated",
        "mlp": "pertstack.fit.baselines.mlp:MLP",
        "perturbation_knn": "pertstack.fit.baselines.perturbation_knn:PerturbationKNN",
        "ridge": "pertstack.fit.baselines.ridge:Ridge",
        "Biolord": "pertstack.fit.torch.biolord:Biolord",
        "CheMoE": "pertstack.fit.torch.chemoe:CheMoE",
        "ChemCPA": "pertstack.fit.torch.chemcpa:ChemCPA",
        "ChemCPASupervised": "pertstack.fit.torch.chemcpa_supervised:ChemCPASupervised",
        "MultiDCP": "pertstack.fit.torch.multidcp:MultiDCP",
        "PDGrapher": "pertstack.fit.torch.pdgrapher:PDGrapher",
        "scGen": "pertstack.fit.torch.scgen:ScGen",
        "TranSiGen": "pertstack.fit.torch.transigen:TranSiGen",
        "biolord_published": "pertstack.fit.external:ExternalModel",
        "state_published": "pertstack.fit.external:ExternalModel",
    }
    rows = {row.name: row.target for row in list_models()}
    assert {name: rows[name] for name in known} == known
    assert Job.of("ridge", {"strength": 1.0}, fold=0).seed(7) == 7848998345469281045


def test_listing_imports_no_framework():
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"  # any import of torch would raise
        "from pertstack.fit import list_models\n"
        "print(len(list_models()), [m for m in ('sklearn', 'anndata', 'rdkit', 'distributed') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, loaded = done.stdout.split(maxsplit=1)
    assert int(count) >= 15 and loaded.strip() == "[]"


def test_without_torch_a_network_is_unavailable_with_the_mend(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "torch" else object())
    row = get_row("TranSiGen")
    assert "pertstack[models]" in (available(row, make_rows().side) or "")
    with pytest.raises(NeedsExtraError, match="pip install"):
        get_model("TranSiGen")


def test_targets_and_graph_are_named_when_they_are_missing():
    row = RegistryRow("x", "m:C", Needs(targets=True, graph=True), "", "plugin")
    assert "targets" in (available(row, SideInformation()) or "")
    side = make_rows(kinds=("targets",)).side
    assert available(row, side) is None
    assert "graph" in (available(row, replace(side, graph=None)) or "")


def test_plug_ins_are_found_and_a_broken_one_is_listed_with_its_reason(monkeypatch):
    points = [
        EntryPoint("noise", "double_models:Noise", module.ENTRY_POINT_GROUP),
        EntryPoint("gone", "no_such_package:Model", module.ENTRY_POINT_GROUP),
        EntryPoint("odd", "double_models:Loader", module.ENTRY_POINT_GROUP),
    ]
    monkeypatch.setattr(module, "entry_points", lambda group: points)
    rows = {r.name: r for r in list_models()}
    assert get_model("noise", {"level": 2.0}).params() == {"level": 2.0} and rows["noise"].kind == "plugin"
    assert "no_such_package" in (available(rows["gone"], SideInformation()) or "")
    assert "has no 'name'" in (rows["odd"].problem or "")
    with pytest.raises(InputError, match="uninstall"):
        get_model("gone")


def test_registering_a_class_and_a_name_that_is_taken():
    row = register(double_models.Broken)
    assert get_row("BROKEN") == row and register(double_models.Broken) == row
    with pytest.raises(ConflictError, match="another name"):
        register(RegistryRow("Ridge", "double_models:Noise", Needs(), "", "plugin"))
    with pytest.raises(InputError, match="'name'"):
        register(int)


def rows_with(groups: list[str]) -> FitRows:
    rows = make_rows(n_perturbations=3, replicates=-(-len(groups) // 3)).take(slice(0, len(groups)))
    return replace(rows, group=np.array(groups, dtype=object))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=40), st.floats(0.05, 0.6), st.integers(0, 5))
def test_inner_split_keeps_groups_whole_and_ignores_row_order(groups, share, seed):
    rows = rows_with(groups)
    inside, outside = inner_split(rows, share, np.random.default_rng(seed))
    assert (inside ^ outside).all() and inside.any() and outside.any()
    if len(set(groups)) == 1:
        return
    assert not set(rows.group[inside]) & set(rows.group[outside])
    order = np.random.default_rng(1).permutation(len(groups))
    moved, _ = inner_split(rows.take(order), share, np.random.default_rng(seed))
    np.testing.assert_array_equal(moved, inside[order])
    largest = max(groups.count(g) for g in set(groups))
    assert outside.sum() <= share * len(groups) + largest


def test_inner_split_edges():
    with pytest.raises(InputError, match="between 0 and 1"):
        inner_split(rows_with(["a", "b"]), 1.0, np.random.default_rng(0))
    one = rows_with(["a", "b"]).take([0])
    inside, outside = inner_split(one, 0.1, np.random.default_rng(0))
    assert inside.all() and outside.all()


def test_encoder_puts_the_unknown_at_the_average():
    rows = make_rows(unknown=("d01",))
    encoder = RowEncoder.fit(rows, rows.side.features["structure"])
    columns = encoder.encode(rows)
    unknown = rows.perturbation == "d01"
    assert (columns[unknown, :16] == 0).all() and (columns[~unknown, :16] != 0).any()
    assert np.isclose((columns[~unknown, :16] ** 2).sum(axis=1).mean(), 1)
    missing = replace(rows, obs=rows.obs.assign(log10_dose=np.nan, cell_line="elsewhere"))
    assert (encoder.encode(missing)[:, 16:] == 0).all()
    distinct, index = encoder.encode_distinct(rows)
    np.testing.assert_array_equal(distinct[index], columns)
    assert len(distinct) < len(columns)
