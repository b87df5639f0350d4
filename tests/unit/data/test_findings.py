"""Findings on disk."""

from __future__ import annotations

import json

from pertstack._base.findings import Finding


def test_numbers_that_json_does_not_have_are_null():
    said = Finding("note", "code", "words", numbers={"low": 1.5, "high": float("inf"), "n": 3, "none": float("nan")})
    value = json.loads(json.dumps(said.to_json(), allow_nan=False))
    assert value["numbers"] == {"low": 1.5, "high": None, "n": 3, "none": None}
    assert Finding.from_json(value).numbers["low"] == 1.5
