"""Where a journal in a file may not be: on a file system that other machines write to as well.

SQLite's WAL is shared memory: it works among the processes of one machine only, and the locks of
network file systems are not to be relied on (sqlite.org/wal.html, sqlite.org/faq.html#q5). Two proxies
on one such directory would destroy the journal, sooner or later.
"""

import os
import re
from pathlib import Path
from typing import Final

_NETWORK: Final = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "davfs", "fuse.davfs2"),
    *(
        "ceph",
        "fuse.ceph-fuse",
        "glusterfs",
        "fuse.glusterfs",
        "lustre",
        "gpfs",
        "beegfs",
        "fhgfs",
        "orangefs",
    ),
    *("gfs", "gfs2", "ocfs2", "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.moosefs", "fuse.juicefs"),
}
"""As `/proc/self/mountinfo` calls them. What a host shares with its guest (9p, virtiofs) is none."""

_MOUNTS: Final = Path("/proc/self/mountinfo")


def network_type(path: Path, mounts: Path = _MOUNTS) -> str | None:
    """Give the type of the network file system that `path` is on, or would be; None for any other."""
    kind = _types(mounts).get(_device(path))
    return kind if kind in _NETWORK else None


def _device(path: Path) -> str | None:
    for place in (path, *path.absolute().parents):
        try:
            device = place.stat().st_dev
        except OSError:
            continue  # it is made later, in the first parent that exists
        return f"{os.major(device)}:{os.minor(device)}"
    return None


def _types(mounts: Path) -> dict[str | None, str]:
    """Device number -> type (proc_pid_mountinfo(5): the type is the first field after the dash)."""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return {}  # not Linux: nothing is known, and nothing refused
    found = (re.match(r"\S+ \S+ (\S+) .*? - (\S+) ", line) for line in lines)
    return {match[1]: match[2] for match in found if match}
