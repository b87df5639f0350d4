"""Output in encodings that lack our signs and other people's letters, and when its reader has gone."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pertstack._base.machine import streams
from pertstack.cli.entry import main
from pertstack.cli.terminal import out_json

FULL = Path("/dev/full")


def in_ascii(speak) -> str:
    """What reaches a terminal in ASCII."""
    raw = io.BytesIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(raw, encoding="ascii")) as terminal:
        streams.speak_on_any_terminal()
        speak()
        terminal.flush()
        return raw.getvalue().decode("ascii")


def test_signs_become_plain_ones_and_names_are_spelt_out() -> None:
    said = in_ascii(lambda: print("▸ R² −0.07 ✓ … β 模 🧬"))
    assert said == "> R2 -0.07 + ~ \\u03b2 \\u6a21 \\ud83e\\uddec\n"
    assert json.loads(f'"{said.split()[5]}"') == "β" and json.loads(f'"{said.split()[7]}"') == "🧬"


def test_json_stays_the_same_json() -> None:
    value = {"β": "−1 ▸ 模🧬", "ü": 1}
    assert json.loads(in_ascii(lambda: out_json(value))) == value


LEAVES = """
    import sys, os
    from pertstack._base.machine import streams, progress
    streams.speak_on_any_terminal(); progress.show_progress(True)
    sys.stdin.readline()  # by now nobody reads
    for _ in range(100):
        streams.Voice(file=sys.stdout).print("a result")
        progress.remark("a remark")
    os.write(int(sys.argv[1]), b"finished")
    sys.exit(3)
"""


def test_work_goes_on_where_nobody_listens_and_keeps_its_exit_code() -> None:
    told, tells = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LEAVES), str(tells)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[tells],
    )
    os.close(tells)
    process.stdout.close()
    process.stderr.close()
    process.stdin.write(b"\n")
    process.stdin.close()
    assert process.wait(60) == 3 and os.read(told, 100) == b"finished"
    os.close(told)


def test_streams_that_were_closed_before_we_began_go_nowhere() -> None:
    script = "from pertstack._base.machine import streams, progress as p; streams.speak_on_any_terminal(); "
    script += "p.show_progress(True); p.remark('x'); print('y'); list(p.track([1], 'z')); raise SystemExit(4)"
    done = subprocess.run(["/bin/sh", "-c", f'"$0" -c "{script}" >&- 2>&-', sys.executable], check=False, timeout=60)
    assert done.returncode == 4


@pytest.mark.skipif(not FULL.exists(), reason="no device here that is always full")
@pytest.mark.parametrize("words", [("--version",), ("models",), ("--help",), ("init", "--help")])
def test_output_that_cannot_be_written_is_named_and_is_not_the_study(words, monkeypatch, capsys) -> None:
    """It was "Cannot write the study: the disk is full"."""
    monkeypatch.setattr(sys, "argv", ["pertstack", *words])
    with FULL.open("w") as full, contextlib.redirect_stdout(full), pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr().err
    assert left.value.code == 2 and said.count("Cannot write the output of this command: No space left") == 1
    assert "Cannot write the study" not in said
