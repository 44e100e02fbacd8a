"""What has to be there for the proxy to serve, looked at in turn. Nothing is changed by it."""

import errno
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Final

from visa_jupyter_proxy.control.admin.listener import AdminPortBusy
from visa_jupyter_proxy.control.admin.listener import bind as bind_admin
from visa_jupyter_proxy.control.journal import Journal
from visa_jupyter_proxy.control.journal.errors import JournalError, StorageRefused
from visa_jupyter_proxy.control.journal.migrations import SchemaIncomplete
from visa_jupyter_proxy.control.journal.sqlite import FILE
from visa_jupyter_proxy.control.listener import CannotStart, bind
from visa_jupyter_proxy.diagnosis.findings import Finding
from visa_jupyter_proxy.diagnosis.patterns import is_never_an_id
from visa_jupyter_proxy.errors import ProxyError, VisaInvalid, VisaTimeout
from visa_jupyter_proxy.routes import Route
from visa_jupyter_proxy.settings import FIELDS, PREFIX, Settings
from visa_jupyter_proxy.visa_api import VisaApi

_AGREES_S: Final = 2.0
"""Clocks that differ by less agree: `Date` has whole seconds."""

_MOST_APART_S: Final = 10.0
"""Beyond it a fresh token may count as expired, or an expired one as fresh, for longer than a grant of
a token lives whose `exp` is past by our clock (`authorization.PAST_EXP_S`)."""

_RECORDS_BYTES: Final = 64 * 1024
"""Room that there has to be for the journal: a commit of SQLite appends some pages of 4 KiB."""


async def look(settings: Settings, routes: Sequence[Route]) -> AsyncIterator[Finding]:
    """Look at everything, one after the other; the configuration itself can be used."""
    yield _settings(settings)
    for finding in _routes(settings.config_path(), routes):
        yield finding
    yield _listening(settings)
    yield _administration(settings)
    async for finding in _visa(settings):
        yield finding
    if settings.jwks_url is not None or settings.jwks_file is not None:
        yield await _keys(settings)
    yield await _journal(settings)


def _settings(settings: Settings) -> Finding:
    given = [PREFIX + name.upper() for name in FIELDS if name in settings.model_fields_set]
    return Finding("settings", "ok", f"{len(given)} of {len(FIELDS)} are set: {', '.join(given) or 'none'}")


def _routes(path: Path, routes: Sequence[Route]) -> Iterator[Finding]:
    names = ", ".join(route.name for route in routes)
    yield Finding("routes", "ok", f"{path}: {names}")
    for index, route in enumerate(routes):
        place = f"{path}: $[{index}]"
        if not route.match.startswith("^"):
            text = f"{place}.match: matches anywhere, even in the query: write ^ in front of it"
            yield Finding("routes", "warning", text)
        if is_never_an_id(route.match):
            text = f"{place}.match: its first group can be no number: write the instance id there, (\\\\d+)"
            yield Finding("routes", "warning", text)
        for earlier in routes[:index]:
            if earlier.match == route.match and (earlier.ws or not route.ws):
                text = f"{place}: is never used: `{earlier.name}` before it has the same `match`: remove one"
                yield Finding("routes", "warning", text)


def _listening(settings: Settings) -> Finding:
    host, port = settings.server_host, settings.server_port
    try:
        bind(host, port).close()
    except CannotStart as error:
        if _is_in_use(error):
            return Finding("listening", "warning", _in_use(host, port, "SERVER_PORT"))
        return Finding("listening", "wrong", str(error))
    return Finding("listening", "ok", f"{host} port {port} is free")


def _administration(settings: Settings) -> Finding:
    host, port = settings.admin_host, settings.admin_port
    try:
        taken = bind_admin(settings)
    except AdminPortBusy as error:
        if _is_in_use(error):
            return Finding("admin", "warning", _in_use(host, port, "ADMIN_PORT"))
        return Finding("admin", "wrong", str(error))
    with taken:
        if port in (0, taken.getsockname()[1]):
            return Finding("admin", "ok", f"{host} port {port} is free")
    text = f"{host} port {port} is in use, by this proxy or another one: a free port will be taken"
    return Finding("admin", "ok", text)


def _is_in_use(error: Exception) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE


def _in_use(host: str, port: int, name: str) -> str:
    advice = f"by this proxy, if it runs already; else set {PREFIX}{name}, or stop what uses it"
    return f"{host} port {port} is in use: {advice}"


async def _keys(settings: Settings) -> Finding:
    """Look whether the keys can be had with which tokens are verified."""
    from visa_jupyter_proxy.worker.access import key_set  # noqa: PLC0415 -- 8 MB that few want

    where = settings.jwks_url or settings.jwks_file
    source = key_set.KeyServer(str(where)) if settings.jwks_url else key_set.KeyFile(str(where))
    try:
        keys = await source.fetch()
    except key_set.KeysUnavailable as error:
        advice = (
            f"set {PREFIX}{'JWKS_URL' if settings.jwks_url else 'JWKS_FILE'}, or see that the keys are there"
        )
        text = f"{where}: {error}: {advice}; VISA alone judges tokens meanwhile"
        return Finding("keys", "warning", text)
    finally:
        await source.close()
    return Finding("keys", "ok", f"{where} has {len(keys)} that can be used")


async def _visa(settings: Settings) -> AsyncIterator[Finding]:
    worker = settings.for_worker()
    api = VisaApi(worker.api_url, ca_file=worker.api_ca_file, timeout_s=worker.api_timeout_s)
    began, asked_at = time.monotonic(), time.time()
    try:
        date = await api.greet()
    except ProxyError as error:
        yield Finding("VISA", "wrong", f"{worker.api_url}: {error}. {_advice(error, worker.api_url)}")
        return
    finally:
        await api.close()
    took = time.monotonic() - began
    yield Finding("VISA", "ok", f"{worker.api_url} answers, in {took * 1000:.0f} ms")
    yield _clock(date, asked_at, took)


def _advice(error: ProxyError, url: str) -> str:
    if isinstance(error, VisaInvalid):
        return f"Is it the VISA API? Set {PREFIX}API_URL to its base, which ends in /api as a rule."
    if isinstance(error, VisaTimeout):
        return f"It has {PREFIX}API_TIMEOUT_S: see whether it runs, and whether a firewall drops packets."
    where = f"Set {PREFIX}API_URL, or {PREFIX}API_HOST and {PREFIX}API_PORT, or see whether it runs"
    own = f"; trust an authority of your own with {PREFIX}API_CA_FILE" if url.startswith("https:") else ""
    return f"{where} and a firewall lets us through{own}."


def _clock(date: float | None, asked_at: float, took: float) -> Finding:
    """Compare VISA's clock, of some moment in between and cut to a second, with ours."""
    if date is None:
        return Finding(
            "clock", "warning", "VISA's answer has no Date: its clock cannot be compared with ours"
        )
    early, late = asked_at - (date + 1), date - (asked_at + took)
    apart = max(early, late, 0.0)
    if apart <= _AGREES_S:
        return Finding("clock", "ok", "agrees with VISA's")
    side = "ahead of" if early > late else "behind"
    text = f"at least {int(apart)} s {side} VISA's: see that both keep time (NTP); tokens expire by it"
    return Finding("clock", "warning" if apart <= _MOST_APART_S else "wrong", text)


async def _journal(settings: Settings) -> Finding:
    try:
        journal = Journal(settings.storage_dir, settings.storage_url)
    except StorageRefused as refused:
        return Finding("journal", "wrong", f"{PREFIX}STORAGE_DIR: {refused} ({PREFIX}STORAGE_URL)")
    if not journal.is_shared and (finding := _directory(settings.storage_dir)) is not None:
        return finding
    try:
        await journal.look()
    except SchemaIncomplete:
        return Finding("journal", "ok", f"{journal.name} can be reached; its tables are made at the start")
    except JournalError as error:
        where = f"set {PREFIX}STORAGE_URL, or see whether it runs and a firewall lets us through"
        advice = where if journal.is_shared else f"see {PREFIX}STORAGE_DIR"
        return Finding("journal", "wrong", f"{journal.name}: {error}: {advice}")
    finally:
        await journal.close()
    return Finding("journal", "ok", f"{journal.name} can be used")


def _directory(directory: Path) -> Finding | None:
    """Say what is to be said before there is a journal, None where there is one."""
    advice = f"give it to the user that runs the proxy, or change {PREFIX}STORAGE_DIR"
    place = next(place for place in (directory, *directory.absolute().parents) if _is_there(place))
    if not place.is_dir():
        return Finding("journal", "wrong", f"{place} is no directory: change {PREFIX}STORAGE_DIR")
    try:
        # Rights do not say all: a file system may be read-only or full, or none in which anything is made.
        _write_something(place)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = f"make room on that file system, or change {PREFIX}STORAGE_DIR"
        return Finding("journal", "wrong", f"{place} cannot be written: {error.strerror}: {advice}")
    file = directory / FILE
    if not _is_there(file):
        return Finding("journal", "ok", f"{file} will be made at the start")
    if not os.access(file, os.R_OK | os.W_OK):
        return Finding("journal", "wrong", f"{file} cannot be written: {advice}")
    return None


def _write_something(place: Path) -> None:
    """Write what a few records of the journal take, and remove it. Raises `OSError`."""
    # In a directory of its own, which needs the right to add names as the journal does.
    with (
        tempfile.TemporaryDirectory(prefix=".check-", dir=place) as directory,
        (Path(directory) / "journal").open("wb") as file,
    ):
        file.write(bytes(_RECORDS_BYTES))
        file.flush()
        os.fsync(file.fileno())  # some file systems say only then that they are full


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except OSError:
        return False  # or not to be seen, which is what its parent says then
    return True
