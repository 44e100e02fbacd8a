"""`visa-jupyter-proxy check`: ten configurations that are well, and more that are not."""

import asyncio
import json
import os
import pty
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import trustme

from support.commands import PREFIX, Site
from support.disks import on_a_small_disk
from support.identity import Provider
from support.postgres import PostgresServer
from support.visa_api import Answer, Hold, VisaApiServer, visa_api_thread
from visa_jupyter_proxy.control.journal import Journal
from visa_jupyter_proxy.diagnosis.checking import _clock
from visa_jupyter_proxy.diagnosis.patterns import is_never_an_id

JUPYTER = {
    "match": r"^/jupyter/(\d+).*",
    "type": "jupyter",
    "name": "Jupyter",
    "remotePort": 8888,
    "ws": True,
}
FILES = {
    "match": r"^/visafs/(\d+).*",
    "type": "service",
    "name": "Visa Files",
    "remotePort": 8090,
    "pathRewrite": {r"^/visafs/\d+/": "/"},
}
_ORIGINAL = Path(__file__).parent.parent / "examples" / "original"


@pytest.fixture(scope="module")
def api() -> Iterator[VisaApiServer]:
    """Run a VISA API."""
    with visa_api_thread() as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, api: VisaApiServer) -> Iterator[Site]:
    """Give a directory in which all is well."""
    site = Site(tmp_path)
    site.settings(API_URL=api.url)
    site.routes([JUPYTER, FILES])
    yield site
    api.always("account", None)
    api.unscript()


def _original(site: Site) -> None:
    for name, place in (("dot.env", ".env"), ("proxy.conf.json", "proxy.conf.json")):
        (site.directory / place).write_bytes((_ORIGINAL / name).read_bytes())


def _secret(site: Site) -> None:
    (site.directory / "names").write_text("visa.example.org\n")
    site.settings(SERVER_NAMES_FILE="names")


def _elsewhere(site: Site) -> None:
    (site.directory / "services.json").write_text(json.dumps([JUPYTER]))
    site.settings(CONFIG_FILE="services.json")


def _journal_there(site: Site) -> None:
    assert 1 == site.run("sessions").exit_code  # there is none
    asyncio.run(_make_a_journal(site.directory / "data"))


async def _make_a_journal(directory: Path) -> None:
    journal = Journal(directory)
    await journal.transact(lambda _: None)
    await journal.close()


GOOD: dict[str, Callable[[Site], object]] = {
    "the shipped routes": lambda site: (site.directory / "proxy.conf.json").unlink(),
    "routes of its own": lambda _: None,
    "those of 3.5": _original,
    "a setting from a file": _secret,
    "routes elsewhere": _elsewhere,
    "a journal that is there": _journal_there,
    "several workers": lambda site: site.settings(WORKERS="4", MAX_CONNECTIONS="1000"),
    "facility networks": lambda site: site.settings(
        INSTANCE_NETWORKS="10.0.0.0/8", TRUSTED_PROXIES="10.1.2.3"
    ),
    "IPv4 and IPv6": lambda site: site.settings(SERVER_HOST="::"),
    "a service by TLS": lambda site: site.routes(
        [{**JUPYTER, "remoteScheme": "https", "remoteVerify": False, "maxBodyBytes": 10**9}]
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_configuration(site: Site, name: str) -> None:
    """Every finding is well, the exit status says so, and nothing has been made or changed."""
    GOOD[name](site)
    before = sorted(site.directory.rglob("*"))
    answer = site.run("check")
    assert 0 == answer.exit_code, answer.output
    assert {"ok"} == {line.split()[0] for line in answer.stdout.splitlines()}, answer.output
    assert ["settings", "routes", "listening", "admin", "VISA", "clock", "journal"] == [
        line.split()[1] for line in answer.stdout.splitlines()
    ]
    changed = {path.name for path in {*before} ^ {*site.directory.rglob("*")}}
    assert set() == changed - {"journal.sqlite3-wal", "journal.sqlite3-shm"}, "SQLite's own"


_BROKEN_JSON = '[\n {"match": "^/jupyter/(\\\\d+).*"\n  "type": "jupyter"}\n]'


@pytest.mark.parametrize(
    ("settings", "routes", "said"),
    [
        ({"SERVER_PORT": "80x"}, None, ['SERVER_PORT: "80x" cannot be used', "from 0 to 65535"]),
        ({"API_URL": "visa/api"}, None, ["API_URL", "write http:// or https://"]),
        ({"CACHE_REFRESH_TIME_S": "60s", "LOG_LEVEL": "warn"}, None, ["CACHE_REFRESH_TIME_S", "LOG_LEVEL"]),
        ({"STORAGE_URL": "mysql://me:s3cr3t@db/x"}, None, ["STORAGE_URL", "postgresql+asyncpg://USER"]),
        ({"SERVER_PORT": "1", "SERVER_PORT_FILE": "x"}, None, ["are both set: remove one of them"]),
        (
            {"CONFIG_FILE": "none.json"},
            None,
            ["none.json: cannot be read: No such file or directory: see CONFIG_FILE"],
        ),
        ({"CONFIG_FILE": "."}, None, ["cannot be read: Is a directory: see CONFIG_FILE"]),
        ({}, _BROKEN_JSON, ["proxy.conf.json:3:3: is not JSON: a comma is probably missing"]),
        ({}, [{**JUPYTER, "websocket": True}], ["$[0].websocket: is no known key"]),
        ({}, [{**JUPYTER, "match": "^/jupyter/"}], ["$[0].match: has no group: write the instance id in"]),
        (
            {},
            [JUPYTER, {**FILES, "remotePort": "8090"}],
            ["$[1].remotePort: is a text: write a whole number"],
        ),
        ({}, [], ["$: is empty: write at least one service"]),
    ],
)
def test_a_mistake_in_the_configuration(
    site: Site, settings: dict[str, str], routes: Any, said: list[str]
) -> None:
    """Where it is and what to write instead; status 2; no secret is shown."""
    site.settings(**settings)
    if routes is not None:
        site.routes(routes)
    answer = site.run("check")
    assert 2 == answer.exit_code, answer.output
    for words in said:
        assert words in answer.stdout
    assert "s3cr3t" not in answer.output
    assert {"wrong"} == {line.split()[0] for line in answer.stdout.splitlines()}


@contextmanager
def _https(context: ssl.SSLContext) -> Iterator[int]:
    """Answer every connection by TLS as VISA would; on a port of its own."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            with raw, suppress(OSError), context.wrap_socket(raw, server_side=True) as sock:
                sock.recv(4096)
                sock.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(20)


def _findings(site: Site) -> dict[str, tuple[str, str]]:
    answer = site.run("check", "--json")
    told = json.loads(answer.stdout)
    found = {one["about"]: (one["verdict"], one["text"]) for one in told["findings"]}
    assert told["ok"] is all(verdict != "wrong" for verdict, _ in found.values())
    assert answer.exit_code == (0 if told["ok"] else 1)
    return found


def test_a_mistake_in_a_page(site: Site, tmp_path: Path) -> None:
    """Its file and line."""
    (tmp_path / "stopped.html").write_text("<main>\n{% if %}</main>")
    site.settings(PAGES_DIR=str(tmp_path))
    answer = site.run("check")
    assert (2, True) == (answer.exit_code, "stopped.html, line 2: " in answer.stdout)


class TestWarnings:
    """What works, and is hardly meant."""

    def test_a_setting_that_is_none(self, site: Site) -> None:
        """A wrong name is ignored at the start: the nearest is named."""
        site.settings(API_HOTS="visa")
        verdict, _ = _findings(site)["settings"]  # the last one of them
        assert "ok" == verdict
        answer = site.run("check")
        assert 0 == answer.exit_code
        assert f"Is {PREFIX}API_HOST meant?" in answer.stdout.splitlines()[0]
        assert answer.stdout.startswith("warning")

    def test_a_service_that_is_never_used(self, site: Site) -> None:
        """The same pattern stands before it."""
        site.routes([JUPYTER, {**JUPYTER, "name": "Other"}])
        verdict, text = _findings(site)["routes"]
        assert "warning" == verdict
        assert "$[1]: is never used: `Jupyter` before it has the same `match`: remove one" in text

    def test_a_service_for_websockets_alone_is_used(self, site: Site) -> None:
        """Two services of one pattern are well if only the second forwards WebSockets."""
        site.routes([{**JUPYTER, "ws": False}, {**JUPYTER, "name": "Sockets"}])
        assert "ok" == _findings(site)["routes"][0]

    def test_a_pattern_that_matches_anywhere(self, site: Site) -> None:
        r"""`/x?/jupyter/12` would be for instance 12, too."""
        site.routes([{**JUPYTER, "match": r"/jupyter/(\d+)"}])
        verdict, text = _findings(site)["routes"]
        assert ("warning", True) == (verdict, "write ^ in front of it" in text)

    def test_a_port_that_is_in_use(self, site: Site) -> None:
        """It may be by this proxy, beside which the command runs."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            site.settings(SERVER_HOST="127.0.0.1", SERVER_PORT=str(taken.getsockname()[1]))
            verdict, text = _findings(site)["listening"]
        assert "warning" == verdict
        assert "by this proxy, if it runs already; else set VISA_JUPYTER_PROXY_SERVER_PORT" in text

    def test_an_admin_port_that_is_in_use(self, site: Site) -> None:
        """One that was chosen is as the other; one that was not gives way."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            site.settings(ADMIN_PORT=str(taken.getsockname()[1]))
            verdict, text = _findings(site)["admin"]
        assert ("warning", True) == (verdict, "else set VISA_JUPYTER_PROXY_ADMIN_PORT" in text)

    def test_keys_that_cannot_be_had(self, site: Site) -> None:
        """Tokens are left to VISA meanwhile; with keys, it says how many."""
        site.settings(JWKS_URL="http://127.0.0.1:1/keys")
        verdict, text = _findings(site)["keys"]
        assert ("warning", True) == (verdict, "VISA alone judges tokens meanwhile" in text)
        assert f"http://127.0.0.1:1/keys: Connection refused: set {PREFIX}JWKS_URL" in text
        (site.directory / "keys.json").write_bytes(Provider().key_set())
        site.settings(JWKS_URL="", JWKS_FILE="keys.json")
        verdict, text = _findings(site)["keys"]
        assert ("ok", True) == (verdict, "has 1 that can be used" in text)


class TestVisa:
    """Whether the API can be reached, and is one."""

    def test_nothing_happens_there(self, site: Site, api: VisaApiServer) -> None:
        """One question about no instance, with a token that is none, to the call without a side effect."""
        before = len(api.requests)
        assert "ok" == _findings(site)["VISA"][0]
        (request,) = api.requests[before:]
        assert ("account", "/api/account/instances/0") == (request.endpoint, request.path)

    def test_nobody_listens(self, site: Site) -> None:
        """Which settings say where it is, and that it may not run."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        site.settings(API_URL=f"http://127.0.0.1:{port}/api")
        verdict, text = _findings(site)["VISA"]
        assert "wrong" == verdict
        assert f"http://127.0.0.1:{port}/api: Connection refused. Set {PREFIX}API_URL" in text

    def test_its_name_is_unknown(self, site: Site) -> None:
        """RFC 6761 6.4: `.invalid` never is."""
        site.settings(API_URL="http://visa.invalid/api")
        verdict, text = _findings(site)["VISA"]
        assert ("wrong", True) == (verdict, "its name cannot be resolved" in text)

    @pytest.mark.parametrize("status", [200, 404, 500])
    def test_something_else_answers(self, site: Site, api: VisaApiServer, status: int) -> None:
        """VISA would answer 401; the path is the likely mistake."""
        api.always("account", Answer(status))
        verdict, text = _findings(site)["VISA"]
        assert "wrong" == verdict
        assert f"answered {status}" in text
        assert "ends in /api" in text

    def test_it_does_not_answer(self, site: Site, api: VisaApiServer) -> None:
        """API_TIMEOUT_S is waited, no longer."""
        hold = Hold()
        api.always("account", Answer(hold=hold))
        site.settings(API_TIMEOUT_S="0.2")
        verdict, text = _findings(site)["VISA"]
        hold.release()
        assert ("wrong", True) == (verdict, "no answer in time" in text)

    def test_its_certificate_is_not_trusted(self, site: Site) -> None:
        """An https API of an authority of the facility's own needs API_CA_FILE; with it, all is well."""
        authority = trustme.CA()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.cert_pem.write_to_path(str(site.directory / "ca.pem"))
        with _https(context) as port:
            site.settings(API_URL=f"https://127.0.0.1:{port}/api")
            verdict, text = _findings(site)["VISA"]
            assert "wrong" == verdict
            assert "certificate cannot be verified" in text
            assert "API_CA_FILE" in text
            site.settings(API_CA_FILE="ca.pem")
            assert "ok" == _findings(site)["VISA"][0]


class TestClock:
    """Tokens expire by VISA's clock, and are judged by ours."""

    @pytest.mark.parametrize(
        ("ahead", "verdict", "said"),
        [
            (0, "ok", "agrees"),
            (-7, "warning", "at least 6 s behind VISA's"),
            (8, "warning", "at least 7 s ahead of VISA's"),
            (-3600, "wrong", "3599 s behind VISA's"),
            (90, "wrong", "89 s ahead of VISA's"),
        ],
    )
    def test_it_is_compared(self, ahead: float, verdict: str, said: str) -> None:
        """VISA's is cut to whole seconds, and of some moment of the answer."""
        now = 1_743_246_000.4
        found = _clock(float(int(now)), now + ahead, 0.01)
        assert verdict == found.verdict
        assert said in found.text

    def test_the_answer_takes_long(self) -> None:
        """Whenever in between it was, the clocks may agree."""
        for moment in (0, 4, 9):
            assert "ok" == _clock(1000.0 + moment, 1000.0, 9.0).verdict

    def test_a_wrong_one_is_found(self, site: Site, api: VisaApiServer) -> None:
        """By the `Date` of a real answer."""
        date = formatdate(time.time() + 600, usegmt=True)
        raw = f"HTTP/1.1 401 Unauthorized\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n"
        api.always("account", Answer(raw=raw.encode()))
        found = _findings(site)
        assert ("ok", "wrong") == (found["VISA"][0], found["clock"][0])
        assert "behind VISA's: see that both keep time (NTP)" in found["clock"][1]

    def test_there_is_none(self, site: Site, api: VisaApiServer) -> None:
        """A proxy in between may have taken it away."""
        raw = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
        api.always("account", Answer(raw=raw))
        assert "warning" == _findings(site)["clock"][0]


class TestJournal:
    """Whether records can be kept."""

    def test_the_directory_is_a_file(self, site: Site) -> None:
        """Another one is to be named."""
        (site.directory / "data").write_text("")
        verdict, text = _findings(site)["journal"]
        assert ("wrong", True) == (verdict, "is no directory: change VISA_JUPYTER_PROXY_STORAGE_DIR" in text)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_the_directory_cannot_be_written(self, site: Site) -> None:
        """By this user."""
        (site.directory / "data").mkdir(mode=0o500)
        verdict, text = _findings(site)["journal"]
        assert ("wrong", True) == (verdict, ": Permission denied: give it to the user that runs" in text)

    def test_the_directory_cannot_be_made(self, site: Site) -> None:
        """Whatever rights say, for root above all: nothing is ever made in /proc."""
        site.settings(STORAGE_DIR="/proc/visa-jupyter-proxy")
        verdict, text = _findings(site)["journal"]
        assert ("wrong", True) == (verdict, "/proc cannot be written: No such file or directory: " in text)

    @pytest.mark.parametrize("there", [False, True], ids=["no journal yet", "a journal"])
    def test_the_disk_is_full(self, tmp_path: Path, there: bool) -> None:
        """Which no right shows, nor an empty directory that can be made: there is no room for a record."""
        data = tmp_path / "data"
        data.mkdir()
        check = [sys.executable, "-m", "visa_jupyter_proxy", "check", "--json"]
        make = "import sqlite3; sqlite3.connect('data/journal.sqlite3').execute('CREATE TABLE a (b)')"
        script = (
            f'{f'{sys.executable} -c "{make}"; ' if there else ""}cat /dev/zero > data/ballast; exec "$@"'
        )
        done = subprocess.run(
            [*on_a_small_disk(data), "sh", "-c", script, "sh", *check],
            capture_output=True,
            check=False,
            cwd=tmp_path,
            env=os.environ | {f"{PREFIX}SERVER_PORT": "0"},
        )
        found = {one["about"]: one for one in json.loads(done.stdout)["findings"]}
        assert (1, "wrong") == (done.returncode, found["journal"]["verdict"])
        assert ": No space left on device: make room on that file system, or " in found["journal"]["text"]

    def test_it_is_damaged(self, site: Site) -> None:
        """That is said, and the file is left as it is: the proxy sets it aside when it starts."""
        (site.directory / "data").mkdir()
        file = site.directory / "data" / "journal.sqlite3"
        file.write_bytes(b"no database " * 1000)
        verdict, text = _findings(site)["journal"]
        assert "wrong" == verdict
        assert "SQLITE_NOTADB" in text
        assert file.read_bytes() == b"no database " * 1000

    def test_postgresql_is_not_there(self, site: Site) -> None:
        """Which setting says where it is; the password is not shown."""
        site.settings(STORAGE_URL="postgresql://visa:s3cr3t@127.0.0.1:1/visa")
        verdict, text = _findings(site)["journal"]
        assert "wrong" == verdict
        assert f"/visa: Connection refused: set {PREFIX}STORAGE_URL, or see whether it runs" in text
        assert "s3cr3t" not in text

    def test_postgresql_before_the_first_start(self, site: Site, postgres: PostgresServer) -> None:
        """It is reached, and its tables are made by the start, not by the check."""
        site.settings(STORAGE_URL=postgres.create("checked"))
        for _ in range(2):
            verdict, text = _findings(site)["journal"]
            assert ("ok", True) == (verdict, "its tables are made at the start" in text)
        postgres.drop("checked")


def test_a_person_is_told_what_is_waited_for(site: Site, api: VisaApiServer) -> None:
    """After a second, on the terminal; a program gets nothing of it."""
    hold = Hold()
    api.always("account", Answer(hold=hold))
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    process = subprocess.Popen(
        [sys.executable, "-m", "visa_jupyter_proxy", "check"],
        cwd=site.directory,
        env=environment | {PREFIX + "API_URL": api.url, PREFIX + "SERVER_PORT": "0"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    said = os.read(ours, 1000).decode()
    hold.release()
    out, _ = process.communicate(timeout=60)
    os.close(ours)
    assert f"asking VISA at {api.url}, 10 s at most" in said
    assert (0, 7) == (process.returncode, len(out.splitlines()))


class TestPatterns:
    """Whether a first group can be an instance id at all: said where that is sure, and only there."""

    @pytest.mark.parametrize(
        "match",
        [
            r"^/jupyter/([a-z]+).*",
            r"^/(jupyter|lab)/(\d+)",
            r"^/(?:a|b)/([^/\d]{1,3})/(\d+)",
            r"^/(?<name>[a-z_]+)/(?<id>\d+)",
            r"^/((?:x|(y))+)/(\d+)",
            r"^/x/(\D+)$",
            r"^/()(\d+)",
        ],
    )
    def test_never_an_id(self, site: Site, match: str) -> None:
        """A warning with its place: every request to that service would be a 404."""
        site.routes([{**JUPYTER, "match": match}])
        answer = site.run("check")
        assert 0 == answer.exit_code
        assert "$[0].match: its first group can be no number: write the instance id there" in answer.stdout

    @pytest.mark.parametrize(
        "match",
        [
            r"^/jupyter/(\d+).*",
            r"^/jupyter/(?<id1>[0-9]{1,19})",
            r"^/(?:jupyter|lab)/([^/]+)",
            r"^/(?=x)x(.*)",
            r"^/(?<!y)x([\w-]+)",
            r"^/x/([1-9]\d*)",
            r"^/[(]x[)]/(\d+)",
            r"^/\(x\)/(\d+)",
            r"^/x/(\x31)",
            r"^/x/([\x31])",
            r"^/x/(a|7)",
            r"^/x/(\S+)",
        ],
    )
    def test_perhaps_an_id(self, match: str) -> None:
        """No word about a pattern that works."""
        assert not is_never_an_id(match)
