"""The log of this process, as it was: `configure` changes it for everybody who comes later."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from visa_jupyter_proxy.logs import logger as implementation


@contextmanager
def log_kept() -> Iterator[None]:
    """Undo afterwards whatever `configure` has changed."""
    root = logging.getLogger()
    output, handlers, level = dict(vars(implementation._output)), root.handlers, root.level
    try:
        yield
    finally:
        syslog = implementation._output.syslog
        if syslog is not None and syslog is not output["syslog"]:
            syslog.close()
        logging.captureWarnings(capture=False)
        vars(implementation._output).update(output)
        root.handlers = handlers
        root.setLevel(level)
