"""Scaling and encoders: fitted on fit rows only, nothing missing replaced by something plausible."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sklearn.preprocessing import StandardScaler

from pertstack._base.errors import InputError, MisalignedError
from pertstack.data.side.side import PerturbationFeatures, SideInformation
from pertstack.fit.torch.common.inputs import Encoder
from pertstack.fit.torch.common.network import hide
from pertstack.fit.torch.common.scaling import GeneScaler
from pertstack.fit.torch.common.settings import Settings
from references.fit_world import make_rows, split_by_perturbation, with_obs

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")


def encoder_of(rows, settings=None, **options):
    return Encoder.fit(rows, settings or Settings(), model="Model", **{"features": True, **options})


def test_scaling_agrees_with_sklearn_on_both_profiles_pooled():
    rows = make_rows()
    ours = GeneScaler.fit(rows.control, rows.treated, rows_at_once=7)
    theirs = StandardScaler().fit(np.concatenate([rows.control, rows.treated]).astype(np.float64))
    np.testing.assert_allclose(ours.mean, theirs.mean_, rtol=1e-6)
    np.testing.assert_allclose(ours.sd, theirs.scale_, rtol=1e-6)
    np.testing.assert_allclose(ours.invert(ours.apply(rows.treated)), rows.treated, atol=1e-5)
    assert ours.low == min(rows.control.min(), rows.treated.min())


def test_a_gene_that_never_varies_is_zero_and_comes_back():
    constant = np.full((6, 1), 1e4, dtype=np.float32)
    scaler = GeneScaler.fit(constant, constant)
    assert scaler.sd[0] == 1 and (scaler.apply(constant) == 0).all()
    np.testing.assert_array_equal(scaler.invert(scaler.apply(constant)), constant)


def test_encoders_know_fit_rows_only():
    """Held-out rows with other doses, lines and drugs leave the encoders as they were."""
    fit, held = split_by_perturbation(make_rows())
    encoder = encoder_of(fit)
    strange = with_obs(held, log10_dose=50.0, cell_line="Z")
    table = encoder.encode(strange)
    assert encoder.lines == ("A", "B") and (table.cell == 0).all()
    dose = np.asarray(fit.obs["log10_dose"])
    np.testing.assert_allclose(table.dose[:, 0], (50.0 - dose.mean()) / dose.std(), rtol=1e-5)


def test_bits_that_never_vary_while_fitting_are_left_out():
    fit, _ = split_by_perturbation(make_rows())
    assert encoder_of(fit).n_features == 15  # bit 0 is always on in this world


def test_a_missing_dose_is_average_and_marked():
    rows = make_rows()
    missing = with_obs(rows, log10_dose=np.nan)
    assert (encoder_of(rows).encode(missing).dose.numpy() == [0, 1]).all()
    assert (encoder_of(missing).encode(missing).dose.numpy() == [0, 1]).all()
    without = replace(rows, obs=rows.obs.drop(columns="log10_dose"))
    assert (encoder_of(without).encode(without).dose.numpy() == [0, 1]).all()


def test_missing_structures_are_refused_by_name_or_masked():
    rows = make_rows(unknown=("d03",))
    with pytest.raises(InputError, match="d03"):
        encoder_of(rows).encode(rows)
    table = encoder_of(rows, Settings(on_missing_structure="mask")).encode(rows)
    batch = table.batch(np.flatnonzero(rows.perturbation == "d03"), CPU)
    assert (batch.drug == 0).all()
    assert (table.batch(np.flatnonzero(rows.perturbation != "d03"), CPU).known == 1).all()


def test_hiding_trains_the_unknown_line_and_only_by_policy_the_structure():
    rows = make_rows(replicates=20)
    table, generator = encoder_of(rows).encode(rows, rows.treated), torch.Generator().manual_seed(0)
    batch = table.batch(np.arange(rows.n_samples), CPU)
    plain = hide(batch, Settings(unknown_dropout=0.3), generator)
    assert 0.2 < float((plain.cell == 0).float().mean()) < 0.4 and (plain.known == 1).all()
    masked = hide(batch, Settings(unknown_dropout=0.3, on_missing_structure="mask"), generator)
    assert 0.2 < float((masked.known == 0).float().mean()) < 0.4
    assert (masked.features[masked.known[:, 0] == 0] == 0).all()


def test_other_genes_or_features_are_refused():
    rows = make_rows()
    encoder = encoder_of(rows)
    with pytest.raises(MisalignedError, match="g029"):
        encoder.encode(replace(rows, gene_names=rows.gene_names[::-1]))
    with pytest.raises(InputError, match="do not have"):
        encoder.encode(replace(rows, side=SideInformation()))


def test_user_features_are_standardised_and_come_first():
    rows = make_rows()
    names = tuple(sorted(set(rows.perturbation)))
    matrix = np.random.default_rng(0).normal(100, 10, size=(len(names), 4)).astype(np.float32)
    mine = PerturbationFeatures("user", names, ("a", "b", "c", "d"), matrix, np.ones(len(names), bool))
    rows = replace(rows, side=SideInformation({"user": mine, **rows.side.features}))
    encoder = encoder_of(rows)
    assert encoder.kind == "user"
    np.testing.assert_allclose(encoder.encode(rows).features.mean(0), 0, atol=1e-4)
    assert encoder_of(rows, Settings(features="structure")).kind == "structure"
    with pytest.raises(InputError, match="'genes'"):
        encoder_of(rows, Settings(features="genes"))


def test_targets_are_matched_by_gene_name_and_missing_ones_are_refused_or_marked():
    rows = make_rows(kinds=("structure", "targets"), unknown=("d05",))
    with pytest.raises(InputError, match=r"1 of 24 perturbations have no target.*d05"):
        encoder_of(rows, features=False, targets=True).encode(rows)
    encoder = encoder_of(rows, Settings(on_missing_structure="mask"), features=False, targets=True)
    batch = encoder.encode(rows).batch(np.arange(rows.n_samples), CPU)
    table = rows.side.features["targets"]
    place = {g: i for i, g in enumerate(table.columns)}
    for i in (0, 21, 50):
        row = table.matrix[table.perturbations.index(rows.perturbation[i])]
        assert batch.targets[i].tolist() == [row[place[g]] for g in rows.gene_names]
    assert ((batch.known[:, 0] == 0).numpy() == (rows.perturbation == "d05")).all()


def test_perturbed_genes_count_as_targets():
    rows = make_rows(kinds=("genes",))
    batch = encoder_of(rows, features=False, targets=True).encode(rows).batch(np.arange(rows.n_samples), CPU)
    np.testing.assert_array_equal(batch.targets, rows.side.features["genes"].rows(rows.perturbation)[0])
