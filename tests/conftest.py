"""Options of the whole suite."""

import pytest
from hypothesis import settings

from support.cases import Cases

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
