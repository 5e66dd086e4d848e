"""The operator's first verbs: one vault is made, and one of them shows its recovery key."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("number", range(3))
def test_two_first_verbs_at_once_make_one_vault(tmp_path: Path, number: int) -> None:
    del number  # a race is tried more than once
    program = str(Path(sys.executable).parent / "terok")
    config = tmp_path / "terok" / "config.yml"  # it says where everything is, for root too
    config.parent.mkdir()
    config.write_text(f"paths: {{data: {tmp_path}/data, runtime: {tmp_path}/run}}\n")
    places = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"), str(tmp_path))
    env = {"PATH": os.environ["PATH"], **places}
    verbs = [
        ["vault", "add", "work", "mistral"],
        ["ssh", "generate", "one", "--scope", "work"],
        ["ssh", "generate", "two", "--scope", "work"],
    ]
    running = [
        subprocess.Popen([program, *verb], env=env, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for verb in verbs
    ]
    said = [process.communicate("real-secret\n", timeout=60)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    assert sum(text.count("recovery key, shown only now") for text in said) == 1, said
