"""How many processors this process may use: what its affinity and its control group leave it."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the number of processors, at least one.

    `docker run --cpus=1.5` sets a quota and leaves the affinity alone: `os.cpu_count` would still be the
    whole machine. A quota of one and a half is two processors, for part of the time.
    """
    quotas = [math.ceil(quota) for quota in _quotas(groups, root)]
    return max(1, min([len(os.sched_getaffinity(0)), *quotas]))


def _quotas(groups: Path, root: Path) -> Iterator[float]:
    """Yield, in processors, every quota that holds: a group's own, and those of the groups around it."""
    for line in _text(groups).splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0":
            places, files = root, ["cpu.max"]
        elif "cpu" in controllers.split(","):
            places, files = root / "cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        # Inside a container the path may be the host's, and the container's own group is the root.
        for parent in (group, *group.parents):
            quota, period, *_ = [*_words(places / parent, files), "", ""]
            if quota.isdigit() and period.isdigit() and int(period):
                yield int(quota) / int(period)


def _words(directory: Path, files: list[str]) -> list[str]:
    """Read `quota` and `period`: in one file since version 2, where `max` is none; before, -1 is none."""
    return [word for name in files for word in _text(directory / name).split()]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # there is no such group, or no such version: it limits nothing
