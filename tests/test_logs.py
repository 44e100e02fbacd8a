"""The log: what a line looks like, what cannot break it, and where it goes."""

import asyncio
import io
import json
import logging
import os
import pty
import re
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from select import PIPE_BUF
from typing import override

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.log import log_kept
from visa_jupyter_proxy import logs
from visa_jupyter_proxy.logs import lines as writing
from visa_jupyter_proxy.logs import logger as implementation

_ISO = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"
_NASTY = 'a"b\\c\nd\r\x1b[31m\x00\x85\u2028\u202e\udcff=é'


class _Terminal(io.StringIO):
    """A stream in memory that takes itself for a terminal."""

    @override
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what `configure` changes in this process."""
    monkeypatch.setenv("NO_COLOR", "1")
    with log_kept():
        yield


def _json(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "the condition does not come true"
        threading.Event().wait(0.005)


def _raised(text: str) -> ValueError:
    """Return an exception that has a traceback."""
    try:
        raise ValueError(text)  # noqa: TRY301 -- it is what this is for
    except ValueError as error:
        return error


class TestLevels:
    """The eight of syslog (RFC 5424 6.2.1)."""

    def test_each_has_a_method_and_its_name_on_the_line(self) -> None:
        """In the order of their severity."""
        stream = io.StringIO()
        logs.configure("debug", stream=stream)
        for level in logs.LEVELS:
            getattr(logs.get(), level)("said")
        assert list(logs.LEVELS) == [line["level"] for line in _json(stream)]

    @pytest.mark.parametrize("severity", range(8))
    def test_what_is_less_severe_is_not_written(self, severity: int) -> None:
        """`enabled` says the same."""
        stream = io.StringIO()
        logs.configure(logs.LEVELS[severity], stream=stream)
        for level in logs.LEVELS:
            getattr(logs.get(), level)("said")
        written = logs.LEVELS[: severity + 1]
        assert list(written) == [line["level"] for line in _json(stream)]
        assert list(written) == [level for level in logs.LEVELS if logs.enabled(level)]

    def test_a_logger_follows_a_later_configuration(self) -> None:
        """Modules get theirs when they are imported."""
        log = logs.get()
        stream = io.StringIO()
        logs.configure("debug", stream=stream)
        log.debug("said")
        assert ["said"] == [line["event"] for line in _json(stream)]

    def test_a_line_below_the_level_does_not_look_at_its_fields(self) -> None:
        """It costs next to nothing."""

        class Costly:
            @override
            def __str__(self) -> str:
                raise AssertionError("looked at")

        logs.configure("info", stream=io.StringIO())
        logs.get().debug("said", field=Costly())


class TestJson:
    """Anywhere but on a terminal: one JSON object for a line."""

    def test_fields_stand_in_their_order_after_time_level_and_event(self) -> None:
        """And keep their types."""
        stream = io.StringIO()
        logs.configure(stream=stream)
        logs.get().info("said", worker=1, request="r", status=200, ms=1.5, user=None, ws=True)
        (line,) = _json(stream)
        timestamp = line.pop("timestamp")
        assert re.fullmatch(_ISO, str(timestamp))
        said: dict[str, object] = {"level": "info", "event": "said", "worker": 1, "request": "r"}
        said |= {"status": 200, "ms": 1.5, "user": None, "ws": True}
        assert list(said.items()) == list(line.items())

    def test_nothing_in_a_value_can_end_the_line(self) -> None:
        """Whatever it is made of; the line is ASCII."""
        stream = io.StringIO()
        logs.configure(stream=stream)
        logs.get().info(_NASTY, value=_NASTY, raw=_NASTY.encode("utf-8", "surrogateescape"))
        text = stream.getvalue()
        assert text.isascii()
        assert 1 == text.count("\n") == len(text.splitlines())
        (line,) = _json(stream)
        assert (_NASTY, _NASTY) == (line["event"], line["value"])

    def test_other_values_are_their_text(self) -> None:
        """JSON has no NaN."""
        stream = io.StringIO()
        logs.configure(stream=stream)
        logs.get().info("said", a=float("nan"), b=float("inf"), c=b"\xffa", d=[1], e=ValueError("x"))
        (line,) = _json(stream)
        assert ("nan", "inf", "\\xffa", "[1]", "x") == tuple(line[name] for name in "abcde")


class TestTerminal:
    """key=value for people."""

    def test_a_line(self) -> None:
        """Values with spaces are quoted."""
        stream = _Terminal()
        logs.configure(stream=stream)
        logs.get().info("instance connected", route="Visa Files", status=200, user=None)
        line = rf'{_ISO} \[info   \] instance connected route="Visa Files" status=200 user=None\n'
        assert re.fullmatch(line, stream.getvalue())

    @pytest.mark.parametrize("field", ["event", "value"])
    def test_nothing_can_forge_a_line_or_a_field(self, field: str) -> None:
        """Control characters are shown as escapes, quotes within quotes too."""
        stream = _Terminal()
        logs.configure(stream=stream)
        fields = {
            "event": "said",
            "value": "x",
            field: 'x" status=200\n2026-01-01 [info] forged\x1b[2J\u202e',
        }
        logs.get().info(fields["event"], value=fields["value"])
        text = stream.getvalue()
        assert 1 == len(text.splitlines())
        assert text.removesuffix("\n").isprintable()
        if field == "value":
            assert '"x\\" status=200\\n2026-01-01 [info] forged\\x1b[2J\\u202e"' in text

    def test_a_traceback_is_indented_and_cannot_forge_a_line(self) -> None:
        """No line of it looks like one of the log."""
        stream = _Terminal()
        logs.configure(stream=stream)
        error = _raised("x\n2026-01-01 [info] forged\x1b[2J")
        logs.get().error("failed", exc_info=error)
        first, *rest = stream.getvalue().splitlines()
        assert "failed" in first
        assert "    Traceback (most recent call last):" == rest[0]
        assert all(line.startswith("    ") and line.isprintable() for line in rest)
        assert "    2026-01-01 [info] forged\\x1b[2J" == rest[-1]

    def test_colours_only_on_a_terminal_and_not_with_no_color(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """no-color.org."""
        coloured = []
        for stream in (_Terminal(), io.StringIO()):
            for value in ("", "1"):
                monkeypatch.setenv("NO_COLOR", value)
                stream.truncate(0)
                logs.configure(stream=stream)
                logs.get().info("said")
                coloured.append("\x1b[" in stream.getvalue())
        assert [True, False, False, False] == coloured

    def test_a_real_terminal_gets_key_value(self) -> None:
        """What `isatty` says decides."""
        ours, theirs = pty.openpty()
        with os.fdopen(theirs, "w") as stream, os.fdopen(ours, "rb", buffering=0) as reader:
            logs.configure(stream=stream)
            logs.get().info("said", a=1)
            assert re.fullmatch(rf"{_ISO} \[info   \] said a=1\r\n", reader.read(1000).decode())


class TestTime:
    """ISO 8601 with the offset of the zone."""

    def test_the_zone_is_the_one_set(self) -> None:
        """An IANA name."""
        stream = io.StringIO()
        logs.configure(timezone="Asia/Kathmandu", stream=stream)
        logs.get().info("said")
        at = datetime.fromisoformat(str(_json(stream)[0]["timestamp"]))
        assert timedelta(hours=5, minutes=45) == at.utcoffset()
        assert abs(time.time() - at.timestamp()) < 60

    def test_without_one_it_is_the_systems(self) -> None:
        """As `TZ` says."""
        code = "from visa_jupyter_proxy import logs; logs.configure(); logs.get().info('said')"
        environ = os.environ | {"TZ": "XYZ-3:30"}
        done = _python(code, environ)
        assert json.loads(done.stderr)["timestamp"].endswith("+03:30")


def _python(code: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environ)


class TestExceptions:
    """One field; the traceback only where something is wrong."""

    def _logged(self, level: str, exc_info: object) -> str:
        stream = io.StringIO()
        logs.configure("debug", stream=stream)
        getattr(logs.get(), level)("failed", exc_info=exc_info)
        (line,) = _json(stream)
        assert "exc_info" not in line
        return str(line.get("exception"))

    @pytest.mark.parametrize("level", logs.LEVELS)
    def test_a_traceback_is_for_error_and_above(self, level: str) -> None:
        """Below, its last line says enough."""
        text = self._logged(level, _raised("x"))
        assert (level in {"emerg", "alert", "crit", "error"}) == text.startswith("Traceback (most recent")
        assert "ValueError: x" == text.splitlines()[-1]

    def test_true_is_the_current_exception(self) -> None:
        """As `logging` has it."""
        try:
            int("x")
        except ValueError:
            assert self._logged("error", True).startswith("Traceback")

    @pytest.mark.parametrize("nothing", [None, False, (None, None, None)])
    def test_there_may_be_none(self, nothing: object) -> None:
        """Then there is no field."""
        assert "None" == self._logged("error", nothing)

    def test_what_looks_like_a_token_is_blanked(self) -> None:
        """Libraries quote what they were given."""
        error = _raised("Bearer abc.def, access_token=ghi; eyJhbGciOi.eyJzdWIi.c2ln! ?token=x&y")
        for level in ("warning", "error"):
            assert self._logged(level, error).endswith(
                "ValueError: Bearer ***, access_token=***; ***! ?token=***&y"
            )


class TestForeign:
    """What other libraries say by way of `logging`."""

    @pytest.mark.parametrize("name", ["asyncio", "aiohttp.client", "sqlalchemy.engine", "alembic"])
    def test_warnings_and_above_join_in(self, name: str) -> None:
        """With the name of their logger; infos do not."""
        stream = io.StringIO()
        logs.configure("debug", stream=stream)
        foreign = logging.getLogger(name)
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
            foreign.log(level, "said %s token=%s", "it\n", "abc")
        said = [(line["level"], line["event"], line["logger"]) for line in _json(stream)]
        assert [(level, "said it\n token=***", name) for level in ("warning", "error", "crit")] == said

    def test_the_level_holds_for_them_too(self) -> None:
        """At error, no warnings."""
        stream = io.StringIO()
        logs.configure("error", stream=stream)
        logging.getLogger("asyncio").warning("said")
        assert "" == stream.getvalue()

    def test_an_exception_nobody_awaited_is_one_line(self) -> None:
        """Asyncio tells through `logging`."""
        stream = io.StringIO()
        logs.configure(stream=stream)

        async def fail() -> None:
            raise LookupError("lost")

        async def forget() -> None:
            task = asyncio.ensure_future(fail())
            await asyncio.wait([task])

        asyncio.run(forget())
        (line,) = _json(stream)
        assert ("error", "asyncio") == (line["level"], line["logger"])
        assert str(line["exception"]).endswith("LookupError: lost")

    def test_warnings_of_python_join_in(self) -> None:
        """They would break a stream of JSON."""
        stream = io.StringIO()
        logs.configure(stream=stream)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(capture=False)
            logs.configure(stream=stream)
            warnings.warn("old", DeprecationWarning, stacklevel=1)
            logging.captureWarnings(capture=False)
        (line,) = _json(stream)
        assert ("warning", "py.warnings") == (line["level"], line["logger"])

    def test_a_call_that_is_wrong_does_not_fail(self, capsys: pytest.CaptureFixture[str]) -> None:
        """`logging` reports it on standard error, as always."""
        logs.configure(stream=io.StringIO())
        logging.getLogger("asyncio").warning("%d", "x")
        assert "--- Logging error ---" in capsys.readouterr().err


class TestWriting:
    """One write for one line."""

    @pytest.mark.parametrize("terminal", [False, True])
    def test_a_line_fits_into_what_a_pipe_takes_at_once(self, *, terminal: bool) -> None:
        """So that those of two processes never mix; the end of a traceback is kept."""
        stream = _Terminal() if terminal else io.StringIO()
        logs.configure(stream=stream)
        for length in (100, 2000, 5000, 100_000):
            fields = {f"f{number}": "\x1b" * length for number in range(20)}
            logs.get().error("failed", exc_info=_raised("x" * length + "the end"), **fields)
            text = stream.getvalue()
            assert len(text.encode()) <= PIPE_BUF
            assert "the end" in text
            stream.seek(0)
            stream.truncate()

    def test_lines_of_many_processes_do_not_mix(self) -> None:
        """Long ones too, on one pipe."""
        reader, writer = os.pipe()
        code = (
            "import sys; from visa_jupyter_proxy import logs\n"
            "logs.configure(); log = logs.get()\n"
            "for n in range(300): log.info('said', p=sys.argv[1], n=n, long=sys.argv[1] * (n * 7))"
        )
        processes = [
            subprocess.Popen([sys.executable, "-c", code, str(number)], stderr=writer) for number in range(3)
        ]
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            lines = [json.loads(line) for line in pipe]
        assert [0, 0, 0] == [process.wait(timeout=60) for process in processes]
        said = {str(number): [line["n"] for line in lines if line["p"] == str(number)] for number in range(3)}
        assert {str(number): list(range(300)) for number in range(3)} == said

    def test_an_output_that_fails_is_told_by_the_next_line_that_gets_out(self) -> None:
        """The program goes on; nothing is raised, nothing is forgotten."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        with os.fdopen(reader, "rb", buffering=0) as pipe, os.fdopen(writer, "w") as stream:
            logs.configure(stream=stream)
            sent = 0
            while not implementation._output._lost:
                logs.get().info("said", long="x" * 1000)
                sent += 1
            written = len(pipe.read(2**20).splitlines())
            logs.get().info("later")
            later, told = (json.loads(line) for line in pipe.read(2**20).splitlines())
        assert "later" == later["event"]
        text = f"{sent - written} lines of the log could not be written"
        assert ("warning", text) == (told["level"], told["event"])

    def test_a_closed_stream_is_no_error(self) -> None:
        """At the very end, standard error may be gone."""
        stream = io.StringIO()
        logs.configure(stream=stream)
        stream.close()
        logs.get().error("said")

    def test_without_configuration_lines_go_to_standard_error(self) -> None:
        """JSON, from info on: what goes wrong before the settings are read must be seen."""
        code = "from visa_jupyter_proxy import logs; logs.get().debug('no'); logs.get().info('said', a=1)"
        line = json.loads(_python(code).stderr)
        assert ("info", "said", 1) == (line["level"], line["event"], line["a"])


@pytest.fixture
def syslog() -> Iterator[socket.socket]:
    """Return a socket that datagrams arrive at."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(30)
        yield sock


_RFC_5424 = rf"<(\d+)>1 ({_ISO}) ([!-~]+) ([!-~]+) (\d+) - - (.*)"


class TestSyslog:
    """RFC 5424 over UDP."""

    def _configure(self, at: socket.socket, level: str = "debug", app_name: str = "proxy") -> io.StringIO:
        stream = io.StringIO()
        logs.configure(level, "UTC", "127.0.0.1", at.getsockname()[1], app_name, stream=stream)
        return stream

    def test_every_level_has_its_priority(self, syslog: socket.socket) -> None:
        """Facility local0, as the original; severity as the level."""
        self._configure(syslog)
        for level in logs.LEVELS:
            getattr(logs.get(), level)("said", user="a b", n=1)
        for severity in range(8):
            found = re.fullmatch(_RFC_5424, syslog.recv(65536).decode("ascii"))
            assert found
            assert (str(16 * 8 + severity), "proxy", str(os.getpid())) == found.group(1, 4, 5)
            assert 'said user="a b" n=1' == found[6]

    def test_it_gets_what_the_stream_gets(self, syslog: socket.socket) -> None:
        """The level holds for both."""
        stream = self._configure(syslog, "notice")
        logs.get().info("no")
        logs.get().notice("yes")
        assert syslog.recv(65536).endswith(b" - - yes")
        assert ["yes"] == [line["event"] for line in _json(stream)]

    def test_a_message_is_one_line_of_ascii_and_not_too_long(self, syslog: socket.socket) -> None:
        """2048 bytes are what every receiver should take (RFC 5424 6.1)."""
        self._configure(syslog, app_name="visa jupyter\nproxy é" + "x" * 100)
        logs.get().error(_NASTY, value=_NASTY * 1000, exc_info=_raised(_NASTY))
        data = syslog.recv(65536)
        assert 2048 == len(data)
        found = re.fullmatch(_RFC_5424, data.decode("ascii"))
        assert found
        assert 48 == len(found[4])
        assert found[4].startswith("visa_jupyter_proxy__x")
        assert found[6].isprintable()

    @pytest.mark.parametrize("missing", ["host", "port", "app_name"])
    def test_all_three_are_needed(self, syslog: socket.socket, missing: str) -> None:
        """Contract section 1."""
        values = {"host": "127.0.0.1", "port": syslog.getsockname()[1], "app_name": "proxy", missing: None}
        logs.configure("info", None, *values.values(), stream=io.StringIO())
        assert implementation._output.syslog is None

    @pytest.mark.parametrize("lines", [50, 51])
    def test_a_lost_host_is_reported_once_and_found_again(self, syslog: socket.socket, lines: int) -> None:
        """Nothing is raised, however many lines there are; what is sent after its return arrives."""
        address = syslog.getsockname()
        stream = self._configure(syslog)
        logs.get().info("first")
        assert syslog.recv(65536).endswith(b"first")
        syslog.close()

        def said() -> bool:
            logs.get().info("said")
            return "cannot be reached" in stream.getvalue()

        _until(said)
        for _ in range(lines):
            logs.get().info("said")
        reports = [line for line in _json(stream) if "cannot be reached" in str(line["event"])]
        assert [
            ("warning", f"the syslog host 127.0.0.1:{address[1]} cannot be reached: Connection refused")
        ] == [(line["level"], line["event"]) for line in reports]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
            back.bind(address)
            back.settimeout(30)
            logs.get().info("back")
            assert back.recv(65536).endswith(b"back")

    def test_lines_wait_for_the_look_up_of_the_name(
        self, syslog: socket.socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A name server that is slow does not stop the program, and no line is lost meanwhile."""
        answered = threading.Event()
        real = socket.getaddrinfo

        def slow(host: str, port: int, **keywords: int) -> object:
            assert "logs.example.org" == host
            assert answered.wait(30)
            return real("127.0.0.1", port, **keywords)

        monkeypatch.setattr(socket, "getaddrinfo", slow)
        port = syslog.getsockname()[1]
        logs.configure("info", None, "logs.example.org", port, "proxy", stream=io.StringIO())
        for number in range(10):
            logs.get().info("said", n=number)
        answered.set()
        for number in range(10):
            assert syslog.recv(65536).endswith(b"said n=%d" % number)

    def test_a_name_that_is_none_is_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """And the lines go on to the stream."""

        def unknown(*_arguments: object, **_keywords: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        stream = io.StringIO()
        logs.configure("info", None, "logs.invalid", 514, "proxy", stream=stream)
        logs.get().info("said")
        text = "the syslog host logs.invalid:514 cannot be reached: Name or service not known"
        _until(lambda: text in stream.getvalue())
        assert {text, "said"} == {str(line["event"]) for line in _json(stream)}


@given(
    st.lists(
        st.sampled_from(
            ["Bearer ", "bEARER ", "access_token=", "TO\u212aEN=", "eyJab.cd", "eyj.x", ".", " ", "&", "é"]
        )
        | st.text(max_size=5)
    )
)
def test_a_quick_look_for_tokens_misses_none(parts: list[str]) -> None:
    """What is not looked through has nothing that would have been blanked."""
    text = "".join(parts)
    assert writing._TOKEN.sub("***", text) == logs.without_tokens(text)
