"""One demo for all end-to-end tests, after which its proxy is as it was before them."""

from collections.abc import Iterator

import pytest

from support.running_demo import RunningDemo
from support.usage import Start, states


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    """VISA, two JupyterLabs and the proxy, as `visa-jupyter-proxy demo` starts them."""
    with RunningDemo.start(tmp_path_factory.mktemp("demo")) as running:
        start = Start(lambda: states(running.proxy_pid, running.logs / "proxy.log"))
        yield running
        start.wait_until_back()
        assert 0 == running.stop()
