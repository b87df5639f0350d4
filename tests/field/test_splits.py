"""Splits as the field writes them, for ``init --plan``: every sample where the file puts it, or a refusal."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError
from pertstack._base.findings import Finding
from pertstack.data import DataFile
from pertstack.data.readers.open import open_data
from pertstack.design.plan.folds import FoldPlan
from pertstack.design.plan.foreign import read_split
from pertstack.study.study import Study
from references import cell_worlds as worlds

GENES = worlds.GENES[:14]
SINGLES = [f"{g}+ctrl" for g in GENES]
DOUBLES = ["GENE00+GENE01", "GENE02+GENE03"]
DOUBLE_TURNED = "GENE01+GENE00"
TRAIN, VAL, TEST = [*SINGLES[:8], DOUBLE_TURNED, "ctrl"], SINGLES[8:10], [*SINGLES[10:], DOUBLES[1]]


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    """GEARS-like: two lines, conditions ``A+ctrl`` and ``A+B``, ten cells each."""
    obs = worlds.design(
        [*SINGLES, *DOUBLES],
        lines=("K562", "RPE1"),
        batches=("1",),
        n=10,
        control="ctrl",
        names=("condition", "cell_type", None),
    )
    path = tmp_path_factory.mktemp("splits") / "cells.h5ad"
    worlds.write(path, obs, worlds.lognormal(worlds.counts_of(obs, "condition", "cell_type")))
    return path, obs


@pytest.fixture(scope="module")
def file(cells) -> DataFile:
    return open_data(cells[0])


def planned(file, path, folds=2) -> tuple[FoldPlan, dict[str, Finding]]:
    """The plan of the samples that a split places, and what was found, by code."""
    split = read_split(path, file.obs, file.cells)
    assert split is not None
    kept = file.only(list(split.table["sample_id"]))
    plan = FoldPlan.from_table(split.table, kept.obs, group_by=split.group_by, n_folds=folds)
    return plan, {f.code: f for f in split.findings}


def roles(plan: FoldPlan) -> dict[str, str]:
    return dict(zip(plan.table["sample_id"], plan.table["role"], strict=True))


def expected(test=TEST, lines=("K562", "RPE1")) -> dict[str, str]:
    return {
        f"{p}|{line}": "test" if p in test and line in lines else "development"
        for p in [*SINGLES, *DOUBLES]
        for line in ("K562", "RPE1")
    }


def test_a_split_of_gears_in_a_pickle_makes_a_study(tmp_path, cells):
    path = tmp_path / "norman_simulation_1_0.75.pkl"
    path.write_bytes(pickle.dumps({"train": np.array(TRAIN), "val": VAL, "test": TEST}))
    study = Study.create(tmp_path / "study", data=cells[0], plan=path, folds=2)
    assert roles(study.plan) == expected()
    said = next(f for f in study.findings() if f.code == "split_without_folds")
    assert "22 samples to train and validate on, 10 to test on" in said.message


def test_a_pickle_that_would_run_something_is_refused(tmp_path, file):
    class Program:
        def __reduce__(self):
            return (print, ("run",))

    path = tmp_path / "split.pkl"
    path.write_bytes(pickle.dumps({"train": [Program()], "test": TEST}))
    with pytest.raises(InputError, match=r"print"):
        planned(file, path)


@pytest.mark.parametrize("shape", ["dict", "list", "wrapped"])
def test_folds_of_scperteval_keep_their_places(tmp_path, file, shape):
    every = [*SINGLES, *DOUBLES]
    tests = [every[i::4] for i in range(4)]
    folds = [
        {"train": [p for p in every if p not in t][2:], "val": [p for p in every if p not in t][:2], "test": t}
        for t in tests
    ]
    named = {f"fold_{i + 1}": fold for i, fold in enumerate(folds)}
    value = {"dict": named, "list": folds, "wrapped": {"n_folds": 4, "splits": named}}[shape]
    path = tmp_path / "kfold_splits.json"
    path.write_text(json.dumps(value))
    plan, said = planned(file, path, None)
    table = plan.table
    fold = {s.split("|")[0]: int(f) for s, f in zip(table["sample_id"], table["fold"], strict=True)}
    assert fold == {p: i for i, t in enumerate(tests) for p in t}
    assert "folds_without_test" in said


def test_a_name_in_two_tests_or_in_its_own_training_is_refused(tmp_path, file):
    path = tmp_path / "kfold_splits.json"
    path.write_text(
        json.dumps([{"train": SINGLES[:3], "test": SINGLES[3:]}, {"train": SINGLES[5:], "test": SINGLES[:5]}])
    )
    with pytest.raises(InputError, match=r"in the test of 0 and of 1"):
        planned(file, path)
    path.write_text(json.dumps({"train": TRAIN, "val": TEST[:1], "test": TEST}))
    with pytest.raises(InputError, match=r"1 names are in training \(or validation\) and in the test"):
        planned(file, path)


@pytest.mark.parametrize("header", ["perturbation,split", "condition,set", None])
def test_a_table_of_perturbations(tmp_path, file, header):
    path = tmp_path / "split.csv"
    rows = [*((p, "train") for p in TRAIN), *((p, "val") for p in VAL), *((p, "test") for p in TEST)]
    lines = [f"{p},{part}" for p, part in rows]
    path.write_text("\n".join(([header] if header else []) + lines) + "\n")
    assert roles(planned(file, path)[0]) == expected()


@pytest.mark.parametrize("header", [",split", "cell_id,split", None])
def test_a_table_of_cells(tmp_path, file, cells, header):
    path = tmp_path / "split.csv"
    part = ["test" if c in TEST else "val" if c in VAL else "train" for c in cells[1]["condition"]]
    lines = [f"{name},{p}" for name, p in zip(cells[1].index, part, strict=True)]
    path.write_text("\n".join(([header] if header else []) + lines) + "\n")
    assert roles(planned(file, path)[0]) == expected()


def test_a_table_of_samples(tmp_path, file):
    path = tmp_path / "split.csv"
    path.write_text(
        "sample,split\n" + "".join(f"{s},{r.replace('development', 'train')}\n" for s, r in expected().items())
    )
    assert roles(planned(file, path)[0]) == expected()


def test_a_table_that_cuts_through_samples_is_refused(tmp_path, file, cells):
    path = tmp_path / "split.csv"
    rng = np.random.default_rng(0)
    path.write_text("cell_id,split\n" + "".join(f"{c},{rng.choice(['train', 'test'])}\n" for c in cells[1].index))
    with pytest.raises(InputError, match=r"cells on both sides.*--cells-as-samples"):
        planned(file, path)


def test_two_columns_of_parts_are_one_too_many(tmp_path, file):
    path = tmp_path / "split.csv"
    path.write_text("perturbation,seed1,seed2\n" + "".join(f"{p},train,test\n" for p in TRAIN) + "x,test,train\n")
    with pytest.raises(InputError, match=r"'seed1', 'seed2'.*Keep one"):
        planned(file, path)


FEWSHOT = """
[datasets]
norman = "/data/norman"
[training]
norman = "train"
[zeroshot]
[fewshot]
[fewshot."norman.K562"]
val = ["GENE08+ctrl", "GENE10+ctrl"]
test = ["GENE10+ctrl", "GENE11+ctrl", "GENE12+ctrl"]
"""


def test_cell_load_holds_out_perturbations_of_a_line(tmp_path, file):
    path = tmp_path / "fewshot.toml"
    path.write_text(FEWSHOT)
    plan, _ = planned(file, path)
    assert roles(plan) == expected(["GENE10+ctrl", "GENE11+ctrl", "GENE12+ctrl"], ("K562",))
    assert plan.group_by == "perturbation+cell_line"


def test_cell_load_holds_out_a_line(tmp_path, file):
    path = tmp_path / "zeroshot.toml"
    path.write_text('[datasets]\nnorman = "x"\n[training]\nnorman = "train"\n[zeroshot]\n"norman.RPE1" = "test"\n')
    assert roles(planned(file, path)[0]) == expected([*SINGLES, *DOUBLES], ("RPE1",))


def test_cell_load_of_other_lines_is_refused(tmp_path, file):
    path = tmp_path / "zeroshot.toml"
    path.write_text('[training]\nnorman = "train"\n[zeroshot]\n"norman.HepG2" = "test"\n')
    with pytest.raises(InputError, match=r"HepG2.*K562.*--map cell_line"):
        planned(file, path)


def test_perturbations_without_a_place_are_left_out_and_counted(tmp_path, file):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": [*TRAIN, "GENE99+ctrl"], "test": TEST}))
    plan, said = planned(file, path)
    assert len(plan.table) == 28
    assert said["samples_without_place"].count == 4 and "GENE08+ctrl" in said["samples_without_place"].message
    assert said["split_names_unknown"].count == 1


def test_a_split_of_other_data_is_refused(tmp_path, file):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": ["aspirin", "imatinib"], "test": ["ibuprofen"]}))
    with pytest.raises(InputError, match=r"none of its 3 names"):
        planned(file, path)


def test_a_table_of_our_own_stays_one(tmp_path, file):
    path = tmp_path / "folds.csv"
    pd.DataFrame({"sample_id": list(expected()), "role": list(expected().values())}).to_csv(path, index=False)
    assert read_split(path, file.obs) is None


ROWS = [*((p, "train") for p in TRAIN), *((p, "val") for p in VAL), *((p, "test") for p in TEST)]


def as_parquet(path):
    pd.DataFrame(ROWS, columns=["perturbation", "split"]).to_parquet(path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def as_indexed_feather(path):
    pd.DataFrame(ROWS, columns=["condition", "set"]).set_index("condition").to_parquet(path.with_suffix(".pq"))
    return path.with_suffix(".pq")


def as_mapping(path):
    path.with_suffix(".json").write_text(json.dumps(dict(ROWS)))
    return path.with_suffix(".json")


def as_pickled_mapping(path):
    path.with_suffix(".pkl").write_bytes(pickle.dumps(dict(ROWS)))
    return path.with_suffix(".pkl")


def as_held_out(path):
    words = {"val": "valid", "test": "holdout"}
    pd.DataFrame([(p, words.get(r, r)) for p, r in ROWS], columns=["name", "subset"]).to_csv(path, index=False)
    return path


def as_lists_of_held_out(path):
    lists = {"training": TRAIN, "validation": VAL, "held-out": TEST}
    path.with_suffix(".json").write_text(json.dumps(lists))
    return path.with_suffix(".json")


@pytest.mark.parametrize(
    "make", [as_parquet, as_indexed_feather, as_mapping, as_pickled_mapping, as_held_out, as_lists_of_held_out]
)
def test_a_part_for_each_name_in_any_form(tmp_path, file, make):
    """Parquet was taken for a table of our own, and its row numbers for samples; so was a part called holdout."""
    assert roles(planned(file, make(tmp_path / "split.csv"))[0]) == expected()


@pytest.mark.parametrize("header", ["perturbation,fold", "condition,kfold", "cell_id,cv_fold"])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("held_out", ["test", "", None])
def test_a_fold_for_each_name(tmp_path, file, cells, header, first, held_out):
    """Its row numbers were taken for samples. Folds are numbered from 0, and what has none is the test."""
    every = [*SINGLES, *DOUBLES]
    place = {p: (held_out if held_out is not None and i < 3 else first + i % 4) for i, p in enumerate(every)}
    names = (
        zip(cells[1].index, cells[1]["condition"], strict=True)
        if "cell_id" in header
        else zip(every, every, strict=True)
    )
    path = tmp_path / "split.csv"
    path.write_text(f"{header}\n" + "".join(f"{name},{place[p]}\n" for name, p in names if p in place))
    plan, said = planned(file, path, None)
    found = {s.split("|")[0]: f for s, f in zip(plan.table["sample_id"], plan.table["fold"], strict=True)}
    for p, given in place.items():
        assert pd.isna(found[p]) if given == held_out else int(found[p]) == given - first
    assert ("folds_without_test" in said) == (held_out is None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("perturbation,split\n" + "".join(f"{p},0\n" for p in TRAIN) + "GENE10+ctrl,2\n", r"'split' \('0', '2'\)"),
        ("perturbation,is_test\n" + "".join(f"{p},False\n" for p in TRAIN), r"'is_test' \('False'\)"),
        ("perturbation,split\n" + "".join(f"{p},train\n" for p in TRAIN), "in its test part"),
        ("perturbation,split\n" + "".join(f"{p},train\n" for p in TRAIN) + "a,\nb,test\n", "1 rows have nothing in"),
        ("perturbation,fold\n" + "".join(f"{p},0\n" for p in TRAIN) + "b,0.5\n", "'0.5' is neither a part"),
        ("perturbation,fold\nGENE00+ctrl,0\nGENE01+ctrl,1\nGENE00+ctrl,1\n", "is in two folds"),
        ("GENE10+ctrl\nGENE11+ctrl\n", "expected a column of names"),
        ("fold\n0\n1\n", "no column of names"),
        (
            "perturbation,split,fold\n" + "".join(f"{p},train,{i % 2}\n" for i, p in enumerate(TRAIN)) + "a,val,\n",
            "1 rows are in training and in no fold",
        ),
        (
            "perturbation,split,fold\n"
            + "".join(f"{p},train,{i % 2}\n" for i, p in enumerate(TRAIN))
            + f"{TRAIN[0]},test,\n",
            "1 names are in training and in the test",
        ),
        ("perturbation,split,fold,cv\n" + "".join(f"{p},train,0,1\n" for p in TRAIN), "2 columns of folds"),
    ],
)
def test_a_table_that_is_no_split_is_told_what_one_is(tmp_path, file, text, said):
    """It was read as a table of our own: its row numbers were no samples, and that was the message."""
    path = tmp_path / "split.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        planned(file, path)


@pytest.mark.parametrize("of_test", ["", "0", "7", "test"])
def test_a_part_and_a_fold_for_each_name_are_both_heeded(tmp_path, file, of_test):
    """Folds beside the parts were dropped without a word, and others drawn. Those of test rows do not count."""
    rows = [(p, role, str(i % 3) if role != "test" else of_test) for i, (p, role) in enumerate(ROWS)]
    path = tmp_path / "split.csv"
    pd.DataFrame(rows, columns=["perturbation", "split", "fold"]).to_csv(path, index=False)
    plan, _ = planned(file, path, None)
    assert roles(plan) == expected()
    found = {s.split("|")[0]: f for s, f in zip(plan.table["sample_id"], plan.table["fold"], strict=True)}
    own = {{DOUBLE_TURNED: DOUBLES[0]}.get(p, p): f for p, role, f in rows if role != "test"}
    assert {p: str(int(f)) for p, f in found.items() if not pd.isna(f)} == {p: own[p] for p in own if p in found}


def test_parts_for_each_fold_in_one_table(tmp_path, file):
    """As ``kfold_splits.json`` has them, a row for each name and fold."""
    every = [*SINGLES, *DOUBLES]
    rows = [
        (p, f, "test" if i % 4 == f else "val" if i % 4 == (f + 1) % 4 else "train")
        for i, p in enumerate(every)
        for f in range(4)
    ]
    path = tmp_path / "folds.csv"
    pd.DataFrame(rows, columns=["condition", "fold", "split"]).to_csv(path, index=False)
    plan, said = planned(file, path, None)
    found = {s.split("|")[0]: int(f) for s, f in zip(plan.table["sample_id"], plan.table["fold"], strict=True)}
    assert found == {p: i % 4 for i, p in enumerate(every)} and "folds_without_test" in said


@pytest.mark.parametrize("named", ["sample_id", "id", None])
def test_folds_of_samples_stay_a_table_of_our_own(tmp_path, file, named):
    """Which must name every sample."""
    table = pd.DataFrame({"fold": np.arange(len(expected())) % 2}, index=pd.Index(list(expected()), name=named))
    table.to_csv(tmp_path / "folds.csv")
    table.to_parquet(tmp_path / "folds.parquet")
    assert read_split(tmp_path / "folds.csv", file.obs) is None
    assert read_split(tmp_path / "folds.parquet", file.obs) is None


def test_json_that_is_no_split_is_not_called_damaged(tmp_path, file):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"a": [1, 2], "b": {"c": 1}}))
    with pytest.raises(InputError, match=r"no split that is known here: expected train and test") as told:
        planned(file, path)
    assert "cannot be read" not in str(told.value)


@pytest.mark.parametrize("apart", [False, True])
def test_a_table_of_pairs_places_what_was_done_in_each_cell_line(tmp_path, file, apart):
    """Rows of both lines were put where one line was, if the other had no row; and refused if the lines differ."""
    rows = [(p, line, "test" if p in TEST else "train") for p in [*SINGLES, *DOUBLES] for line in ("K562", "RPE1")]
    rows.remove((TEST[0], "RPE1", "test"))
    if apart:
        rows = [(p, line, "train" if line == "RPE1" else part) for p, line, part in rows]
    rows += [("ctrl", "K562", "train"), ("GENE00+ctrl", "HEK", "test")]
    table = pd.DataFrame(rows, columns=["condition", "cell_type", "split"]).sample(frac=1, random_state=0)
    table.to_csv(tmp_path / "split.csv", index=False)
    plan, found = planned(file, tmp_path / "split.csv")
    wanted = expected(lines=("K562",) if apart else ("K562", "RPE1"))
    wanted.pop(f"{TEST[0]}|RPE1")
    assert roles(plan) == wanted
    assert found["samples_without_place"].count == 1
    assert found["split_names_unknown"].examples == ("GENE00+ctrl / HEK",)


def test_folds_of_pairs(tmp_path, file):
    rows = [(p, line, (i + j) % 3) for i, p in enumerate(SINGLES) for j, line in enumerate(("K562", "RPE1"))]
    pd.DataFrame(rows, columns=["perturbation", "cell_line", "fold"]).to_csv(tmp_path / "split.csv", index=False)
    split = read_split(tmp_path / "split.csv", file.obs, file.cells)
    assert dict(split.table.to_numpy().tolist()) == {f"{p}|{line}": k for p, line, k in rows}
    assert split.group_by == "perturbation+cell_line"
