"""The garbage collector of a process that serves for months.

Nearly everything is freed when the last one lets go of it. The collector is for what refers to each other,
and looks at everything it knows to find some: all are held up meanwhile.
"""

import gc
from typing import Final

_MANY_OBJECTS: Final = (10_000, 100, 100)
"""Containers made, and not yet freed, before it looks at the youngest (Python's own: 2 000). In a worker with
a thousand requests under way it looked all the time, for 4 to 10 % of the work. With 50 000 it took 10 to
25 ms at a time, thrice while 5 000 tunnels were opened: others waited."""


def settle() -> None:
    """Call it once, when all that stands to the end is there: it is never looked at again.

    In control, which has a library for every errand, it took a twelfth of the CPU time while sessions were
    opened.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_MANY_OBJECTS)
