"""Every guard named in mutants.toml can still be switched off; that a test then goes red is `make mutants`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def script():
    spec = importlib.util.spec_from_file_location("mutants", ROOT / "benchmarks" / "mutants.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants"] = module
    spec.loader.exec_module(module)
    return module


MUTANTS = script().load()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_the_patch_still_applies_exactly_once_and_is_python(mutant):
    path = ROOT / "src" / "pertstack" / mutant.file
    text = path.read_text(encoding="utf-8")
    changed = mutant.applied(text)
    assert changed != text
    compile(changed, str(path), "exec")


def test_every_named_test_exists_and_every_guard_is_told_in_the_docs():
    told = (ROOT / "docs" / "pitfalls.md").read_text(encoding="utf-8")
    for mutant in MUTANTS:
        for test in mutant.tests:
            file, name = test.split("::")
            name = name.split("[")[0]
            assert f"def {name}(" in (ROOT / "tests" / "pitfalls" / file).read_text(encoding="utf-8"), test
        assert f"`{mutant.name}`" in told, f"docs/pitfalls.md does not name {mutant.name}"


def test_a_patch_that_does_not_apply_once_is_refused():
    mutant = script().Mutant("m", "x.py", "a", "b", ("t",))
    for text in ("", "aa"):
        with pytest.raises(ValueError, match="not once"):
            mutant.applied(text)


def test_tests_that_do_not_end_are_ended_by_their_work_and_not_by_the_clock(tmp_path, monkeypatch):
    """On a busy machine ten minutes of waiting were half a minute of work, and a mutant had "no answer".

    Options for the tests outside are not for those inside: a folder for temporary files would be emptied under both.
    """
    monkeypatch.setenv("PYTEST_ADDOPTS", "--no-such-option")
    (tmp_path / "tests" / "pitfalls").mkdir(parents=True)
    (tmp_path / "tests" / "pitfalls" / "test_forever.py").write_text(
        "def test_forever():\n    while True:\n        pass\n"
    )
    with pytest.raises(subprocess.TimeoutExpired):
        script().run_tests(tmp_path, ("test_forever.py",), limit=3)
