"""Spans for OpenTelemetry, as a collector gets them; and nothing of it where they are not wanted."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from process.conftest import TOKEN, Place, path, request
from support.client import get, upgrade
from support.instance import Connection, ok
from support.proxy import RunningProxy

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@dataclass
class Collector:
    """An OpenTelemetry collector that keeps what it gets."""

    port: int
    requests: list[ExportTraceServiceRequest]

    @property
    def spans(self) -> list[Span]:
        """Every span so far."""
        return [
            span
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def named(self, name: str) -> list[Span]:
        """Every span of that name."""
        return [span for span in self.spans if span.name == name]


@contextmanager
def _collector() -> Iterator[Collector]:
    requests: list[ExportTraceServiceRequest] = []

    class Received(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Received)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield Collector(server.server_port, requests)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Run one, and say where it is, as operators do."""
    with _collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        yield collector


def _attributes(span: Span) -> dict[str, Any]:
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes}


def _wait(proxy: RunningProxy, collector: Collector, count: int) -> None:
    proxy.wait(lambda: len(collector.spans) >= count)


class TestSpans:
    """The exchange, and what takes its time inside it."""

    def test_a_request(self, place: Place, collector: Collector) -> None:
        """Within the trace of the client; the instance is told of the exchange's span as its parent."""
        place.instance.answer(ok())
        proxy = place.start(TRACING="on")
        with place.client(proxy) as client:
            trace = (f"traceparent: 00-{TRACE}-{PARENT}-01", "tracestate: a=1")
            assert 200 == client.ask(request("/x?token=SECRET", *trace)).status
            _wait(proxy, collector, 3)
            (exchange,), (ask,), (connect,) = map(collector.named, ("GET Jupyter", "ask VISA", "connect"))
            assert {TRACE} == {span.trace_id.hex() for span in (exchange, ask, connect)}
            assert (PARENT, exchange.span_id, exchange.span_id) == (
                exchange.parent_span_id.hex(),
                ask.parent_span_id,
                connect.parent_span_id,
            )
            assert exchange.start_time_unix_nano <= ask.start_time_unix_nano <= ask.end_time_unix_nano
            assert ask.end_time_unix_nano <= connect.end_time_unix_nano <= exchange.end_time_unix_nano
            (got,) = place.instance.requests
            assert ([f"00-{TRACE}-{exchange.span_id.hex()}-01".encode()], [b"a=1"]) == (
                got.all("traceparent"),
                got.all("tracestate"),
            )
            told = _attributes(exchange)
            assert ("GET", 200, int(path().split("/")[2])) == (
                told["http.request.method"],
                told["http.response.status_code"],
                told["visa.instance"],
            )
            # With a grant and a connection that are kept, there is nothing to wait for.
            assert 200 == client.ask(request("/y")).status
            _wait(proxy, collector, 4)
        assert 2 == len(collector.named("GET Jupyter"))
        everything = b"".join(one.SerializeToString() for one in collector.requests)
        assert [] == [secret for secret in ("SECRET", TOKEN) if secret.encode() in everything]
        assert b"visa-jupyter-proxy" in everything

    def test_a_refusal_and_a_failure(self, place: Place, collector: Collector) -> None:
        """A refusal is no error of the server; a connection that cannot be made is one."""
        proxy = place.start(TRACING="on")
        with place.client(proxy) as client:
            assert 401 == client.ask(get(path())).status
            place.instance.refuse()
            assert 502 == client.ask(request()).status
        _wait(proxy, collector, 4)
        refused, failed = sorted(collector.named("GET Jupyter"), key=lambda span: span.start_time_unix_nano)
        assert ("no_token", Status.STATUS_CODE_UNSET) == (
            _attributes(refused)["error.type"],
            refused.status.code,
        )
        assert ("instance_unreachable", Status.STATUS_CODE_ERROR) == (
            _attributes(failed)["error.type"],
            failed.status.code,
        )
        (connect,) = collector.named("connect")
        assert Status.STATUS_CODE_ERROR == connect.status.code

    def test_a_websocket(self, place: Place, collector: Collector) -> None:
        """Its span ends when it is there, and not hours later."""

        def script(connection: Connection) -> None:
            connection.accept_websocket()
            connection.rest()

        place.instance.play(script)
        proxy = place.start(TRACING="on")
        with place.client(proxy) as client:
            assert 101 == client.ask(upgrade(path("/ws"), token=TOKEN)).status
            proxy.wait(lambda: collector.named("GET Jupyter"))
        (span,) = collector.named("GET Jupyter")
        assert 101 == _attributes(span)["http.response.status_code"]

    def test_what_is_left_is_sent_at_the_end(
        self, place: Place, collector: Collector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Although its time has not come."""
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
        place.instance.answer(ok())
        proxy = place.start(TRACING="on")
        with place.client(proxy) as client:
            assert 200 == client.ask(request()).status
        assert 0 == proxy.stop()
        assert 1 == len(collector.named("GET Jupyter"))


def test_a_collector_that_is_away_stops_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are served, and the end comes in time."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    place.instance.answer(ok())
    proxy = place.start(TRACING="on")
    with place.client(proxy) as client:
        assert 200 == client.ask(request()).status
    assert 0 == proxy.stop()
    assert [0] == [record["status"] for record in proxy.records("worker ended")]


def test_without_it_nothing_is_imported() -> None:
    """A worker does not know of OpenTelemetry."""
    code = (
        "import sys, visa_jupyter_proxy.worker.worker\n"
        "print([name for name in sys.modules if 'opentelemetry' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]\n" == done.stdout
