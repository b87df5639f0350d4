"""Fold plan: whole groups, explicit tables, files that notice a change. Laws over random designs are in tests/laws."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pertstack._base.errors import ConflictError, CorruptionError, InputError, MissingFileError, UnknownNameError
from pertstack.design.blocks import Block
from pertstack.design.plan.assign import dealt_places, hashed_place, salt_of
from pertstack.design.plan.folds import FoldPlan
from pertstack.design.plan.groups import group_ids, question
from realdata import real_data

FIRST_RELEASE = {"d0": 1, "d1": None, "d2": None, "d3": 1, "d4": 0, "d5": 0, "d6": None, "d7": None}
FIRST_DIGEST = "31fdab755db0f5a5"


def world(n_perturbations: int = 60, lines: tuple[str, ...] = ("A549", "MCF7"), replicates: int = 2) -> pd.DataFrame:
    rows = [
        (f"d{p}|{line}|{r}", f"d{p}", line, f"plate{r}", f"c{(p + r) % 7}")
        for p in range(n_perturbations)
        for line in lines
        for r in range(replicates)
    ]
    frame = pd.DataFrame(rows, columns=["id", "perturbation", "cell_line", "plate", "control_id"])
    return frame.set_index("id")


def test_whole_groups_move_together_and_every_sample_has_one_place() -> None:
    obs = world()
    table = FoldPlan.make(obs, n_folds=3, test_share=0.25, seed=4).table
    assert list(table["sample_id"]) == list(obs.index)
    assert (table.groupby("group")["fold"].nunique(dropna=False) == 1).all()
    assert (table["role"] == "test").equals(table["fold"].isna())
    assert set(table["fold"].dropna()) == {0, 1, 2}


def test_the_place_of_a_group_is_the_hash_written_out_by_hand() -> None:
    """The rule in the standard library alone: 64 bits under the threshold are the test, other bits give the fold."""
    salt, threshold = salt_of(3), int(0.2 * 2**64)

    def bits(person: bytes, group: str) -> int:
        return int(hashlib.blake2b(group.encode(), digest_size=8, key=salt.encode(), person=person).hexdigest(), 16)

    for name in map(str, range(200)):
        expected = None
        if bits(b"pertstack.role", name) >= threshold:
            expected = int(bits(b"pertstack.fold", name) / 2**64 * 5)
        assert hashed_place(name, salt=salt, n_folds=5, threshold=threshold) == expected


def test_known_assignments_stay_what_they_were_in_the_first_release() -> None:
    """Written down once; a change here would move the folds of every study ever made."""
    obs = world(120, ("A549",), 1)
    plan = FoldPlan.make(obs, seed=0)
    first = {
        g: None if pd.isna(f) else int(f) for g, f in zip(plan.table["group"][:8], plan.table["fold"][:8], strict=True)
    }
    assert plan.rule == "hashed"
    assert first == FIRST_RELEASE
    assert plan.digest.startswith(FIRST_DIGEST)


def test_below_a_hundred_groups_folds_are_of_one_size() -> None:
    """Thirty perturbations by their hashes alone gave 4 test groups and folds of 7, 14 and 5 (issue 15, A4)."""
    for n, seed in ((30, 0), (30, 1), (99, 0), (50, 7)):
        plan = FoldPlan.make(world(n, ("A549",), 1), seed=seed)
        parts = {(p["role"], p["fold"]): p["groups"] for p in plan.describe()["parts"]}
        folds = [parts["development", k] for k in range(3)]
        assert plan.rule == "dealt" and parts["test", None] == round(0.2 * n)
        assert max(folds) - min(folds) <= 1


def test_another_process_with_another_hash_seed_makes_the_same_plan() -> None:
    code = (
        "import pandas as pd; from pertstack.design.plan.folds import FoldPlan;"
        "print(FoldPlan.make(pd.DataFrame({'perturbation': [f'd{i//2}' for i in range(90)]},"
        " index=[f's{i}' for i in range(90)])).digest)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("group_by", ["sample", "cell_line", "control_id", "plate", "perturbation+cell_line"])
def test_groups_by_other_columns(group_by: str) -> None:
    obs = world(30, tuple(f"line{i}" for i in range(12)), 2)
    if group_by == "plate":
        obs["plate"] = [f"p{i % 10}" for i in range(len(obs))]
    plan = FoldPlan.make(obs, group_by, n_folds=2)
    groups = group_ids(obs, group_by)
    assert list(plan.groups.items()) == list(groups.items())  # the type of the column is pandas 2's or 3's
    assert (plan.table.groupby("group")["fold"].nunique(dropna=False) == 1).all()


def test_joined_groups_do_not_collide() -> None:
    obs = pd.DataFrame({"perturbation": ["a|b", "a", "a\\"], "cell_line": ["c", "b|c", "|c"]}, index=["x", "y", "z"])
    assert group_ids(obs, "perturbation+cell_line").nunique() == 3


def test_nine_cell_lines_are_dealt_evenly() -> None:
    lines = [f"line{i}" for i in range(9)]
    for seed in range(50):
        plan = FoldPlan.make(world(3, tuple(lines), 1), "cell_line", n_folds=3, test_share=0.2, seed=seed)
        groups = {part["fold"]: part["groups"] for part in plan.describe()["parts"]}
        assert plan.rule == "dealt"
        assert groups[None] == 2
        assert sorted(groups[f] for f in range(3)) == [2, 2, 3]
    assert (
        len({tuple(dealt_places(lines, salt=salt_of(s), n_folds=3, test_share=0.2).items()) for s in range(20)}) == 20
    )


def test_too_few_groups_are_refused_with_the_counts() -> None:
    with pytest.raises(InputError, match=r"Too few groups: 6 in all, 1 of them held out, .*fold 2: 1"):
        FoldPlan.make(world(6), n_folds=3)
    assert FoldPlan.make(world(6), n_folds=3, test_share=0).rule == "dealt"


@pytest.mark.parametrize(("n_folds", "share"), [(1, 0.2), (0, 0.2), (3, -0.1), (3, 0.95), (3, float("nan"))])
def test_impossible_choices_are_refused(n_folds: int, share: float) -> None:
    with pytest.raises(InputError):
        FoldPlan.make(world(), n_folds=n_folds, test_share=share)


def test_samples_without_an_id_or_a_group_are_refused_by_name() -> None:
    obs = world()
    with pytest.raises(InputError, match=r"2 of 240 samples have no perturbation: 'd0\|A549\|0', 'd0\|A549\|1'"):
        FoldPlan.make(obs.assign(perturbation=[None, " ", *obs["perturbation"][2:]]))
    with pytest.raises(InputError, match="occur more than once: 'same'"):
        FoldPlan.make(pd.DataFrame({"perturbation": ["a", "b"]}, index=["same", "same"]))
    with pytest.raises(UnknownNameError, match="Did you mean 'cell_line'"):
        FoldPlan.make(obs, "cel_line")
    with pytest.raises(InputError, match="empty column"):
        FoldPlan.make(obs, "perturbation+")


def test_structures_group_names_of_the_same_compound() -> None:
    pytest.importorskip("rdkit")
    obs = pd.DataFrame(
        {
            "perturbation": ["ethanol", "EtOH", "water", "mystery", "water"],
            "smiles": ["CCO", "OCC", "O", None, None],
        },
        index=list("abcde"),
    )
    assert list(group_ids(obs, "smiles")) == ["CCO", "CCO", "O", "name:mystery", "O"]


def test_blocks_follow_the_plan_and_name_lost_samples() -> None:
    obs = world()
    plan = FoldPlan.make(obs)
    shuffled = obs.sample(frac=1, random_state=1)
    blocks = plan.blocks(shuffled)
    assert list(blocks) == sorted(blocks)
    assert blocks[Block("MCF7", 1)] == [
        s for s, f in zip(plan.table["sample_id"], plan.table["fold"].fillna(9), strict=True) if f == 1 and "MCF7" in s
    ]
    assert sorted(chain.from_iterable(blocks.values())) == sorted(obs.index)
    with pytest.raises(InputError, match=r"1 samples of the plan are not in the data \('d0\|A549\|0'\)"):
        plan.blocks(obs.iloc[1:])


def test_rows_a_fit_may_see() -> None:
    plan = FoldPlan.make(world())
    parts = [plan.sample_ids(fold=f) for f in range(3)]
    for f in range(3):
        assert sorted(plan.sample_ids(outside=f)) == sorted(chain.from_iterable(parts[:f] + parts[f + 1 :]))
    assert len(plan.sample_ids("test")) + len(plan.sample_ids("development")) == len(plan.table)


def test_extension_keeps_everyone_and_new_replicates_go_with_their_group() -> None:
    obs = world()
    plan = FoldPlan.make(obs)
    more = pd.concat([obs, world(70, ("A549",), 3)]).loc[lambda d: ~d.index.duplicated()]
    longer = plan.extend(more)
    old = longer.table.iloc[: len(obs)].drop(columns="segment")
    pd.testing.assert_frame_equal(old, plan.table.drop(columns="segment"))
    assert (longer.table.groupby("group")["fold"].nunique(dropna=False) == 1).all()
    assert set(longer.table["segment"][len(obs) :]) == {1}
    assert longer.accepts(plan.digest)
    assert not plan.accepts(longer.digest)
    assert any(block.segment == 1 for block in longer.blocks(more))
    assert plan.extend(obs) is plan


def test_a_known_sample_with_another_group_is_refused() -> None:
    obs = world()
    plan = FoldPlan.make(obs)
    with pytest.raises(InputError, match=r"1 samples of the plan come back with another perturbation: 'd0\|A549\|0'"):
        plan.extend(obs.assign(perturbation=["other", *obs["perturbation"][1:]]))


def test_files_come_back_as_they_were(tmp_path: Path) -> None:
    obs = world(120)
    plan = FoldPlan.make(obs, seed=5)
    plan.save(tmp_path)
    back = FoldPlan.load(tmp_path)
    pd.testing.assert_frame_equal(back.table, plan.table)
    assert (back.digest, back.salt, back.seed, back.rule) == (plan.digest, plan.salt, 5, "hashed")
    facts = json.loads((tmp_path / "plan.json").read_text())
    assert facts["format"] == 1
    assert facts["question"] == "new perturbations in known cell lines"
    longer = back.extend(pd.concat([obs, world(121, ("A549",), 1).iloc[-1:]]))
    longer.save(tmp_path)
    assert FoldPlan.load(tmp_path).digest == longer.digest


def test_a_plan_on_disk_only_grows(tmp_path: Path) -> None:
    plan = FoldPlan.make(world(), seed=5)
    plan.save(tmp_path)
    with pytest.raises(ConflictError, match="A plan only grows"):
        FoldPlan.make(world(), seed=6).save(tmp_path)
    assert FoldPlan.load(tmp_path).digest == plan.digest


def rewrite(path: Path, change: str) -> None:
    """Tamper with folds.parquet, keeping its metadata."""
    rows = pq.read_table(path)
    table = rows.to_pandas()
    if change == "move":
        table.loc[3, "fold"] = (table.loc[3, "fold"] + 1) % 3 if table.loc[3, "role"] == "development" else 0
    if change == "drop":
        table = table.iloc[1:]
    if change == "add":
        table.loc[len(table)] = ["new", "d0", "development", 0, 1]
    pq.write_table(
        pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(rows.schema.metadata), path
    )


@pytest.mark.parametrize("change", ["move", "drop", "add"])
def test_a_changed_assignment_is_found(tmp_path: Path, change: str) -> None:
    FoldPlan.make(world()).save(tmp_path)
    rewrite(tmp_path / "folds.parquet", change)
    with pytest.raises(CorruptionError, match=r"folds\.parquet"):
        FoldPlan.load(tmp_path)


def test_reordered_rows_are_the_same_assignments(tmp_path: Path) -> None:
    plan = FoldPlan.make(world())
    plan.save(tmp_path)
    rows = pq.read_table(tmp_path / "folds.parquet")
    pq.write_table(rows.take(list(range(len(rows)))[::-1]), tmp_path / "folds.parquet", compression="none")
    assert FoldPlan.load(tmp_path).digest == plan.digest


def test_files_that_are_damaged_missing_or_of_another_study(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="there is no fold plan"):
        FoldPlan.load(tmp_path)
    FoldPlan.make(world()).save(tmp_path)
    FoldPlan.make(world(), seed=1).save(tmp_path / "other")
    (tmp_path / "plan.json").write_bytes((tmp_path / "other" / "plan.json").read_bytes())
    with pytest.raises(CorruptionError, match="copied from another study"):
        FoldPlan.load(tmp_path)
    (tmp_path / "folds.parquet").write_bytes((tmp_path / "folds.parquet").read_bytes()[:200])
    with pytest.raises(CorruptionError, match="cannot be read as a fold plan"):
        FoldPlan.load(tmp_path)


def test_a_stop_between_the_two_files_leaves_the_new_plan(tmp_path: Path) -> None:
    obs = world()
    plan = FoldPlan.make(obs.iloc[:200])
    plan.save(tmp_path)
    old = (tmp_path / "plan.json").read_bytes()
    longer = plan.extend(obs)
    longer.save(tmp_path)
    (tmp_path / "plan.json").write_bytes(old)
    assert FoldPlan.load(tmp_path).digest == longer.digest


def test_writing_into_the_table_is_noticed(tmp_path: Path) -> None:
    plan = FoldPlan.make(world())
    plan.table.loc[0, "group"] = "other"
    with pytest.raises(CorruptionError, match="the plan in memory"):
        plan.save(tmp_path)


def explicit(obs: pd.DataFrame) -> pd.DataFrame:
    fold = [int(p[1:]) % 4 for p in obs["perturbation"]]
    return pd.DataFrame({"sample_id": obs.index, "fold": [None if f == 3 else f for f in fold]})


def test_an_explicit_table_is_matched_by_id(tmp_path: Path) -> None:
    obs = world()
    plan = FoldPlan.from_table(explicit(obs).sample(frac=1, random_state=0), obs, group_by="perturbation")
    assert plan.rule == "table"
    assert list(plan.table["sample_id"]) == list(obs.index)
    assert plan.table.set_index("sample_id").loc["d6|A549|1", "fold"] == 2
    assert plan.table.set_index("sample_id").loc["d7|A549|1", "role"] == "test"
    plan.save(tmp_path)
    assert FoldPlan.load(tmp_path).test_share is None


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv"])
def test_an_explicit_table_in_a_file(tmp_path: Path, suffix: str) -> None:
    """Ids that look like numbers stay text, with their leading zeros."""
    obs = world()
    obs.index = [f"{i:04d}" for i in range(len(obs))]
    path = tmp_path / f"folds.{suffix}"
    if suffix == "parquet":
        explicit(obs).to_parquet(path)
    else:
        explicit(obs).to_csv(path, index=False, sep="," if suffix == "csv" else "\t")
    expected = FoldPlan.from_table(explicit(obs), obs, group_by="perturbation")
    assert FoldPlan.from_file(path, obs, group_by="perturbation").digest == expected.digest
    with pytest.raises(MissingFileError, match="does not exist"):
        FoldPlan.from_file(tmp_path / "none.csv", obs)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read as a table"):
        FoldPlan.from_file(path, obs)


def test_an_explicit_table_with_roles_only_gets_folds_from_the_hash_of_the_group() -> None:
    obs = world()
    table = pd.DataFrame(
        {"sample_id": obs.index, "role": ["test" if p == "d5" else "development" for p in obs["perturbation"]]}
    )
    plan = FoldPlan.from_table(table, obs, group_by="perturbation", n_folds=4)
    assert set(plan.table.loc[plan.table["role"] == "test", "group"]) == {"d5"}
    assert plan.n_folds == 4
    assert (plan.table.groupby("group")["fold"].nunique(dropna=False) == 1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(sample_id=[f"x{s}" for s in t["sample_id"]]), "240 ids of the table are .* and 230 more"),
        (lambda t: t.iloc[3:], "3 samples of the data are not in the table"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "occur more than once"),
        (lambda t: t.assign(fold=t["fold"] + 1), r"folds of the table are \[1, 2, 3\].*off by one"),
        (lambda t: t.assign(fold=t["fold"].replace(2, 2.5)), "not whole"),
        (lambda t: t.assign(role="train"), "Roles 'train' are not known"),
        (lambda t: t.assign(role="development"), "role that contradicts their fold"),
        (lambda t: t.drop(columns="fold"), "Unknown column 'fold'"),
        (lambda t: t.assign(fold=[2 if i == 0 else i % 2 for i in range(len(t))]), "Too few groups"),
    ],
)
def test_tables_that_cannot_be_meant(change, message: str) -> None:  # type: ignore[no-untyped-def]
    obs = world()
    with pytest.raises((InputError, UnknownNameError), match=message):
        FoldPlan.from_table(change(explicit(obs)), obs)


def test_a_table_plan_takes_new_replicates_but_not_new_groups() -> None:
    obs = world(replicates=1)
    plan = FoldPlan.from_table(explicit(obs), obs, group_by="perturbation")
    longer = plan.extend(world(replicates=2))
    assert (longer.table.groupby("group")["fold"].nunique(dropna=False) == 1).all()
    with pytest.raises(InputError, match="does not say where 1 new groups go: 'd60'"):
        plan.extend(world(61, replicates=1))
    split = FoldPlan.from_table(
        explicit(obs).assign(fold=[i % 2 for i in range(len(obs))]), obs, group_by="perturbation"
    )
    with pytest.raises(InputError, match="several folds"):
        split.extend(world(replicates=2))


def test_questions_in_plain_words() -> None:
    assert question("cell_line") == "known perturbations in new cell lines"
    assert question("cell_line+perturbation") == question("perturbation+cell_line")
    assert question("batch") == "new values of batch"
    assert question("batch+plate") == "new combinations of batch, plate"


@pytest.mark.parametrize(
    ("name", "group_by", "rule"),
    [
        ("l1000_single_line/ht115_cpc006.h5ad", "perturbation", "hashed"),
        ("l1000_single_line/ht115_cpc006.h5ad", "smiles", "hashed"),
        ("l1000_single_line/a375_ljp005.h5ad", "perturbation", "dealt"),
        ("l1000_multicell/pairs_14compounds_43lines.h5ad", "cell_line", "dealt"),
        ("l1000_multicell/pairs_14compounds_43lines.h5ad", "perturbation", "dealt"),
        ("norman_doubles/pseudobulk.h5ad", "perturbation", "hashed"),
    ],
)
def test_real_designs(name: str, group_by: str, rule: str) -> None:
    import anndata

    obs = anndata.read_h5ad(real_data(name), backed="r").obs.astype({"perturbation": object, "cell_line": object})
    plan = FoldPlan.make(obs, group_by)
    assert plan.rule == rule
    share = (plan.table["role"] == "test").mean()
    assert 0.05 < share < 0.4
    assert min(part["groups"] for part in plan.describe()["parts"]) >= 2
