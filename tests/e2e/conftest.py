"""One demo for all end-to-end tests."""

from collections.abc import Iterator

import pytest

from support.running_demo import RunningDemo


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    """VISA, two JupyterLabs and the proxy, as `visa-jupyter-proxy demo` starts them."""
    with RunningDemo.start(tmp_path_factory.mktemp("demo")) as running:
        yield running
        assert 0 == running.stop()
