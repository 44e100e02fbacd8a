"""What a worker counts of requests, and tells once a second."""

from typing import Final

from support.conversation import JUPYTER, Conversation, conversation
from visa_jupyter_proxy import metrics
from visa_jupyter_proxy.errors import InstanceUnreachable, NoToken
from visa_jupyter_proxy.mailbox import Counters
from visa_jupyter_proxy.metrics import BOUNDS
from visa_jupyter_proxy.state import WorkerState
from visa_jupyter_proxy.worker.accounting.counts import Counts

_AT_REST: Final = WorkerState(**dict.fromkeys(WorkerState.__struct_fields__, 0))


def _ended(
    *answer: str | bytes, method: str = "GET", took: tuple[float, float] = (0.25, 2.0)
) -> Conversation:
    """Have one request of 5 bytes answered, after so many seconds until it was sent, and from then on."""
    with conversation() as talk:
        talk.client(f"{method} /jupyter/7/a HTTP/1.1", "Host: visa", "Content-Length: 5", "", "hello")
        talk.authorised()
        talk.now += took[0]
        talk.connected()
        talk.now += took[1]
        talk.instance(*answer)
        _forget(talk)
        return talk


def _ok(body: str = "ok") -> tuple[str, ...]:
    return ("HTTP/1.1 200 OK", f"Content-Length: {len(body)}", "", body)


def _forget(talk: Conversation) -> None:
    """Take no interest in what was sent."""
    talk._to_client.clear()
    if talk.wire is not None:
        talk.wire.sent.clear()


def _count(counts: Counts, talk: Conversation) -> None:
    _forget(talk)
    (exchange,) = talk.ended
    counts.exchange_ended(exchange, talk.now)


def _counted(told: Counters) -> dict[tuple[str, ...], int]:
    return {(count.metric, *count.labels): count.count for count in told.counts}


def _took(told: Counters, metric: str, *labels: str) -> tuple[list[float], float]:
    """Give the upper bounds of the buckets in which there is something, and the sum."""
    (found,) = [one for one in told.observed if (one.metric, one.labels) == (metric, labels)]
    bounds = (*BOUNDS, float("inf"))
    return [
        bound for bound, count in zip(bounds, found.buckets, strict=True) for _ in range(count)
    ], found.seconds


def test_requests_that_were_answered() -> None:
    """By route, method and code; bytes both ways; how long in all, and since they were sent on."""
    counts = Counts([JUPYTER])
    for _ in range(2):
        _count(counts, _ended(*_ok()))
    _count(counts, _ended(*_ok("longer"), method="PUT", took=(0.0, 0.0078125)))
    told = counts.take(_AT_REST, [], [])
    assert {
        (metrics.REQUESTS, JUPYTER.name, "GET", "200"): 2,
        (metrics.REQUESTS, JUPYTER.name, "PUT", "200"): 1,
        (metrics.BYTES, JUPYTER.name, "up"): 15,
        (metrics.BYTES, JUPYTER.name, "down"): 10,
    } == _counted(told)
    whole = _took(told, metrics.REQUEST_SECONDS, JUPYTER.name)
    forward = _took(told, metrics.PHASE_SECONDS, JUPYTER.name, "forward")
    assert ([0.01, 2.5, 2.5], 4.507812) == (whole[0], round(whole[1], 6))
    assert ([0.01, 2.5, 2.5], 4.007812) == (forward[0], round(forward[1], 6))


def test_nothing_is_told_twice() -> None:
    """What has been told is over; bytes, which are counted from the start, too."""
    counts = Counts([JUPYTER])
    _count(counts, _ended(*_ok()))
    counts.take(_AT_REST, [], [])
    told = counts.take(_AT_REST, [], [])
    assert ((), ()) == (told.counts, told.observed)


def test_a_request_that_fails() -> None:
    """It has a code and a reason, and a time."""
    counts = Counts([JUPYTER])
    with conversation() as talk:
        talk.client(*["GET /jupyter/7/a HTTP/1.1", "Host: visa", "", ""])
        talk.fails(InstanceUnreachable("refused"))
        _count(counts, talk)
    told = counts.take(_AT_REST, [], [])
    assert {
        (metrics.REQUESTS, JUPYTER.name, "GET", "502"): 1,
        (metrics.REFUSALS, "instance_unreachable"): 1,
    } == _counted(told)
    assert ([BOUNDS[0]], 0.0) == _took(told, metrics.REQUEST_SECONDS, JUPYTER.name)


def test_a_client_that_leaves() -> None:
    """It was told nothing: 499."""
    counts = Counts([JUPYTER])
    with conversation() as talk:
        talk.client(*["GET /jupyter/7/a HTTP/1.1", "Host: visa", "", ""])
        talk.client_leaves()
        _count(counts, talk)
    assert {
        (metrics.REQUESTS, JUPYTER.name, "GET", "499"): 1,
        (metrics.REFUSALS, "client_gone"): 1,
    } == _counted(counts.take(_AT_REST, [], []))


def test_labels_are_bounded() -> None:
    """A client may send any method, and an instance any status: neither makes a label of its own."""
    counts = Counts([JUPYTER])
    for method, status in (("BREW", 299), ("STIR", 298), ("GET", 418), ("GET", 599)):
        _count(counts, _ended(f"HTTP/1.1 {status} x", "Content-Length: 0", "", "", method=method))
    requests = {
        key[2:]: count for key, count in _counted(counts.take(_AT_REST, [], [])).items() if len(key) == 4
    }
    assert {("other", "2xx"): 2, ("GET", "418"): 1, ("GET", "5xx"): 1} == requests


def test_a_body_counts_while_it_is_on_its_way() -> None:
    """And only once."""
    counts = Counts([JUPYTER])
    with conversation() as talk:
        talk.client(*["GET /jupyter/7/a HTTP/1.1", "Host: visa", "", ""])
        talk.connected()
        talk.instance("HTTP/1.1 200 OK", "Content-Length: 8", "", "half")
        assert talk.exchange is not None
        first = _counted(counts.take(_AT_REST, [], [talk.exchange]))
        assert {(metrics.BYTES, JUPYTER.name, "down"): 4} == first
        talk.instance(b"more")
        _count(counts, talk)
    told = _counted(counts.take(_AT_REST, [], []))
    assert (4, 1) == (
        told[metrics.BYTES, JUPYTER.name, "down"],
        told[metrics.REQUESTS, JUPYTER.name, "GET", "200"],
    )


def test_instances_are_counted_only_when_told() -> None:
    """Each with what it served."""
    talk = _ended(*_ok())
    for per_instance, expected in ((False, {}), (True, {"requests": 1, "up": 5, "down": 2})):
        counts = Counts([JUPYTER], per_instance=per_instance)
        _count(counts, talk)
        told = _counted(counts.take(_AT_REST, [], []))
        found = {
            name: told[key]
            for name, key in (
                ("requests", (metrics.INSTANCE_REQUESTS, "7")),
                ("up", (metrics.INSTANCE_BYTES, "7", "up")),
                ("down", (metrics.INSTANCE_BYTES, "7", "down")),
            )
            if key in told
        }
        assert expected == found


def test_who_is_refused_chooses_no_instance_to_be_counted() -> None:
    """Numbers that anybody can write would push those that are in use out of what is counted."""
    with conversation() as talk:
        talk.client("GET /jupyter/7/a HTTP/1.1", "Host: visa", "", "")
        talk.exchange.fail(NoToken("no token"), talk.now)
        _forget(talk)
    counts = Counts([JUPYTER], per_instance=True)
    _count(counts, talk)
    told = _counted(counts.take(_AT_REST, [], []))
    assert 1 == told[metrics.REFUSALS, "no_token"]
    assert (metrics.INSTANCE_REQUESTS, "7") not in told


def test_what_others_count_is_told_as_it_grows() -> None:
    """Totals since the start come in, differences go out."""
    counts = Counts([])
    for total, expected in ((5, {(metrics.GRANTS, "hit"): 5}), (5, {}), (7, {(metrics.GRANTS, "hit"): 2})):
        counts.reached(metrics.GRANTS, ("hit",), total)
        assert expected == _counted(counts.take(_AT_REST, [], []))
