"""Entry of a worker process: `python -m visa_jupyter_proxy.worker LISTENER MAILBOX [TALLY]` (descriptors).

Started by control only. It ignores SIGHUP, SIGINT, SIGTERM and SIGUSR1, which a terminal or a service manager
sends to all processes at once: control decides, and a worker that has lost control stops by itself.
"""

import signal
import socket
import sys

import uvloop

from visa_jupyter_proxy.worker.life import serve


def main() -> None:
    """Run one worker."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    listener, pipe, *tally = map(int, sys.argv[1:])
    uvloop.run(serve(socket.socket(fileno=listener), socket.socket(fileno=pipe), *tally))


if __name__ == "__main__":
    main()
