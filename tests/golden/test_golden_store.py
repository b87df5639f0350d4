"""Stores written by earlier versions are read for ever; each format keeps its golden files here."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from pertstack.design.provenance import FittedOn
from pertstack.predictions import PredictionStore, StoreSource

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("make_store", HERE / "make_store.py")
assert spec is not None and spec.loader is not None
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)


@pytest.fixture(params=["store_v1"])
def store(request: pytest.FixtureRequest) -> PredictionStore:
    return PredictionStore.open(HERE / request.param, read_only=True)


def test_the_golden_store_is_whole(store: PredictionStore) -> None:
    assert [f for f in store.verify(deep=True) if f.severity != "note"] == []


def test_the_golden_store_says_what_it_said(store: PredictionStore) -> None:
    assert store.blocks() == [made.LINE, made.TEST] and list(store.gene_names) == made.GENES
    assert store.models() == ["deep/größe v2", "partial"] and store.plan_digest == made.PLAN
    assert store.sample_ids(made.LINE) == made.ids(made.LINE)
    assert store.obs(made.TEST)["perturbation"].tolist() == ["größe", "größe"]
    assert store.status(made.TEST, "partial") == "absent" and store.status(made.LINE, "wrong") == "missing"
    np.testing.assert_array_equal(store.read(made.LINE, "treated", verify=True), made.values(made.LINE, 1))
    np.testing.assert_array_equal(store.read(made.LINE, "deep/größe v2"), made.values(made.LINE, 2))
    np.testing.assert_array_equal(store.read_embedding(made.LINE, "deep/größe v2"), made.values(made.LINE, 4)[:, :2])
    partial = made.values(made.LINE, 3)
    partial[0], partial[:, 2] = np.nan, np.nan
    np.testing.assert_array_equal(store.read(made.LINE, "partial", verify=True), partial)
    record = store.record(made.LINE, "deep/größe v2")
    assert record.fitted_on == FittedOn.fold_of_plan(made.PLAN, 1, ["x", "y"]) and record.meta == {"seed": 7}
    assert StoreSource(store).sound(made.LINE, "partial").tolist() == [False, True, True, True, False]


def test_content_digests_are_the_same_for_ever(store: PredictionStore) -> None:
    """They name cached reductions and snapshots; the numbers were written down when format 1 was made."""
    digests = {r.model: r.digest[:16] for r in store.records() if r.kind == "layer" and r.block == made.LINE}
    assert digests == {
        "control": "680f9c9a9dfb03bc",
        "treated": "bcd1f7cc084305ff",
        "deep/größe v2": "a1105dac971b102f",
        "partial": "e38d1d41587eb67b",
    }


def test_this_version_still_writes_those_bytes(store: PredictionStore, tmp_path: Path) -> None:
    made.make(tmp_path / "now")
    for old in sorted(store.root.rglob("c/*/0")):
        if "layers" in old.parts or "obsm" in old.parts:
            assert (tmp_path / "now" / old.relative_to(store.root)).read_bytes() == old.read_bytes(), old
