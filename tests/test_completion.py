"""Completion, installed as `--help` says and asked by a real bash."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_NAME = "visa-jupyter-proxy"

_ASK = f"""
{_NAME} --install-completion >&2 || exit
source ~/.bashrc
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
COMP_LINE="$*"
COMP_POINT=${{#COMP_LINE}}
ours=$(complete -p {_NAME}) || exit
[[ $ours =~ -F\\ ([^ ]+) ]] && "${{BASH_REMATCH[1]}}" {_NAME}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
"""What bash does at the second TAB."""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("se", {"serve", "sessions"}),
        ("sessions p", {"prune"}),
        ("sessions --f", {"--format"}),
        ("sessions summary --by ", {"day", "user", "instance"}),
        ("sessions summary --by u", {"user"}),
        (
            "explain -",
            {"--websocket", "-w", "--method", "--header", "-H", "--token", "--peer", "--json", "--help"},
        ),
    ],
)
def test_bash_is_offered(tmp_path: Path, typed: str, offered: set[str]) -> None:
    """Commands, options and the values that they take."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        ["bash", "-c", _ASK, "bash", _NAME, *typed.split(" ")],
        env=os.environ | {"HOME": str(tmp_path), "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, offered) == (done.returncode, set(done.stdout.split())), done.stderr
