"""Doses, times and column names as found in the wild."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pertstack._base.errors import InputError, UnknownNameError
from pertstack.data.readers.columns.columns import canonical_obs
from pertstack.data.readers.columns.units import hours_per, micromolar_per


def table(**columns: object) -> pd.DataFrame:
    base = {"perturbation": ["a", "b", "c"], "cell_line": ["L", "L", "M"], **columns}
    return pd.DataFrame(base, index=["s1", "s2", "s3"])


@pytest.mark.parametrize(
    ("unit", "micromolar"),
    [("M", 1e6), ("mM", 1e3), ("uM", 1), ("µM", 1), ("μM", 1), ("um", 1), ("nM", 1e-3), ("pM", 1e-6)],
)
def test_molar_units(unit: str, micromolar: float) -> None:
    assert micromolar_per(unit) == pytest.approx(micromolar)


def test_known_but_not_molar_units_are_none_and_unknown_ones_an_error() -> None:
    assert micromolar_per("ng/mL") is None
    with pytest.raises(InputError, match=r"furlong.*--map dose_unit"):
        micromolar_per("furlong")
    assert hours_per("days") == 24
    with pytest.raises(InputError, match="fortnight"):
        hours_per("fortnight")


def test_doses_written_with_their_unit_keep_it() -> None:
    """500 nM is half a micromolar, not five hundred (pitfall P16)."""
    obs, _ = canonical_obs(table(pert_idose=["500 nM", "10 uM", "0.04 µM"]))
    np.testing.assert_allclose(obs["log10_dose"], np.log10([0.5, 10, 0.04]))


def test_dose_and_unit_columns_and_missing_markers() -> None:
    obs, _ = canonical_obs(
        table(pert_dose=[10, -666, 500], pert_dose_unit=["uM", "-666", "nM"], pert_time=["24", "6", "-666"])
    )
    np.testing.assert_allclose(obs["log10_dose"], [1.0, np.nan, np.log10(0.5)])
    np.testing.assert_allclose(obs["time_h"], [24, 6, np.nan])


def test_unit_in_the_column_name() -> None:
    obs, notes = canonical_obs(table(dose_uM=[1.0, 10.0, 0.1], timepoint_hr=[24, 24, 6]))
    np.testing.assert_allclose(obs["log10_dose"], [0, 1, -1])
    assert obs["time_h"].tolist() == [24, 24, 6]
    assert any("dose = dose_uM" in n.message for n in notes)


def test_doses_without_any_unit_are_taken_as_they_are_with_a_warning() -> None:
    obs, notes = canonical_obs(table(dose=[1.0, 0.0, 100.0]))
    np.testing.assert_allclose(obs["log10_dose"], [0, np.nan, 2])
    assert obs["dose_unit"].isna().all() and obs["dose"].tolist() == [1, 0, 100]
    warning = next(n for n in notes if n.code == "dose_without_unit")
    assert warning.severity == "warning" and "--map dose_unit=const:uM" in warning.message and warning.count == 2
    obs, notes = canonical_obs(table(dose=[1.0, 2.0, 3.0]), {"dose_unit": "const:nM"})
    np.testing.assert_allclose(obs["log10_dose"], np.log10([0.001, 0.002, 0.003]))
    assert "dose_without_unit" not in {n.code for n in notes}
    obs, _ = canonical_obs(table(dose=[1.0, 2.0, 3.0]), {"dose": "none"})
    assert "log10_dose" not in obs


def test_doses_of_which_some_have_a_unit_stop() -> None:
    with pytest.raises(InputError, match=r"1 samples have a dose without a unit, such as 2 for 's2', and 2 have one"):
        canonical_obs(table(dose=["1 uM", "2", "3 uM"]))
    with pytest.raises(InputError, match="dose_unit=const:uM"):
        canonical_obs(table(dose=[1.0, 2.0, 3.0], dose_unit=["uM", None, "uM"]))
    obs, _ = canonical_obs(table(dose=[1.0, 0.0, 3.0], dose_unit=["uM", None, "nM"]))  # zero needs no unit
    np.testing.assert_allclose(obs["log10_dose"], [0, np.nan, np.log10(0.003)])


@pytest.mark.parametrize(
    "columns",
    [
        {"dose": ["1 uM", "2 uM", "3 nM"], "dose_unit": ["uM"] * 3},
        {"dose_uM": [1.0, 2.0, 3.0], "dose_unit": ["uM", "uM", "nM"]},
        {"dose": ["1 uM", "2 uM", "3 ng/mL"], "dose_unit": ["uM", "uM", "uM"]},
    ],
)
def test_a_dose_in_two_units_stops(columns) -> None:
    with pytest.raises(InputError, match=r"'s3', 3, is given in two units"):
        canonical_obs(table(**columns))
    known = {k: [str(v).replace("nM", "µM").replace("ng/mL", "uM") for v in vs] for k, vs in columns.items()}
    np.testing.assert_allclose(canonical_obs(table(**known))[0]["log10_dose"], np.log10([1, 2, 3]))


def test_text_that_is_no_dose_is_refused_and_mass_units_are_unknown() -> None:
    with pytest.raises(InputError, match="'high'"):
        canonical_obs(table(dose=["high", "1 uM", "2 uM"]))
    obs, notes = canonical_obs(table(dose=["1 ng/mL", "1 uM", "0"]))
    assert np.isnan(obs["log10_dose"].to_numpy()).tolist() == [True, False, True]
    assert [n.code for n in notes if n.severity == "warning"] == ["dose_not_molar"]
    with pytest.raises(InputError, match="negative"):
        canonical_obs(table(dose=["-1 uM", "1 uM", "2 uM"]))


@pytest.mark.parametrize(
    ("perturbation", "cell_line"),
    [
        ("pert_id", "cell_iname"),
        ("cmap_name", "cell_mfc_name"),
        ("sm_name", "cell_type"),
        ("condition", "cell_type"),
        ("pert_id", "cell_id"),
    ],
)
def test_names_of_the_field_are_recognised(perturbation: str, cell_line: str) -> None:
    frame = pd.DataFrame({perturbation: ["a", "b"], cell_line: ["L", "M"]}, index=["s1", "s2"])
    obs, notes = canonical_obs(frame)
    assert obs["perturbation"].tolist() == ["a", "b"]
    assert obs["cell_line"].tolist() == ["L", "M"]
    assert "columns_taken" in {n.code for n in notes}


def test_a_column_with_the_canonical_name_comes_first_and_the_map_before_it() -> None:
    frame = table(pert_id=["x", "y", "z"])
    assert canonical_obs(frame)[0]["perturbation"].tolist() == ["a", "b", "c"]
    mapped, _ = canonical_obs(frame, {"perturbation": "pert_id"})
    assert mapped["perturbation"].tolist() == ["x", "y", "z"]
    assert mapped["pert_id"].tolist() == ["x", "y", "z"]


def test_missing_columns_name_near_ones_and_the_mend() -> None:
    frame = pd.DataFrame({"perturbatoin": ["a"], "celline": ["L"]}, index=["s1"])
    with pytest.raises(InputError, match=r"'perturbatoin'.*--map perturbation=COLUMN"):
        canonical_obs(frame)
    frame = pd.DataFrame({"perturbation": ["a"], "donor": ["L"]}, index=["s1"])
    with pytest.raises(InputError, match="const:NAME"):
        canonical_obs(frame)
    assert canonical_obs(frame, {"cell_line": "const:K562"})[0]["cell_line"].tolist() == ["K562"]
    with pytest.raises(InputError, match=r"no column 'donr'.*Did you mean 'donor'"):
        canonical_obs(frame, {"cell_line": "donr"})
    with pytest.raises(UnknownNameError, match="cell_line"):
        canonical_obs(frame, {"cel_line": "donor"})


def test_an_empty_perturbation_is_refused_by_sample() -> None:
    with pytest.raises(InputError, match="'s2'"):
        canonical_obs(table().assign(perturbation=["a", None, "c"]))


def test_empty_canonical_columns_are_left_out_and_others_kept() -> None:
    obs, _ = canonical_obs(
        table(smiles=["", None, "nan"], dose=[np.nan] * 3, plate=["p", None, "q"], donor=["x", 1, None])
    )
    assert "smiles" not in obs and "dose" not in obs and "log10_dose" not in obs
    assert obs["plate"].tolist() == ["p", None, "q"]
    assert obs["donor"].tolist() == ["x", "1", None]
    assert obs.index.tolist() == ["s1", "s2", "s3"]


def test_canonical_metadata_survive_a_parquet_file(tmp_path) -> None:
    obs, _ = canonical_obs(
        table(mixed=["x", 1, None], category=pd.Categorical(["u", "v", "u"]), dose=["1 uM", "", "2 nM"])
    )
    obs.to_parquet(tmp_path / "obs.parquet")
    back = pd.read_parquet(tmp_path / "obs.parquet")
    assert back.index.tolist() == obs.index.tolist()
    np.testing.assert_allclose(back["log10_dose"], obs["log10_dose"])


@pytest.mark.parametrize("text", ["nan", "NaN", "-666", "<NA>", "null", "N/A", "", " ", None, float("nan")])
@pytest.mark.parametrize("column", ["perturbation", "cell_line"])
def test_a_missing_name_written_as_text_is_missing(text, column) -> None:
    frame = table().assign(**{column: pd.Series([text, text, "c"], index=["s1", "s2", "s3"], dtype=object)})
    with pytest.raises(InputError, match=r"is empty.* for 2 of 3 samples: 's1', 's2'") as refused:
        canonical_obs(frame)
    assert not isinstance(text, str) or not text.strip() or repr(text) in str(refused.value)


def test_a_perturbation_called_none_is_one_with_a_warning() -> None:
    obs, notes = canonical_obs(table().assign(perturbation=["none", "NA", "c"]))
    assert obs["perturbation"].tolist() == ["none", "NA", "c"]
    told = next(n for n in notes if n.code == "name_may_be_missing")
    assert told.severity == "warning" and told.count == 2 and "'NA', 'none'" in told.message
    assert "name_may_be_missing" not in {n.code for n in canonical_obs(table())[1]}


@pytest.mark.parametrize("ids", ["cell_id", "cell", "cell_name"])
def test_a_column_with_a_value_of_its_own_in_every_row_is_no_cell_line(ids) -> None:
    frame = pd.DataFrame({"drug": "d", ids: [f"AAAC{i}" for i in range(30)], "cell_type": ["T", "B", "NK"] * 10})
    obs, notes = canonical_obs(frame)
    assert obs["cell_line"].tolist() == ["T", "B", "NK"] * 10
    assert "cell_line = cell_type" in next(n for n in notes if n.code == "columns_taken").message
    with pytest.raises(InputError, match="cell line of each sample"):
        canonical_obs(frame.drop(columns="cell_type"))
    mapped, _ = canonical_obs(frame, {"cell_line": ids})
    assert mapped["cell_line"].nunique() == 30  # what is asked for by name is done
    few = canonical_obs(frame.drop(columns="cell_type").assign(**{ids: ["K562", "A549", "MCF7"] * 10}))[0]
    assert few["cell_line"].nunique() == 3 and "K562" in set(few["cell_line"])


def test_a_batch_of_its_own_in_every_row_is_no_plate() -> None:
    frame = table().iloc[[0] * 30].set_axis([f"s{i}" for i in range(30)])
    assert "plate" not in canonical_obs(frame.assign(batch=[f"b{i}" for i in range(30)]))[0]
    assert canonical_obs(frame.assign(batch=["x", "y"] * 15))[0]["plate"].nunique() == 2


CELLS = st.one_of(
    st.none(),
    st.floats(allow_nan=True, allow_infinity=False, width=32),
    st.integers(-700, 10**6),
    st.booleans(),
    st.sampled_from(["10 uM", "500 nM", "-666", "", "nan", "A549", "24 h", "1 ng/mL", "x", "5 furlong", " b "]),
)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_table_gives_canonical_metadata_or_a_plain_refusal(data) -> None:
    n = data.draw(st.integers(1, 5))
    names = ["perturbation", "pert_id", "cell_id", "dose", "dose_unit", "pert_time", "smiles", "plate", "other"]
    columns = data.draw(st.lists(st.sampled_from(names), unique=True))
    frame = pd.DataFrame(index=[f"s{i}" for i in range(n)])
    for column in columns:
        frame[column] = [data.draw(CELLS) for _ in range(n)]
    try:
        obs, _ = canonical_obs(frame)
    except InputError as error:
        assert len(str(error)) > 40
        return
    assert obs.index.tolist() == [f"s{i}" for i in range(n)]
    for name in ("perturbation", "cell_line"):
        assert all(isinstance(v, str) and v for v in obs[name])
    if "log10_dose" in obs:
        assert not np.isinf(obs["log10_dose"].to_numpy(float)).any()
    obs.to_parquet(io.BytesIO())
