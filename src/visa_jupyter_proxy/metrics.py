"""What is measured: the name, kind, labels and meaning of every metric. Plain values, for both wings.

A worker counts and control adds up (`mailbox.Counters`), so both must mean the same by a name. The
reference in `docs/` is made from this file.

No label has unbounded values: an instance may answer any status and a client may send any method, so
both are named only as far as they are registered. Instances are labels only with `METRICS_PER_INSTANCE`.
"""

from http import HTTPStatus
from typing import Final, Literal, NamedTuple

PREFIX: Final = "visa_jupyter_proxy_"

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the buckets of every histogram, in seconds; another bucket takes the rest."""

BUCKETS: Final = len(BOUNDS) + 1

type Kind = Literal["counter", "gauge", "histogram"]


class Metric(NamedTuple):
    """One metric. A name without `PREFIX`; that of a counter ends with `_total`."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


METRICS: Final[dict[str, Metric]] = {}
"""All of them by name, in the order of the reference."""


def _metric(name: str, kind: Kind, meaning: str, *labels: str) -> str:
    METRICS[name] = Metric(name, kind, labels, meaning)
    return name


# --- requests -----------------------------------------------------------------------------

REQUESTS: Final = _metric(
    "requests_total",
    "counter",
    "Requests that have ended, and WebSockets that were opened (code 101). route is a name of "
    "proxy.conf.json, or empty where none matched; code 499 is a client that left before it was answered.",
    *("route", "method", "code"),
)
REQUEST_SECONDS: Final = _metric(
    "request_duration_seconds",
    "histogram",
    "From a request's head to the end of its response, refusals included and WebSockets not.",
    "route",
)
PHASE_SECONDS: Final = _metric(
    "phase_duration_seconds",
    "histogram",
    "Parts of a request: authorize waits for the VISA API (only requests without a remembered grant), "
    "connect for a new connection to the instance (only those without an idle one), forward goes from "
    "the request's head to the end of the response.",
    *("route", "phase"),
)
REFUSALS: Final = _metric(
    "refusals_total",
    "counter",
    "Requests and WebSockets that were refused or broken off; reason is the error of the answer.",
    "reason",
)
BYTES: Final = _metric(
    "bytes_total",
    "counter",
    "Bytes of bodies and of WebSockets, up to and down from the instances; running ones included.",
    *("route", "direction"),
)

# --- connections --------------------------------------------------------------------------

CONNECTIONS: Final = _metric(
    "connections",
    "gauge",
    "Open connections: client (not a WebSocket), tunnel (a WebSocket, which is two), upstream_busy and "
    "upstream_idle (to instances, in use or kept for the next request).",
    "kind",
)
TUNNELS_OPENED: Final = _metric("tunnels_opened_total", "counter", "WebSockets that were opened.", "route")
TUNNELS_ENDED: Final = _metric(
    "tunnels_ended_total", "counter", "WebSockets that have ended; reason is closed, or an error.", "reason"
)
UPSTREAM_CONNECTS: Final = _metric(
    "upstream_connects_total",
    "counter",
    "New connections to instances; outcome is ok, or an error.",
    "outcome",
)
UPSTREAM_REUSES: Final = _metric(
    "upstream_reuses_total", "counter", "Requests that took an idle connection to the instance."
)
PIPES: Final = _metric(
    "pipes", "gauge", "Pipes through which the kernel moves large bodies: busy, or idle.", "state"
)

# --- authorisation ------------------------------------------------------------------------

GRANTS: Final = _metric(
    "grants_total",
    "counter",
    "Looks for a remembered answer of the VISA API: hit, or miss, which asks (together with others that "
    "ask the same).",
    "outcome",
)
GRANTS_STALE: Final = _metric(
    "grants_stale_uses_total",
    "counter",
    "Requests that went on with an answer that was over, because the VISA API did not answer.",
)
GRANTS_REMEMBERED: Final = _metric("grants_remembered", "gauge", "Grants that are remembered.")
API_SECONDS: Final = _metric(
    "api_call_duration_seconds",
    "histogram",
    "Calls of the VISA API: call is instance, account (without side effect), open or close; outcome is ok, "
    "an error, or cancelled.",
    *("call", "outcome"),
)
API_CONNECTIONS: Final = _metric("api_connections", "gauge", "Open connections to the VISA API.")

# --- live access --------------------------------------------------------------------------

ACCESS_WATCHED: Final = _metric(
    "access_watched", "gauge", "Users with WebSockets, for each instance, about whose access VISA is asked."
)
ACCESS_DOUBTED: Final = _metric(
    "access_doubted", "gauge", "Those of them whose newest token VISA refuses; their WebSockets may end."
)
ACCESS_UP: Final = _metric(
    "access_questions_up", "gauge", "1 while VISA answers the questions about live access, else 0."
)
ACCESS_ENDED: Final = _metric(
    "access_ended_total",
    "counter",
    "How often access has ended, and the WebSockets with it; reason as in the list of sessions.",
    "reason",
)

# --- notebook sessions --------------------------------------------------------------------

NOTEBOOK_CONNECTIONS: Final = _metric(
    "notebook_connections", "gauge", "Open kernel channels: connections of notebook sessions."
)
NOTEBOOKS_LINGERING: Final = _metric(
    "notebooks_lingering", "gauge", "Notebook sessions without a connection, whose browser may come back."
)
REPORTS_PENDING: Final = _metric(
    "reports_pending", "gauge", "Reports of notebook sessions that the VISA API has not confirmed yet."
)
REPORTS_AGE: Final = _metric(
    "reports_oldest_age_seconds", "gauge", "How long the oldest of them has been with this process; 0: none."
)
REPORTS: Final = _metric(
    "reports_total",
    "counter",
    "Reports that are settled: delivered, refused, or not delivered for want of a token.",
    *("kind", "outcome"),
)
JOURNAL_UP: Final = _metric("journal_up", "gauge", "1 while the journal can be written, else 0.")
JOURNAL_WAITING: Final = _metric(
    "journal_records_waiting", "gauge", "Records that are not in the journal yet."
)
JOURNAL_LAG: Final = _metric(
    "journal_lag_seconds", "gauge", "How long records have waited without any being written; 0: none waits."
)
JOURNAL_LOST: Final = _metric(
    "journal_records_lost_total", "counter", "Records that were given up because too many waited."
)
JOURNAL_REPLACED: Final = _metric(
    "journal_replaced_total",
    "counter",
    "How often the journal was another one than before: its file was deleted, replaced or damaged.",
)

# --- processes ----------------------------------------------------------------------------

WORKERS: Final = _metric(
    "workers", "gauge", "Workers: serving (not one that has been silent for seconds), and wanted.", "state"
)
WORKER_RESTARTS: Final = _metric(
    "worker_restarts_total", "counter", "Workers that were started in the place of one that had ended."
)
DRAINING: Final = _metric("draining", "gauge", "1 while the proxy is stopping, else 0.")
LOOP_SECONDS: Final = _metric(
    "event_loop_delay_seconds",
    "histogram",
    "How late the event loop is for its one-second tick; process is worker or control.",
    "process",
)
MEMORY: Final = _metric(
    "process_resident_memory_bytes",
    "gauge",
    "Memory; process is control, or worker and its number from 0 on.",
    "process",
)
CPU: Final = _metric("process_cpu_seconds_total", "counter", "CPU time, user and system.", "process")
DESCRIPTORS: Final = _metric("process_open_fds", "gauge", "Open file descriptors.", "process")
STARTED: Final = _metric("start_time_seconds", "gauge", "When control was started, in Unix time.")
BUILD: Final = _metric("build_info", "gauge", "Always 1.", "version", "python")

# --- by instance, only with METRICS_PER_INSTANCE ------------------------------------------

INSTANCE_REQUESTS: Final = _metric(
    "instance_requests_total",
    "counter",
    "Requests and WebSockets of an instance (METRICS_PER_INSTANCE).",
    "instance",
)
INSTANCE_BYTES: Final = _metric(
    "instance_bytes_total",
    "counter",
    "Bytes of bodies and of WebSockets of an instance that have ended (METRICS_PER_INSTANCE).",
    *("instance", "direction"),
)
INSTANCE_TUNNELS: Final = _metric(
    "instance_tunnels", "gauge", "Open WebSockets of an instance (METRICS_PER_INSTANCE).", "instance"
)

_METHODS: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"POST", b"PUT", b"PATCH", b"DELETE"})
_CODES: Final = frozenset(map(int, HTTPStatus)) | {499}


def method_label(method: bytes) -> str:
    """Return the label of a method: its name when it is an ordinary one, else `other`."""
    return method.decode("ascii") if method in _METHODS else "other"


def code_label(status: int) -> str:
    """Return the label of a status: itself when it is registered (or 499), else its class as `4xx`."""
    return str(status) if status in _CODES else f"{status // 100}xx"
