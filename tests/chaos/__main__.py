"""`python -m chaos`: see `make chaos`."""

import argparse
import asyncio
import math
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from chaos.campaign import run
from chaos.plan import make_plan
from support.postgres import PostgresMissing, PostgresServer
from support.storage import Storage


def main() -> int:
    """Run, say what was found, and keep the logs of a run that has found something."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="how many (100)")
    parser.add_argument("--seconds", type=float, default=math.inf, help="how long at most, by the plan")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="the same deeds as in another run")
    parser.add_argument("--sqlite", action="store_true", help="both nodes on one SQLite file")
    arguments = parser.parse_args()
    plan = make_plan(arguments.seed, arguments.kills, arguments.seconds)
    kills = sum(step.deed == "kill" for step in plan)
    print(f"seed {arguments.seed}, {kills} kills in about {plan[-1].at:.0f} s", flush=True)  # noqa: T201 -- a command
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    server = None
    try:
        storage = Storage(directory / "data")
        if not arguments.sqlite:
            server = PostgresServer.start()
            storage = Storage(directory / "data", server, server.create("chaos"))
        outcome = asyncio.run(
            run(plan, seed=arguments.seed, directory=directory, settings=storage.settings, rows=storage.rows)
        )
    except PostgresMissing as missing:
        print(f"{missing}; or give --sqlite")  # noqa: T201 -- likewise
        return 2
    finally:
        if server is not None:
            server.end()
    print(outcome)  # noqa: T201 -- likewise
    if outcome.problems:
        print(f"see {directory}")  # noqa: T201 -- likewise
        return 1
    shutil.rmtree(directory)
    return 0


sys.exit(main())
