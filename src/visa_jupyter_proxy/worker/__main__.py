"""Entry of a worker process: `python -m visa_jupyter_proxy.worker LISTENER MAILBOX` (descriptors).

Started by control only. It ignores SIGINT and SIGTERM, which a terminal or a service manager sends to
all processes at once: control decides, and a worker that has lost control stops by itself.
"""

import signal
import socket
import sys

import uvloop

from visa_jupyter_proxy.worker.worker import serve


def main() -> None:
    """Run one worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    listener, pipe = (socket.socket(fileno=int(descriptor)) for descriptor in sys.argv[1:3])
    uvloop.run(serve(listener, pipe))


if __name__ == "__main__":
    main()
