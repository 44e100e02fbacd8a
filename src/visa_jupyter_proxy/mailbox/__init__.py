"""The messages between control and a worker, and the pipe that carries them.

- `downwards`: what control tells a worker, `Start` first;
- `upwards`: what a worker tells control;
- `pipe`: the `Mailbox`, one end of what carries both.

Nobody waits for an answer: every message stands alone.
"""

from visa_jupyter_proxy.mailbox.downwards import (
    REQUEST_ID_HERE,
    SERVICE_HERE,
    STATUS_HERE,
    Downwards,
    Drain,
    EndTunnels,
    LookAtTunnels,
    Page,
    Ping,
    Reload,
    ShowState,
    Start,
    WorkerSettings,
)
from visa_jupyter_proxy.mailbox.pipe import Mailbox, Message
from visa_jupyter_proxy.mailbox.upwards import (
    OPAQUE,
    AccessHeld,
    AccessReleased,
    Count,
    Counters,
    NotebookKey,
    Observed,
    Pong,
    Ready,
    TokenAccepted,
    Traffic,
    TunnelEnded,
    TunnelOpened,
    TunnelProgressed,
    Upwards,
)

__all__ = [
    "OPAQUE",
    "REQUEST_ID_HERE",
    "SERVICE_HERE",
    "STATUS_HERE",
    "AccessHeld",
    "AccessReleased",
    "Count",
    "Counters",
    "Downwards",
    "Drain",
    "EndTunnels",
    "LookAtTunnels",
    "Mailbox",
    "Message",
    "NotebookKey",
    "Observed",
    "Page",
    "Ping",
    "Pong",
    "Ready",
    "Reload",
    "ShowState",
    "Start",
    "TokenAccepted",
    "Traffic",
    "TunnelEnded",
    "TunnelOpened",
    "TunnelProgressed",
    "Upwards",
    "WorkerSettings",
]
