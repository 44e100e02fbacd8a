"""What all commands have in common, as processes."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.proxy import PREFIX
from support.storage import Storage
from test_sessions import Facility

_ANSWERING: Sequence[Sequence[str]] = (
    ("--version",),
    ("--help",),
    ("routes",),
    ("routes", "--json"),
    ("explain", "/jupyter/1/lab"),
    ("explain", "/jupyter/1/lab", "--json"),
    ("sessions",),
    ("sessions", "--json"),
    ("sessions", "--format", "csv"),
    ("sessions", "summary"),
    ("sessions", "prune", "--days", "9"),
    ("sessions", "backup", "copy"),
)


def _run(
    directory: Path, words: Sequence[str], stdout: int, encoding: str = "utf-8"
) -> "subprocess.CompletedProcess[bytes]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    settings = {"STORAGE_DIR": str(directory / "data")}
    # As in a locale that is not C, where Python would rather fail than print what cannot be encoded.
    asked = {"NO_COLOR": "1", "PYTHONIOENCODING": f"{encoding}:strict"}
    return subprocess.run(
        [sys.executable, "-m", "visa_jupyter_proxy", *words],
        cwd=directory,
        env=inherited | asked | {PREFIX + name: value for name, value in settings.items()},
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
        timeout=110,
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Give a directory with a journal."""
    facility = Facility(Storage(tmp_path / "data"))
    facility.session("anna")
    facility.session("josé ☃")
    return tmp_path


@pytest.mark.parametrize("words", _ANSWERING, ids=" ".join)
def test_where_nothing_can_be_written(directory: Path, words: Sequence[str]) -> None:
    """A full disk under a report: it says so, with status 1, and without a traceback."""
    with Path("/dev/full").open("wb") as full:
        done = _run(directory, words, full.fileno())
    said = done.stderr.decode()
    assert 1 == done.returncode, said
    assert "visa-jupyter-proxy: the answer could not be written: No space left on device" in said
    assert "Traceback" not in said


def test_where_nobody_reads(directory: Path) -> None:
    """Whoever starts it has closed standard output: that is nobody's fault."""
    command = f'exec {sys.executable} -m visa_jupyter_proxy "$@" >&-'
    for words in _ANSWERING:
        done = subprocess.run(
            ["/bin/sh", "-c", command, "sh", *words],
            cwd=directory,
            env=os.environ | {PREFIX + "STORAGE_DIR": str(directory / "data")},
            stderr=subprocess.PIPE,
            check=False,
            timeout=110,
        )
        assert (0, b"") == (done.returncode, done.stderr), words


@pytest.mark.parametrize("words", [("sessions",), ("sessions", "--format", "csv")], ids=" ".join)
def test_what_the_terminal_cannot_show(directory: Path, words: Sequence[str]) -> None:
    """Is escaped there, whatever its encoding."""
    done = _run(directory, words, subprocess.PIPE, encoding="latin-1")
    assert (0, True) == (done.returncode, b"jos\xe9 \\u2603" in done.stdout), done.stderr


def test_a_file_whose_name_is_no_text(directory: Path) -> None:
    """File names are bytes: they are used as they are, and shown escaped."""
    done = _run(directory, ("sessions", "backup", "copy-\udcff"), subprocess.PIPE)
    assert (0, b"the journal was copied to copy-\\udcff\n") == (done.returncode, done.stdout)
    assert (directory / "copy-\udcff").exists()
