"""`python -m fuzz`: see `make fuzz`."""

import argparse
import secrets
import shutil
import socket
import sys
import tempfile
from pathlib import Path

from fuzz.campaign import fuzz


def main() -> int:
    """Run, say what was found, and keep the log of a run that has found something."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long (60)")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="the same numbers as in another run")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.seconds:g} s", flush=True)  # noqa: T201 -- a command
    with socket.create_server(("0.0.0.0", 0)) as sock:
        port = int(sock.getsockname()[1])
    directory = Path(tempfile.mkdtemp(prefix="fuzz-"))
    outcome = fuzz(directory, port, seed=arguments.seed, seconds=arguments.seconds)
    print(outcome)  # noqa: T201 -- likewise
    if outcome.problems:
        print(f"see {directory}")  # noqa: T201 -- likewise
        return 1
    shutil.rmtree(directory)
    return 0


sys.exit(main())
