"""What a test does inside the proxy's processes: move the clock on the wall, count what is left.

Python imports it at the start of each process that has this directory in PYTHONPATH, before all else.
`CLOCK_OFFSET_FILE` names a file with the seconds by which the wall clock is off; SIGUSR2 writes how many
asyncio tasks there are to `TASKS_FILE`. Without these variables it does nothing.
"""

import asyncio
import os
import signal
import time
from pathlib import Path

if "CLOCK_OFFSET_FILE" in os.environ:
    _offset = Path(os.environ["CLOCK_OFFSET_FILE"])
    _time = time.time

    def _moved() -> float:
        return _time() + float(_offset.read_text())

    time.time = _moved

if "TASKS_FILE" in os.environ:
    _tasks = Path(os.environ["TASKS_FILE"])

    def _count(*_: object) -> None:
        written = _tasks.with_suffix(".new")
        written.write_text(f"{len(asyncio.all_tasks(asyncio.get_event_loop()))}")
        written.rename(_tasks)

    signal.signal(signal.SIGUSR2, _count)
