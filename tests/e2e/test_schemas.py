"""The JSON files others may rely on keep the schemas that are shipped with the package."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

FILES = {
    "leaderboard": "results/leaderboard.json",
    "weights": "results/weights.json",
    "diversity": "results/diversity.json",
    "calibration": "results/calibration.json",
    "checks": "results/checks.json",
    "plan": "plan/plan.json",
}


@pytest.mark.parametrize("name", FILES)
def test_written_files_keep_their_schema(name: str, study: Path):
    schema = json.loads(files("pertstack.verdict").joinpath("schemas", f"{name}.schema.json").read_text())
    value = json.loads((study / FILES[name]).read_text())
    Draft202012Validator(schema).validate(value)
    assert not Draft202012Validator(schema).is_valid({**value, "format": value["format"] + 1})
