"""Options of the whole suite, and what its tests share."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling, LoadScopeScheduling

from support.cases import Cases
from support.postgres import PostgresMissing, PostgresServer
from support.storage import Storage

_numbers = itertools.count()

# How long an example takes says something of the machine, nothing of what is tested.
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--cases`."""
    parser.addoption("--cases", action="store_true", help="print what became of each case of the wire")


def pytest_configure(config: pytest.Config) -> None:
    """Collect cases when they are asked for."""
    if config.getoption("--cases"):
        config.pluginmanager.register(Cases(), "cases")


class _Together(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Keeps in one process what shares a proxy or a demo: the tests of a file, and all of the browser's."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "e2e" if file.startswith("tests/e2e/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Say which tests run in which of several processes (`--numprocesses`)."""
    return _Together(config, log)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Run one PostgreSQL for all tests that want it."""
    try:
        server = PostgresServer.start()
    except PostgresMissing as missing:
        pytest.skip(str(missing))
    yield server
    server.end()


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """Give a place for a journal, empty: the test runs on each engine."""
    if request.param == "sqlite":
        yield Storage(tmp_path / "data")
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = f"journal{next(_numbers)}"
    yield Storage(tmp_path / "data", server, server.create(name))
    server.drop(name)
