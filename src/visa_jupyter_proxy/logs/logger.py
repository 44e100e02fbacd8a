"""The logger: eight levels, and one place where its lines go."""

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, tzinfo
from typing import Final, TextIO, override
from zoneinfo import ZoneInfo

from visa_jupyter_proxy.logs import lines
from visa_jupyter_proxy.logs.lines import SEVERITY
from visa_jupyter_proxy.logs.syslog_udp import SyslogHost

_SECOND: Final = len("2026-01-01T00:00:00")

EMERG, ALERT, CRIT, ERROR, WARNING, NOTICE, INFO, DEBUG = range(8)


class _Clock:
    """Writes the time, as RFC 3339 has it.

    Of a second it is written once, without its milliseconds: a line of the log took a third longer.
    """

    def __init__(self, zone: tzinfo | None) -> None:
        self._zone = zone
        self._second = -1
        self._before = self._behind = ""

    def now(self) -> str:
        second, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
        if second != self._second:
            text = datetime.fromtimestamp(second, UTC).astimezone(self._zone).isoformat()
            self._second, self._before, self._behind = second, text[:_SECOND], text[_SECOND:]
        return f"{self._before}.{milliseconds:03}{self._behind}"


class _Output:
    """Where the lines of this process go; there is one, and `configure` changes it."""

    def __init__(self) -> None:
        self.threshold = INFO
        self.clock = _Clock(None)
        self.syslog: SyslogHost | None = None
        self._stream: TextIO | None = None
        self._descriptor: int | None = None
        self._line: Callable[[lines.Fields], bytes] = lines.json_line
        self._lost = 0

    def to(self, stream: TextIO) -> None:
        self._stream = stream
        self._descriptor = _descriptor(stream)
        terminal = stream.isatty()
        colours = lines.wants_colours(terminal)
        self._line = lines.terminal_line(colours=colours) if terminal else lines.json_line

    def send(self, fields: lines.Fields) -> None:
        """Write a line, and send it to syslog. Never raises for an output that fails."""
        self._write(fields)
        if self.syslog is not None:
            self.syslog.send(SEVERITY[fields["level"]], fields["timestamp"], lines.key_values(fields))

    def report(self, text: str) -> None:
        """Write a line about the log itself, whatever the level; not to syslog."""
        self._write(_complete("warning", text, {}))

    def _write(self, fields: lines.Fields) -> None:
        data = self._line(fields)
        try:
            self._write_at_once(data)
        except (OSError, ValueError):
            # A full disk, a reader that is gone, a closed stream: the next line that gets out tells.
            self._lost += 1
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            self.report(f"{lost} lines of the log could not be written")

    def _write_at_once(self, data: bytes) -> None:
        if self._descriptor is None:
            (self._stream or sys.stderr).write(data.decode("utf-8"))
        while data and self._descriptor is not None:
            data = data[os.write(self._descriptor, data) :]


def _descriptor(stream: TextIO) -> int | None:
    try:
        stream.flush()
        return stream.fileno()
    except OSError:
        return None  # a stream in memory


def _complete(level: str, event: str, fields: Mapping[str, object]) -> lines.Fields:
    """Put first what every line has, and make text of an exception: whole for the severe levels."""
    line = {"timestamp": _output.clock.now(), "level": level, "event": event, **fields}
    if "exc_info" in line:
        exception = lines.exception_text(line.pop("exc_info"), whole=SEVERITY[level] <= ERROR)
        if exception is not None:
            line["exception"] = exception
    return line


def _say(level: str, event: str, fields: Mapping[str, object]) -> None:
    _output.send(_complete(level, event, fields))


_output: Final = _Output()


class Logger:
    """Logs events with fields: `log.info("connected", instance=12)`.

    `exc_info=` takes True, or an exception. The names `event`, `level`, `timestamp` and `exception` are the
    line's own. A line below the level costs a comparison.
    """

    __slots__ = ()

    def emerg(self, event: str, **fields: object) -> None:
        """Say that the system is unusable."""
        if _output.threshold >= EMERG:
            _say("emerg", event, fields)

    def alert(self, event: str, **fields: object) -> None:
        """Say that somebody has to act at once."""
        if _output.threshold >= ALERT:
            _say("alert", event, fields)

    def crit(self, event: str, **fields: object) -> None:
        """Say that a condition is critical."""
        if _output.threshold >= CRIT:
            _say("crit", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Say that something went wrong that should not have; an exception comes with its traceback."""
        if _output.threshold >= ERROR:
            _say("error", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Say what to look at before it goes wrong."""
        if _output.threshold >= WARNING:
            _say("warning", event, fields)

    def notice(self, event: str, **fields: object) -> None:
        """Say what is normal, but worth knowing."""
        if _output.threshold >= NOTICE:
            _say("notice", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Say what happens all the time."""
        if _output.threshold >= INFO:
            _say("info", event, fields)

    def debug(self, event: str, **fields: object) -> None:
        """Say what helps to find a defect."""
        if _output.threshold >= DEBUG:
            _say("debug", event, fields)


_logger: Final = Logger()


def get() -> Logger:
    """Return the logger, at any time: it follows what `configure` says later."""
    return _logger


def enabled(level: str) -> bool:
    """Tell whether lines of `level` are written: ask before collecting fields takes time."""
    return _output.threshold >= SEVERITY[level]


def configure(
    level: str = "info",
    timezone: str | None = None,
    syslog_host: str | None = None,
    syslog_port: int | None = None,
    syslog_app_name: str | None = None,
    *,
    stream: TextIO | None = None,
) -> None:
    """Set where lines go and which: to `stream` (default standard error), and to syslog if all three are set.

    `timezone` is an IANA zone, None the system's own. Messages of `logging`, from warning on, join in.
    Call it once in each process, before there are threads; a later call replaces what was set.
    """
    if _output.syslog is not None:
        _output.syslog.close()
    _output.threshold = SEVERITY[level]
    _output.clock = _Clock(None if timezone is None else ZoneInfo(timezone))
    _output.to(sys.stderr if stream is None else stream)
    _output.syslog = None
    if syslog_host and syslog_port and syslog_app_name:
        _output.syslog = SyslogHost(syslog_host, syslog_port, syslog_app_name, _output.report)
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    root.handlers = [_Foreign()]
    root.setLevel(logging.WARNING)


class _Foreign(logging.Handler):
    """Brings the messages of other libraries (asyncio, aiohttp, SQLAlchemy, alembic) into this log."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = lines.without_tokens(record.getMessage())
            _method(record.levelno)(text, logger=record.name, exc_info=record.exc_info)
        except Exception:  # noqa: BLE001 -- a log call of a library must not fail; logging says so on stderr
            self.handleError(record)


def _method(level: int) -> Callable[..., None]:
    if level >= logging.CRITICAL:
        return _logger.crit
    if level >= logging.ERROR:
        return _logger.error
    return _logger.warning
