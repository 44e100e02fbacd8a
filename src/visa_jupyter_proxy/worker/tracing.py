"""Spans for OpenTelemetry: the exchange, the question to the VISA API, the connection to the instance.

Imported only where `TRACING` is on, and the only file that knows OpenTelemetry. A `TracedProxy` takes the
same straight line as any; what it adds happens around its steps: without it nothing is done for a request.

Where spans go, and how many of them, say OpenTelemetry's own variables: `OTEL_EXPORTER_OTLP_ENDPOINT`,
`OTEL_TRACES_SAMPLER` and the like. They are sent by a thread of their own.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Final, override

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from visa_jupyter_proxy import __version__
from visa_jupyter_proxy.errors import ClientGone, ProxyError
from visa_jupyter_proxy.routes import Match
from visa_jupyter_proxy.visa_api import Access
from visa_jupyter_proxy.waiting import happens
from visa_jupyter_proxy.worker.access.forwarded import Client
from visa_jupyter_proxy.worker.access.grant import Grant
from visa_jupyter_proxy.worker.exchange import Exchange
from visa_jupyter_proxy.worker.forwarding.fields import request_lines
from visa_jupyter_proxy.worker.http.lines import Lines, name_of
from visa_jupyter_proxy.worker.http.request import Request
from visa_jupyter_proxy.worker.proxy import Proxy
from visa_jupyter_proxy.worker.tunnel import Origin
from visa_jupyter_proxy.worker.upstream import Address, Upstream

_LAST_SPANS_S: Final = 1.0
"""How long the end waits for what is left to be sent; a collector that is away must not stop us."""

_FIELDS: Final = (b"traceparent", b"tracestate")
"""W3C, Trace Context 3."""

_propagator: Final = TraceContextTextMapPropagator()


class TracedProxy(Proxy):
    """The straight line, with spans around it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        name = os.environ.get("OTEL_SERVICE_NAME", "visa-jupyter-proxy")
        resource = Resource.create({"service.name": name, "service.version": __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("visa_jupyter_proxy", __version__)
        self._spans: dict[Request, Span] = {}
        """Of the exchanges that have not ended, by their requests."""
        self._request_lines = self._traced_lines

    @override
    async def close(self) -> None:
        """Send what is left, for a second at most."""
        done = asyncio.Event()

        def finish() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop is closed: it has not waited so long
                self.loop.call_soon_threadsafe(done.set)

        # A daemon: one that is late does not keep the process.
        threading.Thread(target=finish, name="last spans", daemon=True).start()
        await happens(done, _LAST_SPANS_S)  # what is left then is lost

    @override
    def forward(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        span = self._spans.get(exchange.request) or self._begin(exchange)
        with _inside(span):
            to_wait_for = super().forward(exchange)
        return self._waiting(to_wait_for, span) if to_wait_for is not None else None

    @staticmethod
    async def _waiting(forwarding: Coroutine[Any, Any, None], span: Span) -> None:
        with _inside(span):
            await forwarding

    @override
    async def _ask(self, exchange: Exchange, match: Match) -> Grant:
        with self._step("ask VISA", {"visa.instance": match.instance_id}):
            return await super()._ask(exchange, match)

    @override
    async def _connect(self, address: Address, about: Grant | Access) -> Upstream:
        with self._step("connect", {"server.address": address.host, "server.port": address.port}):
            return await super()._connect(address, about)

    @override
    def exchange_ended(self, exchange: Exchange) -> None:
        super().exchange_ended(exchange)
        self._end(exchange)

    @override
    def tunnel_opened(self, exchange: Exchange, peer: str) -> Origin:
        self._end(exchange)  # the WebSocket is there: its life is no part of the exchange
        return super().tunnel_opened(exchange, peer)

    def _begin(self, exchange: Exchange) -> Span:
        request = exchange.request
        span = self._spans[request] = self._tracer.start_span(
            request.method.decode("ascii"),
            context=_propagator.extract(_said(request)),
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": request.method.decode("ascii"),
                "network.protocol.version": f"1.{request.minor}",
                "visa.request_id": exchange.id.decode("ascii"),
            },
        )
        return span

    def _end(self, exchange: Exchange) -> None:
        span = self._spans.pop(exchange.request, None)
        if span is None:
            return
        match, error, status = exchange.match, exchange.error, exchange.status
        if match is not None:
            span.update_name(f"{exchange.request.method.decode('ascii')} {match.route.name}")
            span.set_attributes({"http.route": match.route.match, "visa.instance": match.instance_id})
        if status is not None:
            span.set_attribute("http.response.status_code", status)
        if error is not None:
            span.set_attribute("error.type", error.error)
        if (status or 0) >= 500 and not isinstance(error, ClientGone):
            span.set_status(StatusCode.ERROR)
        span.end()

    @contextmanager
    def _step(self, name: str, attributes: dict[str, str | int]) -> Iterator[None]:
        """Make a span of a step that takes its time, inside that of its exchange."""
        with self._tracer.start_as_current_span(
            name,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except ProxyError as error:
                span.set_attribute("error.type", error.error)
                span.set_status(StatusCode.ERROR)
                raise

    def _traced_lines(
        self, request: Request, match: Match, grant: Grant, client: Client, *, request_id: bytes
    ) -> Lines:
        """Make the fields to send, with the span of this exchange as the parent of what the instance does."""
        lines = request_lines(request, match, grant, client, request_id=request_id)
        span = self._spans.get(request)
        if span is None:
            return lines
        sent: dict[str, str] = {}
        _propagator.inject(sent, trace.set_span_in_context(span))
        kept = [line for line in b"".join(lines).split(b"\r\n")[:-1] if name_of(line) not in _FIELDS]
        return [b"%b\r\n" % line for line in kept] + [
            f"{name}: {value}\r\n".encode() for name, value in sent.items()
        ]


def _inside(span: Span) -> AbstractContextManager[Span]:
    """Make `span` the parent of those that are begun meanwhile; errors are its exchange's to tell."""
    return trace.use_span(span, record_exception=False, set_status_on_exception=False)


def _said(request: Request) -> dict[str, str]:
    """Return the trace that the client is in, as it says."""
    said: dict[str, list[str]] = {}
    for line in request.lines:
        if (name := name_of(line)) in _FIELDS:
            said.setdefault(name.decode(), []).append(line.partition(b":")[2].strip().decode("latin-1"))
    # Several `traceparent` are none (3.2.1); several `tracestate` are one list (3.3.1.1).
    return {
        name: ",".join(values) for name, values in said.items() if name != "traceparent" or len(values) == 1
    }
