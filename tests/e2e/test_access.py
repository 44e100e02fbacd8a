"""Who may not: the instance sees nothing of them, and VISA is asked with exactly what they sent."""

import hashlib
import json
import uuid

import pytest

from support.running_demo import RunningDemo, eventually

pytestmark = pytest.mark.timeout(300)


def _probe(instance_id: int) -> tuple[str, str]:
    marker = uuid.uuid4().hex
    return marker, f"/jupyter/{instance_id}/api/status?probe={marker}"


def _other_signature(token: str) -> str:
    payload, _, signature = token.rpartition(".")
    return f"{payload}.{signature[::-1]}"


def _answers_of_visa(demo: RunningDemo, token: str) -> list[tuple[str, int]]:
    digest = hashlib.sha256(token.encode()).hexdigest()
    return [
        (call["path"], call["status"]) for call in demo.recorded("calls") if call["tokenSha256"] == digest
    ]


def test_others_are_refused_while_the_owner_is_let_in(demo: RunningDemo) -> None:
    """Another user gets 404, no token 401, a forged token with the owner's claims 401; the owner, 200."""
    ada, emmy = demo.token("ada"), demo.token("emmy")
    forged = _other_signature(ada)
    assert forged != ada
    # From here on the owner's grant is cached: claims that looked like hers would find it.
    assert 200 == demo.ask(_probe(1)[1], cookie=ada).status

    markers = []
    for expected, cookie in ((404, emmy), (401, None), (401, forged)):
        marker, path = _probe(1)
        markers.append(marker)
        answer = demo.ask(path, cookie=cookie)
        assert expected == answer.status
        assert {"error", "message", "requestId"} <= set(json.loads(answer.body))
        assert (expected == 401) == answer.fields.get("www-authenticate", "").startswith("Bearer")

    assert [("/api/jupyter/instances/1", 401)] == _answers_of_visa(demo, forged)
    assert [("/api/jupyter/instances/1", 404)] == _answers_of_visa(demo, emmy)
    # The log has the requests in their order: when the last is in, no earlier one is still to come.
    last, path = _probe(1)
    assert 200 == demo.ask(path, cookie=ada).status
    eventually("JupyterLab has logged the last request", lambda: demo.seen_by_instance(1, last))
    assert [False] * 3 == [demo.seen_by_instance(1, marker) for marker in markers]
    assert 1 == len(_answers_of_visa(demo, ada))


def test_a_bearer_value_decides_alone(demo: RunningDemo) -> None:
    """A good cookie does not help a bad Bearer; a good Bearer needs no cookie."""
    ada = demo.token("ada")
    assert 200 == demo.ask(_probe(1)[1], bearer=ada).status
    assert 401 == demo.ask(_probe(1)[1], bearer=_other_signature(ada), cookie=ada).status


def test_a_member_who_is_not_the_owner_gets_404(demo: RunningDemo) -> None:
    """Ada is a member of Emmy's instance: that is not enough for its Jupyter."""
    assert 404 == demo.ask(_probe(2)[1], cookie=demo.token("ada")).status
    assert 200 == demo.ask(_probe(2)[1], cookie=demo.token("emmy")).status


def test_an_instance_that_is_being_built(demo: RunningDemo) -> None:
    """Without an address it is 503, and the answer says that it is not ready yet."""
    answer = demo.ask(_probe(3)[1], cookie=demo.token("ada"))
    assert (503, "instance_not_ready") == (answer.status, json.loads(answer.body)["error"])


def test_nothing_secret_is_logged(demo: RunningDemo) -> None:
    """Neither a token nor a query string of a refused request stands in the proxy's log."""
    forged = _other_signature(demo.token("ada"))
    marker, path = _probe(1)
    answer = demo.ask(path, cookie=forged)
    log = demo.logs / "proxy.log"
    request_id = json.loads(answer.body)["requestId"]
    eventually("the refusal is logged", lambda: request_id in log.read_text())
    assert [False, False] == [text in log.read_text() for text in (marker, forged)]
