"""The journal's file, cut short at the calls that change it, by a death or by an error of the disk."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

HERE: Final = Path(__file__).parent


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile what cuts."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler:  apt-get install gcc libc6-dev")
    library = tmp_path_factory.mktemp("boundaries") / "boundaries.so"
    command = ["cc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(library)]
    subprocess.run([*command, str(HERE / "boundaries" / "boundaries.c"), "-ldl"], check=True)
    return library


def cut(shim: Path, directory: Path, *words: str) -> dict[str, Any]:
    """Cut lives of a journal; give what came of it."""
    done = subprocess.run(
        [sys.executable, "-m", "process.boundaries", directory, *words],
        env=os.environ | {"LD_PRELOAD": str(shim), "PYTHONPATH": str(HERE.parent)},
        stdout=subprocess.PIPE,
        check=True,
        timeout=600,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# At every call (EVERY=1) that is a thousand lives, and takes minutes; the three look at different calls.
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "first"), [("kill", "1"), ("EIO", "10"), ("ENOSPC", "20")])
def test_216_a_write_that_is_cut_short(shim: Path, tmp_path: Path, kind: str, first: str) -> None:
    """What was acknowledged is there, half a transaction never is; it goes on where it was cut."""
    every = os.environ.get("EVERY", "43")
    found = cut(shim, tmp_path, kind, first, every)
    assert [] == found["wrong"]
    assert found["calls"] > 100, found
    assert found["cut"] >= 100 // int(every), found
