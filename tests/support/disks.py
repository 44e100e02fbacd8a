"""A file system that is small, and one that is full."""

import errno
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest


def fill(ballast: Path) -> None:
    """Write until nothing fits any more."""
    with ballast.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError as error:
                assert errno.ENOSPC == error.errno  # noqa: PT017 -- its number is what matters
                return


def on_a_small_disk(directory: Path) -> Sequence[str]:
    """Give the command that runs another with a file system of its own on `directory`."""
    script = 'mount -t tmpfs -o size=512k none "$0" && exec "$@"'
    command = ["unshare", "--mount", *(["--map-root-user"] if os.getuid() else []), "sh", "-c", script]
    tried = subprocess.run([*command, str(directory), "true"], capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip("no file systems of our own here")
    return [*command, str(directory)]
