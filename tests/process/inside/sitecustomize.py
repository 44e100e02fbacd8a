"""What a test does inside the proxy's processes: move the clock on the wall, break.

Python imports it at the start of each process that has this directory in PYTHONPATH, before all else.
`CLOCK_OFFSET_FILE` names a file with the seconds by which the wall clock is off. With `SPINS` SIGUSR2 has
the process do nothing else for ever. A worker ends at its start while there is a `CRASH_FILE`, and takes the
file along when "once" stands in it. Without these variables it does nothing.
"""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

if "CLOCK_OFFSET_FILE" in os.environ:
    _offset = Path(os.environ["CLOCK_OFFSET_FILE"])
    _time = time.time

    def _moved() -> float:
        return _time() + float(_offset.read_text())

    time.time = _moved

if "SPINS" in os.environ:

    def _spin(*_: object) -> None:
        while True:
            pass

    signal.signal(signal.SIGUSR2, _spin)

if "CRASH_FILE" in os.environ and "visa_jupyter_proxy.worker" in sys.orig_argv:
    _crash = Path(os.environ["CRASH_FILE"])
    with suppress(FileNotFoundError):  # nobody is to crash, or another one has
        if _crash.read_text() == "once":
            _crash.unlink()
        os._exit(3)
