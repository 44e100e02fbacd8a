"""The log of both kinds of process: one line for an event, to standard error and, if set, to syslog.

    log = logs.get()
    log.info("listening", host="0.0.0.0", port=8088)
    if logs.enabled("debug"):
        log.debug("request", **what_takes_time_to_collect())

- `logger` has the eight levels of syslog and brings the lines of other libraries in.
- `lines` makes text of them: key=value on a terminal, JSON elsewhere.
- `syslog_udp` sends them to a syslog host.

The caller sees to it that no secret is in a field; in texts of exceptions and of other libraries,
whatever looks like a token is blanked.
"""

from visa_jupyter_proxy.logs.lines import LEVELS, without_tokens
from visa_jupyter_proxy.logs.logger import Logger, configure, enabled, get

__all__ = ["LEVELS", "Logger", "configure", "enabled", "get", "without_tokens"]
