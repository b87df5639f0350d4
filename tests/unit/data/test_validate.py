"""Validation names what is wrong: each test plants one fault and looks for it."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError
from pertstack.data import Card, open_data, validate
from pertstack.data.checks.census import Bad
from references.data_worlds import small, write


def found(tmp_path, data, **options) -> dict[str, object]:
    return {f.code: f for f in validate(open_data(write(tmp_path, data), **options))}


def test_a_clean_file_has_no_errors(tmp_path) -> None:
    assert not [f for f in found(tmp_path, small()).values() if f.severity == "error"]


@pytest.mark.filterwarnings("ignore:(Observation|Variable) names are not unique")
def test_duplicate_names(tmp_path) -> None:
    data = small()
    data.obs.index = ["s0", "s0", *data.obs_names[2:]]
    data.var.index = ["G1", "G1", *data.var_names[2:]]
    codes = found(tmp_path, data)
    assert codes["duplicate_samples"].severity == "error" and codes["duplicate_samples"].examples == ("s0",)
    assert codes["duplicate_genes"].examples == ("G1",)


@pytest.mark.parametrize("odd", ["p1\0", "two\nlines", "tab\tbed", "\x1b[31mred"])
def test_names_with_control_characters_are_refused_wherever_they_stand(tmp_path, odd: str) -> None:
    """numpy and pandas cut text at NUL, and genes are stored one a line: two names would become one."""
    path = write(tmp_path, small())
    for code in ("sample_names", "gene_names", "perturbation", "cell_line"):
        file = open_data(path)
        if code == "sample_names":
            file.obs.index = [odd, *file.obs.index[1:]]
        elif code == "gene_names":
            file.var.index = [odd, *file.var.index[1:]]
        else:
            file.obs[code] = [odd, *file.obs[code].astype(str)[1:]]
        codes = {f.code: f for f in validate(file)}
        assert codes[f"unusable_{code}"].severity == "error" and repr(odd) in codes[f"unusable_{code}"].message


@pytest.mark.parametrize("value", [np.nan, np.inf, -666.0])
def test_unusable_values_are_named_by_sample_and_gene(tmp_path, value: float) -> None:
    data = small()
    data.X[3, 2] = value
    data.layers["control"][5, 6] = value
    codes = found(tmp_path, data)
    assert codes["non_finite_treated"].examples == ("s3",) and "'G2'" in codes["non_finite_treated"].message
    assert codes["non_finite_control"].examples == ("s5",) and "'G6'" in codes["non_finite_control"].message
    assert codes["non_finite_treated"].severity == "error"


def test_control_identical_to_treated_in_some_or_all_samples(tmp_path) -> None:
    data = small()
    data.layers["control"][[1, 4]] = data.X[[1, 4]]
    fault = found(tmp_path, data)["control_is_treated"]
    assert fault.severity == "error" and fault.examples == ("s1", "s4")
    data.layers["control"] = data.X.copy()
    assert "all samples" in found(tmp_path, data)["control_is_treated"].message


@pytest.mark.parametrize("kind", ["i4", "u2", "i8", "f4", "f8"])
@pytest.mark.parametrize("depth", [0.5, 2, 40])
def test_raw_counts_are_an_error_however_small_they_are(tmp_path, kind, depth) -> None:
    data, rng = small(n=40), np.random.default_rng(0)
    data.X, data.layers["control"] = (rng.poisson(depth, data.shape).astype(kind) for _ in range(2))
    told = found(tmp_path, data)["raw_counts"]
    assert told.severity == "error" and "whole numbers from" in told.message


def test_counts_of_which_some_are_below_zero_are_told_with_their_number_and_the_samples(tmp_path) -> None:
    """They were an expression on a linear scale, or logarithms where they were small."""
    for depth in (2, 40):
        data, rng = small(n=40), np.random.default_rng(0)
        data.X, data.layers["control"] = (rng.poisson(depth, data.shape).astype(np.float32) for _ in range(2))
        data.X[7, 2] = -3
        codes = found(tmp_path, data)
        told = codes["negative_counts"]
        assert told.severity == "error" and told.examples == ("s7",) and "1 of them is below zero" in told.message
        assert not {"raw_counts", "linear_scale"} & set(codes)


def test_whole_numbers_around_zero_are_no_counts(tmp_path) -> None:
    data, rng = small(n=40), np.random.default_rng(0)
    data.X, data.layers["control"] = (rng.integers(-40, 40, data.shape).astype(np.float32) for _ in range(2))
    assert not {"raw_counts", "negative_counts"} & set(found(tmp_path, data))


def test_rounded_logarithms_and_half_counts_are_no_raw_counts(tmp_path) -> None:
    data, rng = small(n=40), np.random.default_rng(0)
    data.X, data.layers["control"] = (rng.integers(4, 14, data.shape).astype(np.float32) for _ in range(2))
    assert "raw_counts" not in found(tmp_path, data)
    data.X, data.layers["control"] = (rng.poisson(2, data.shape) / 2 for _ in range(2))
    assert "raw_counts" not in found(tmp_path, data)


def test_raw_counts_linear_values_and_min_max_scaling(tmp_path) -> None:
    data, rng = small(n=40), np.random.default_rng(0)
    data.X, data.layers["control"] = (rng.poisson(50, data.shape).astype(np.float32) for _ in range(2))
    assert found(tmp_path, data)["raw_counts"].severity == "error"
    data.X, data.layers["control"] = (rng.gamma(2, 200, data.shape).astype(np.float32) for _ in range(2))
    assert found(tmp_path, data)["linear_scale"].severity == "warning"
    both = np.concatenate([data.X, data.layers["control"]])
    both = (both - both.min(0)) / (both.max(0) - both.min(0))
    data.X, data.layers["control"] = both[:40], both[40:]
    assert found(tmp_path, data)["min_max_scaled"].severity == "warning"


def test_constant_genes_and_duplicate_profiles_are_warnings(tmp_path) -> None:
    data = small()
    data.X[:, 4] = 3.0
    data.X[9] = data.X[2]
    codes = found(tmp_path, data)
    assert codes["constant_genes"].examples == ("G4",) and codes["constant_genes"].severity == "warning"
    assert codes["duplicate_profiles"].examples == ("s2", "s9")


def resembling() -> anndata.AnnData:
    """Two cell lines whose genes lie at other levels, twelve compounds, controls of each line."""
    rng = np.random.default_rng(3)
    level, effect = rng.uniform(4, 10, (2, 1, 40)), rng.normal(0, 0.5, (12, 40))
    control = level + rng.normal(0, 0.2, (2, 12, 40))
    treated = level + effect + rng.normal(0, 0.2, (2, 12, 40))
    names = [(f"drug{p}", line) for line in ("A", "B") for p in range(12)]
    obs = pd.DataFrame(names, columns=["perturbation", "cell_line"], index=[f"s{i}" for i in range(24)])
    data = anndata.AnnData(treated.reshape(24, 40), obs, pd.DataFrame(index=[f"G{i}" for i in range(40)]))
    data.layers["control"] = control.reshape(24, 40)
    return data


def test_treated_that_do_not_resemble_their_controls_are_an_error(tmp_path) -> None:
    """Log fold changes or z-scores beside a control, or genes of one of the two in another order: every effect would be
    that of the scale, and all other numbers look sound."""
    data, control = resembling(), resembling().layers["control"]
    assert "treated_unlike_control" not in found(tmp_path, data)
    differences = data.X - control
    for data.X in (differences, differences / 0.3):
        code = found(tmp_path, data)["treated_unlike_control"]
        assert code.severity == "error" and "below zero and no control" in code.message and "--delta" in code.message
        assert "treated_unlike_control" not in found(tmp_path, data, delta=True, control_layer="")
    data = resembling()
    data.layers["control"] = control[:, np.random.default_rng(0).permutation(40)]
    assert abs(found(tmp_path, data)["treated_unlike_control"].numbers["correlation"]) < 0.4
    data = resembling()  # scaled together in each line: means of genes are all about zero and tell nothing
    for rows in (slice(0, 12), slice(12, 24)):
        both = np.concatenate([data.X[rows], control[rows]])
        for values in (data.X, data.layers["control"]):
            values[rows] = (values[rows] - both.mean(axis=0)) / both.std(axis=0)
    assert np.corrcoef(data.X[:12].mean(axis=0), data.layers["control"][:12].mean(axis=0))[0, 1] < 0
    assert "treated_unlike_control" not in found(tmp_path, data)


def test_missing_structures_and_doses(tmp_path) -> None:
    data = small()
    data.obs["smiles"] = [None if p == "p1" else "CCO" for p in data.obs["perturbation"]]
    data.obs["dose"] = [np.nan] + [1.0] * 11
    codes = found(tmp_path, data)
    assert codes["structures_missing"].examples == ("p1",)
    assert codes["doses_missing"].examples == ("s0",)
    data.obs = data.obs.drop(columns=["smiles", "dose", "dose_unit"])
    assert {"no_structures", "no_doses"} <= set(found(tmp_path, data))


def test_genetic_perturbations_are_not_expected_to_have_structures(tmp_path) -> None:
    data = small()
    data.obs = data.obs.drop(columns=["smiles", "dose", "dose_unit"])
    data.obs["perturbation"] = ["G1+ctrl", "G1+G3", "ctrl+G2", "G5"] * 3
    assert not {"no_structures", "no_doses"} & set(found(tmp_path, data))


def test_controls_among_the_samples_are_named(tmp_path) -> None:
    data = small()
    data.obs["perturbation"] = ["DMSO", *data.obs["perturbation"][1:]]
    assert found(tmp_path, data)["untreated_samples"].examples == ("s0",)


def test_control_ids_that_contradict_the_values(tmp_path) -> None:
    data = small()
    data.obs["control_id"] = ["c1"] * 6 + [f"c{i}" for i in range(2, 8)]
    assert found(tmp_path, data)["control_id_contradicted"].examples == ("c1",)


def test_offenders_are_counted_and_the_first_ten_named(tmp_path) -> None:
    data = small(n=40)
    data.X[:25, 0] = np.nan
    fault = found(tmp_path, data)["non_finite_treated"]
    assert fault.count == 25 and fault.examples == tuple(f"s{i}" for i in range(10))


def test_chunk_size_changes_nothing(tmp_path) -> None:
    """One pass, whatever the cut: the card and the digests are those of the whole file."""
    from pertstack.data.checks.census import Census

    data = small(n=40)
    data.X[17, 3] = np.nan
    file = open_data(write(tmp_path, data))
    cards = []
    for rows in (1, 7, 40):
        census = Census(file)
        for chunk in file.chunks(rows):
            census.add(chunk)
        cards.append((census.low, census.high, census.transform, census.bad_treated.n, census.treated_digest.tolist()))
    assert cards[0] == cards[1] == cards[2]
    everything = np.concatenate([data.X.ravel(), data.layers["control"].ravel()])
    assert cards[0][:2] == (np.nanmin(everything), np.nanmax(everything))


def test_card_numbers_equal_numpy(tmp_path) -> None:
    data = small()
    card = open_data(write(tmp_path, data)).card
    assert card.value_mean == pytest.approx(float(data.X.mean(dtype=float)), rel=1e-6)
    assert card.value_sd == pytest.approx(float(data.X.std(dtype=float)), rel=1e-5)
    assert (card.n_samples, card.n_genes, card.transform, card.n_controls) == (12, 7, "log", 12)


def test_card_round_trip_and_comparison(tmp_path) -> None:
    data = small()
    card = open_data(write(tmp_path, data)).card
    card.save(tmp_path / "card.json")
    assert Card.load(tmp_path / "card.json") == card
    assert card.compare(card) == []
    with pytest.raises(InputError, match="format"):
        Card.from_json({**card.to_json(), "format": 2})
    other = small()
    other.var.index = other.var_names[::-1]
    assert any("another order" in d for d in card.compare(open_data(write(tmp_path, other, "o.h5ad")).card))
    other.var.index = [f"H{i}" for i in range(7)]
    assert any("genes differ" in d for d in card.compare(open_data(write(tmp_path, other, "o.h5ad")).card))
    other = small()
    other.X, other.layers["control"] = other.X / 10, other.layers["control"] / 10
    assert any("spread" in d for d in card.compare(open_data(write(tmp_path, other, "o.h5ad")).card))
    assert any(
        "scale" in d
        for d in card.compare(open_data(write(tmp_path, other, "o.h5ad"), control_layer="", delta=True).card)
    )


def pairing(tmp_path, control: np.ndarray, treated: np.ndarray, plate: list[str] | None) -> str:
    n = len(control)
    data = small(n=n, genes=control.shape[1])
    data.X, data.layers["control"] = treated.astype(np.float32), control.astype(np.float32)
    data.obs["cell_line"] = "A"
    if plate is not None:
        data.obs["plate"] = plate
    return open_data(write(tmp_path, data)).card.pairing


def test_how_controls_were_paired_is_told_from_the_values(tmp_path) -> None:
    rng, n, g = np.random.default_rng(1), 60, 50
    plate = np.repeat(np.arange(6), 10)
    names = [f"P{i}" for i in plate]
    shift = rng.normal(0, 1, (6, g))
    treated = 8 + shift[plate] + rng.normal(0, 1, (n, g))
    wells = 8 + shift[plate] + rng.normal(0, 1, (n, g))
    assert pairing(tmp_path, wells, treated, names) == "own"
    assert pairing(tmp_path, 8 + shift[plate], treated, names) == "matched"
    assert pairing(tmp_path, np.tile(8 + shift[0], (n, 1)), treated, names) == "pooled"
    anyone = wells[rng.integers(0, 12, n) * 5]
    assert pairing(tmp_path, anyone, treated, names) == "random"
    assert pairing(tmp_path, wells[rng.permutation(n)], treated, names) == "unknown"


def test_a_shuffled_pairing_shows_no_excess_and_an_own_one_does() -> None:
    from pertstack.data.checks.pairing import pairing_excess

    rng = np.random.default_rng(2)
    shared, lines = rng.normal(size=(80, 30)), np.array(["A", "B"] * 40, dtype=object)
    control, treated = shared + rng.normal(size=(80, 30)), shared + rng.normal(size=(80, 30))
    excess, error = pairing_excess((np.arange(80), control, treated), lines)
    assert excess == pytest.approx(0.5, abs=0.1) and excess > 5 * error
    even = np.arange(80) % 2 == 0
    shuffled = control.copy()
    shuffled[even] = control[even][rng.permutation(40)]
    shuffled[~even] = control[~even][rng.permutation(40)]
    excess, error = pairing_excess((np.arange(80), shuffled, treated), lines)
    assert abs(excess) < 4 * error


def test_findings_come_gravest_first(tmp_path) -> None:
    data = small()
    data.X[:, 4] = 3.0
    data.X[0, 0] = np.nan
    data.obs = data.obs.rename(columns={"perturbation": "pert_id"})
    order = [f.severity for f in validate(open_data(write(tmp_path, data)))]
    assert order == sorted(order, key=["error", "warning", "note"].index)
    assert isinstance(pd.DataFrame([f.to_json() for f in validate(open_data(write(tmp_path, data)))]), pd.DataFrame)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, -666.0, -700.0, 3e38, None])
def test_what_extremes_say_of_unusable_values_is_what_every_value_says(odd: float | None) -> None:
    values = np.random.default_rng(0).normal(7, 2, (5, 300)).astype(np.float32)
    if odd is not None:
        values[3, [0, 299]] = odd
    wanted = ~np.isfinite(values) | (values == -666)
    bad = Bad(5, 300)
    got = bad.add(values, 0)
    np.testing.assert_array_equal(np.zeros((5, 300), dtype=bool) if got is None else got, wanted)
    assert (got is None) == (bad.n == 0) and bad.n == wanted.sum()
    np.testing.assert_array_equal(bad.rows, wanted.any(axis=1))
    np.testing.assert_array_equal(bad.columns, wanted.any(axis=0))
