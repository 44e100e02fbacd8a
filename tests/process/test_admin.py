"""The admin listener of a real proxy: where it listens, who may ask, health, and that all counts add up."""

import base64
import hashlib
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from urllib.parse import quote

import pytest

from process.conftest import KERNEL, TOKEN, Place, channel, path, request
from process.test_ending import ANSWER, answer
from process.test_ending import PING as MASKED_PING
from process.test_workers import open_channels, worker_of
from support.admin import AdminClient, samples, total
from support.client import RawClient, get, upgrade
from support.postgres import PostgresServer
from support.proxy import PREFIX, RunningProxy, environment
from support.visa_api import Answer
from visa_jupyter_proxy import metrics
from visa_jupyter_proxy.worker.http.websocket import close_frame

FAREWELL = close_frame(1008, "ended by an administrator")
ADMIN_TOKEN = "0123456789abcdef"


def knows_sessions(admin: AdminClient, count: int) -> bool:
    """Whether the API lists so many open sessions."""
    return len(admin.get("/api/v1/sessions").json["sessions"]) == count


def answers(client: RawClient) -> bool:
    """Whether the tunnel still carries bytes both ways (the instance plays `answer`)."""
    client.send(MASKED_PING)
    return client.exactly(len(ANSWER)) == ANSWER


def scrape(proxy: RunningProxy) -> dict[tuple[str, ...], float]:
    """Give all metrics of a proxy that asks for no token."""
    return AdminClient(proxy.admin_port).metrics()


@contextmanager
def busy_port() -> Iterator[int]:
    """Have something listen on a loopback port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield int(taken.getsockname()[1])


class TestWhere:
    """Address and port."""

    @pytest.mark.parametrize(
        "sent",
        [
            b"GET /metrics HTTP/1.1\r\nX-Key: my-secret\x01\r\nHost: localhost\r\n\r\n",
            b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: my-secret"
            + b"x" * 9000
            + b"\r\n\r\n",
        ],
        ids=["a byte that no field has", "a line that is too long"],
    )
    def test_what_is_no_http(self, place: Place, sent: bytes) -> None:
        """A 400, and a line without a traceback and without what came: it is no defect of ours."""
        proxy = place.start()
        client = RawClient(proxy.admin_port)
        place.clients.append(client)
        response = client.ask(sent)
        assert 400 == response.status
        told = json.loads(response.body)
        assert ("bad_request", "The request is not valid HTTP.") == (told["error"], told["message"])
        assert [b"visa-jupyter-proxy"] == response.all("server")
        proxy.wait(lambda: proxy.records("no HTTP at the admin listener"))
        assert told["requestId"] == proxy.records("no HTTP at the admin listener")[0]["request_id"]
        log = proxy.log.read_text()
        assert (False, False) == ("Traceback" in log, "my-secret" in log)

    def test_a_port_that_was_chosen_and_is_in_use(self, place: Place) -> None:
        """It does not start, and says which settings to change."""
        with busy_port() as port:
            variables = environment(place.directory, place.api.url, {"ADMIN_PORT": str(port)})
            proxy = RunningProxy(place.directory, variables)
            assert 1 == proxy.exit_status()
        told = proxy.log.read_text()
        assert f"cannot listen on 127.0.0.1 port {port} for administration: Address already in use" in told
        assert f"{PREFIX}ADMIN_PORT" in told

    def test_two_proxies_that_know_of_no_admin_port(self, place: Place) -> None:
        """Each has one of its own: the second takes a free one, warns, and says which."""
        variables = environment(place.directory, place.api.url, {})
        del variables[f"{PREFIX}ADMIN_PORT"]
        first, second = place.directory / "first", place.directory / "second"
        proxies = []
        try:
            for directory in (first, second):
                directory.mkdir()
                proxies.append(RunningProxy(directory, {**variables, f"{PREFIX}STORAGE_DIR": str(directory)}))
                proxies[-1].wait_until_it_listens()
            # Somebody else on this machine may have the port of the first.
            ports = [proxy.admin_port for proxy in proxies]
            assert (2, True) == (len({*ports}), 8089 != ports[1])
            assert 1 == len(
                proxies[1].records("the admin port is in use: another one is taken; set ADMIN_PORT to choose")
            )
            for port in ports:
                assert 200 == AdminClient(port).get("/health/live").status
        finally:
            for proxy in proxies:
                proxy.kill()

    def test_111_nothing_of_it_on_the_public_port(self, place: Place) -> None:
        """404 there, and the dot segment 400; nobody is asked."""
        proxy = place.start()
        for target, status in (
            ("/metrics", 404),
            ("/health/live", 404),
            ("/api/v1/sessions", 404),
            ("/", 404),
            ("/jupyter/../metrics", 400),
        ):
            assert status == place.client(proxy).ask(get(target, token=TOKEN)).status
        assert [] == place.api.requests

    def test_111_not_with_the_public_ports_requests_either(self, place: Place) -> None:
        """The admin listener forwards nothing."""
        admin = AdminClient(place.start().admin_port)
        assert 404 == admin.get("/jupyter/7/x", Authorization=f"Bearer {TOKEN}").status
        assert [] == place.api.requests


class TestAccess:
    """Over a real connection; the rules themselves are in test_access."""

    def test_with_a_token(self, place: Place) -> None:
        """Health without it, all else with it; it is in no log."""
        proxy = place.start(ADMIN_HOST="0.0.0.0", ADMIN_TOKEN=ADMIN_TOKEN)
        stranger, operator = AdminClient(proxy.admin_port), AdminClient(proxy.admin_port, ADMIN_TOKEN)
        assert (200, 401) == (stranger.get("/health/live").status, stranger.get("/metrics").status)
        assert "Bearer" == stranger.get("/metrics").fields["www-authenticate"]
        assert 200 == operator.get("/metrics").status
        assert ADMIN_TOKEN not in proxy.log.read_text()

    def test_without_one(self, place: Place) -> None:
        """This machine, by its own names, and no page of another site; no answer is kept or shared."""
        admin = AdminClient(place.start().admin_port)
        answer = admin.get("/metrics")
        assert (200, "no-store") == (answer.status, answer.fields["cache-control"])
        assert [] == [name for name in answer.fields if name.startswith("access-control")]
        assert 421 == admin.get("/metrics", Host="evil.example:8089").status
        assert 403 == admin.get("/metrics", Sec_Fetch_Site="cross-site").status
        assert 405 == admin.get("/metrics", method="POST").status
        assert 404 == admin.get("/metricss").status


class TestRefusals:
    """JSON as on the public port, whatever is refused, and no word of what serves."""

    @pytest.mark.parametrize(
        ("status", "error", "sent"),
        [
            (404, "not_found", b"GET /api/v2 HTTP/1.1\r\n"),
            (404, "session_not_found", b"DELETE /api/v1/sessions/x HTTP/1.1\r\n"),
            (405, "method_not_allowed", b"PUT /api/v1/sessions HTTP/1.1\r\n"),
            (413, "content_too_large", b"POST /metrics HTTP/1.1\r\nContent-Length: 100000\r\n"),
            (417, "expectation_failed", b"GET /metrics HTTP/1.1\r\nExpect: wonders\r\n"),
            (417, "expectation_failed", b"GET /nowhere HTTP/1.1\r\nExpect: wonders\r\n"),
            (421, "misdirected", b"GET http://evil.example/metrics HTTP/1.1\r\n"),
            (400, "bad_parameter", b"GET /api/v1/sessions?instance=abc HTTP/1.1\r\n"),
            (403, "cross_site", b"GET /metrics HTTP/1.1\r\nSec-Fetch-Site: cross-site\r\n"),
        ],
    )
    def test_an_object_and_a_line(self, place: Place, status: int, error: str, sent: bytes) -> None:
        """With the same id in both; what is wanted is in the message."""
        proxy = place.start()
        client = RawClient(proxy.admin_port)
        place.clients.append(client)
        host = b"evil.example" if status == 421 else b"localhost"
        response = client.ask(sent + b"Host: " + host + b"\r\n\r\n")
        told = json.loads(response.body)
        assert (status, error) == (response.status, told["error"])
        assert {"error", "message", "requestId"} == set(told)
        assert b"application/json" in (response.one("content-type") or b"")
        assert [b"visa-jupyter-proxy"] == response.all("server")
        assert told["requestId"].encode() == response.one("x-request-id")
        assert (response.one("allow") is not None) is (status == 405)
        proxy.wait(lambda: proxy.records("an administrator is not served"))
        (line,) = proxy.records("an administrator is not served")
        assert (told["requestId"], status, error, "127.0.0.1") == (
            line["request_id"],
            line["status"],
            line["reason"],
            line["client"],
        )

    def test_what_is_served_names_nothing_either(self, place: Place) -> None:
        """Not even a stream; and every answer has an id."""
        proxy = place.start()
        admin = AdminClient(proxy.admin_port)
        proxy.wait(lambda: admin.get("/health/ready").status == 200)
        for path_ in ("/", "/metrics", "/health/live", "/api/v1/sessions", "/api/v1/openapi.json"):
            answered = admin.get(path_)
            assert (200, "visa-jupyter-proxy") == (answered.status, answered.fields["server"])
            assert answered.fields["x-request-id"]
        assert "visa-jupyter-proxy" == admin.fields("/api/v1/events")["server"]

    def test_without_addresses_in_the_log(self, place: Place) -> None:
        """Only who has done something to others is named by it."""
        proxy = place.start(LOG_CLIENT_ADDRESS="off")
        admin = AdminClient(proxy.admin_port)
        assert 404 == admin.get("/nope").status
        assert 202 == admin.get("/api/v1/users/anna/tunnels", method="DELETE").status
        proxy.wait(lambda: proxy.records("an administrator ends connections"))
        assert None is proxy.records("an administrator is not served")[0]["client"]
        assert "127.0.0.1" == proxy.records("an administrator ends connections")[0]["client"]


class TestHealth:
    """What probes are told."""

    def test_ready_and_degraded(self, place: Place) -> None:
        """A VISA API that is away is shown, and does not take the proxy out of service."""
        proxy = place.start()
        admin = AdminClient(proxy.admin_port)
        assert {"status": "live"} == admin.get("/health/live").json
        proxy.wait(lambda: admin.get("/health/ready").status == 200)
        expected = {
            "status": "ready",
            "workers": {"serving": 1, "wanted": 1},
            "journal": "written",
            "journalsReplaced": 0,
            "draining": False,
            "visaApi": "unknown",
        }
        assert expected == admin.get("/health/ready").json
        assert place.client(proxy).ask(request()).status == 200
        proxy.wait(lambda: admin.get("/health/ready").json["visaApi"] == "ok")
        place.api.down()
        assert place.client(proxy).ask(get("/jupyter/8/x", token="other")).status == 503
        proxy.wait(lambda: admin.get("/health/ready").json["visaApi"] == "failing")
        assert (200, "degraded") == (
            admin.get("/health/ready").status,
            admin.get("/health/ready").json["status"],
        )

    def test_workers_that_are_stopped(self, place: Place) -> None:
        """Who is silent for some seconds does not serve, long before it is ended as one that hangs."""
        proxy = place.start(WORKERS="2")
        admin = AdminClient(proxy.admin_port)
        proxy.wait(lambda: admin.get("/health/ready").status == 200)
        first, second = proxy.worker_pids
        try:
            os.kill(first, signal.SIGSTOP)
            proxy.wait(lambda: admin.get("/health/ready").json["status"] == "degraded")
            assert {"serving": 1, "wanted": 2} == admin.get("/health/ready").json["workers"]
            os.kill(second, signal.SIGSTOP)
            proxy.wait(lambda: admin.get("/health/ready").status == 503)
            assert 0 == scrape(proxy)["workers", "serving"]
        finally:
            for stopped in (first, second):
                os.kill(stopped, signal.SIGCONT)
        proxy.wait(lambda: admin.get("/health/ready").json["status"] == "ready")
        assert [first, second] == proxy.worker_pids

    def test_a_journal_that_cannot_be_written(self, place: Place) -> None:
        """Not ready: a session that began here could be lost."""
        proxy = place.start(STORAGE_DIR=str(place.directory / "proxy.log"))
        admin = AdminClient(proxy.admin_port)
        proxy.wait(lambda: admin.get("/health/ready").json["journal"] == "failing")
        assert 503 == admin.get("/health/ready").status
        assert 200 == admin.get("/health/live").status
        assert 0 == scrape(proxy)["journal_up",]

    def test_while_it_stops(self, place: Place) -> None:
        """Alive and not ready, as long as something is under way."""
        proxy = place.start(DRAIN_S="30")
        admin = AdminClient(proxy.admin_port)
        proxy.wait(lambda: admin.get("/health/ready").status == 200)
        client = place.client(proxy)
        client.send(request("/x", "Content-Length: 5", method="POST"))
        proxy.wait(lambda: [one for one in proxy.states() if one.get("upstream_busy")])
        proxy.signal(signal.SIGTERM)
        proxy.wait(lambda: admin.get("/health/ready").status == 503)
        answer = admin.get("/health/ready").json
        assert ("not ready", True) == (answer["status"], answer["draining"])
        assert 200 == admin.get("/health/live").status
        client.send(b"hello")
        assert 200 == client.response().status
        assert 0 == proxy.exit_status()


class TestMetrics:
    """A scrape adds up to what was sent, whoever served it."""

    def test_two_workers_and_one_that_is_killed(self, place: Place) -> None:
        """Requests, bytes, times and tunnels of both; those of a dead worker stay, what it had open goes."""
        proxy = place.start(WORKERS="2", METRICS_PER_INSTANCE="on")
        channels = open_channels(place, proxy, 4)
        clients = [place.client(proxy) for _ in range(6)]
        for client in clients * 5:
            assert client.ask(request()).status == 200
        assert 2 == len({worker_of(proxy, client) for client in clients})
        put = request("/x", "Content-Length: 5", method="PUT")
        assert clients[0].ask(put + b"hello").status == 200
        assert clients[0].ask(get("/nope")).status == 404
        assert clients[0].ask(get("/jupyter/7/x")).status == 401
        proxy.wait(lambda: total(scrape(proxy), "requests_total") == 33 + len(channels))
        found = scrape(proxy)
        self._adds_up(found, len(channels))
        killed = proxy.worker_pids[0]
        left = sum(pid != killed for _, pid in channels.values())
        os.kill(killed, signal.SIGKILL)
        proxy.wait(lambda: scrape(proxy)["worker_restarts_total",] == 1)
        proxy.wait(lambda: scrape(proxy)["connections", "tunnel"] == left)
        proxy.wait(lambda: scrape(proxy)["workers", "serving"] == 2)
        again = scrape(proxy)
        for name in ("requests_total", "bytes_total", "request_duration_seconds_count", "grants_total"):
            assert total(found, name) == total(again, name)
        assert place.client(proxy).ask(request()).status == 200
        proxy.wait(lambda: scrape(proxy)["requests_total", "Jupyter", "GET", "200"] == 31)

    def _adds_up(self, found: dict[tuple[str, ...], float], tunnels: int) -> None:
        expected = {
            ("requests_total", "Jupyter", "GET", "200"): 30,
            ("requests_total", "Jupyter", "PUT", "200"): 1,
            ("requests_total", "Jupyter", "GET", "101"): tunnels,
            ("requests_total", "Jupyter", "GET", "401"): 1,
            ("requests_total", "", "GET", "404"): 1,
            ("refusals_total", "no_route"): 1,
            ("refusals_total", "no_token"): 1,
            ("request_duration_seconds_count", "Jupyter"): 32,
            ("phase_duration_seconds_count", "Jupyter", "forward"): 31,
            ("bytes_total", "Jupyter", "up"): 5,
            ("bytes_total", "Jupyter", "down"): 31 * 2,
            ("tunnels_opened_total", "Jupyter"): tunnels,
            ("connections", "tunnel"): tunnels,
            ("connections", "client"): 6,
            ("notebook_connections",): tunnels,
            ("workers", "serving"): 2,
            ("workers", "wanted"): 2,
            ("worker_restarts_total",): 0,
            ("grants_remembered",): 2,
            ("instance_requests_total", "7"): 31 + tunnels,
            ("instance_tunnels", "7"): tunnels,
            ("journal_up",): 1,
        }
        assert expected == {key: found.get(key) for key in expected}
        assert 31 + tunnels == total(found, "grants_total")
        assert found["grants_total", "miss"] == found["phase_duration_seconds_count", "Jupyter", "authorize"]
        opened = found["upstream_connects_total", "ok"]
        assert opened == found["phase_duration_seconds_count", "Jupyter", "connect"]
        assert 31 + tunnels == opened + found["upstream_reuses_total",]
        assert found["api_call_duration_seconds_count", "instance", "ok"] == len(("one", "for each worker"))
        assert (
            tunnels
            == found["api_call_duration_seconds_count", "open", "ok"]
            == found["reports_total", "open", "delivered"]
        )
        assert {"control", "worker-0", "worker-1"} == {
            key[1] for key in found if key[0] == "process_open_fds"
        }
        assert all(found["process_resident_memory_bytes", name] > 2**20 for name in ("control", "worker-1"))

    def test_what_the_api_does(self, place: Place) -> None:
        """By outcome; an open that is refused is counted as such, a report that waits grows old."""
        proxy = place.start()
        place.api.script("instance", Answer(503), Answer(401))
        assert place.client(proxy).ask(request()).status == 502
        assert place.client(proxy).ask(request()).status == 401
        place.api.always("open", Answer(503))
        proxy.wait(lambda: place.client(proxy).ask(channel("S")).status == 101)
        proxy.wait(lambda: scrape(proxy)["reports_oldest_age_seconds",] > 0)
        found = scrape(proxy)
        calls = "api_call_duration_seconds_count"
        assert (1, 1) == (
            found[calls, "instance", "visa_invalid"],
            found[calls, "instance", "token_rejected"],
        )
        assert (1, 0) == (found["reports_pending",], total(found, "reports_total"))
        place.api.always("open", None)

    @pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
    def test_the_format(self, place: Place, accept: str) -> None:
        """As Prometheus asks for it; no instance is named unless that is wanted, and no user ever."""
        proxy = place.start()
        assert place.client(proxy).ask(request()).status == 200
        proxy.wait(lambda: ("requests_total", "Jupyter", "GET", "200") in scrape(proxy))
        answer = AdminClient(proxy.admin_port).get("/metrics", Accept=accept)
        expected = accept.partition(";")[0] or "text/plain"
        assert expected == answer.fields["content-type"].partition(";")[0]
        text = answer.body.decode()
        assert (False, False, False) == ("instance_requests" in text, "anna" in text, TOKEN in text)
        if not accept:
            assert samples(text)
        shown = set(re.findall(rf"^# TYPE {metrics.PREFIX}(\w+) ", text, re.MULTILINE))
        declared = {name for name in metrics.METRICS if not name.startswith("instance_")}
        assert {name.removesuffix("_total") for name in declared} == {
            name.removesuffix("_total") for name in shown
        }


class TestApi:
    """What is going on, and ending it."""

    def test_the_description_is_of_what_there_is(self, place: Place) -> None:
        """Every path and method, and no other; every answer has the fields that are described."""
        admin = AdminClient(place.start().admin_port)
        document = admin.get("/api/v1/openapi.json").json
        for template, operations in document["paths"].items():
            filled = template.replace("{id}", "none").replace("{sub}", "none")
            for method in ("get", "delete", "put", "post"):
                status = admin.status(f"/api/v1{filled}", method.upper())
                assert (status != 405) == (method in operations), (method, template)
                assert status == 405 or str(status) in operations[method]["responses"], (method, template)

    def test_routes_and_settings(self, place: Place) -> None:
        """As they were read; what is secret is masked."""
        proxy = place.start(ADMIN_TOKEN=ADMIN_TOKEN, LOG_LEVEL="debug", SERVER_NAMES="127.0.0.1,visa.test")
        admin = AdminClient(proxy.admin_port, ADMIN_TOKEN)
        config = admin.get("/api/v1/config")
        settings = config.json["settings"]
        assert ("debug", ["127.0.0.1", "visa.test"]) == (settings["LOG_LEVEL"], settings["SERVER_NAMES"])
        assert ("********", None) == (settings["ADMIN_TOKEN"], settings["STORAGE_URL"])
        assert ADMIN_TOKEN.encode() not in config.body
        (route,) = admin.get("/api/v1/routes").json["routes"]
        assert ("Jupyter", r"^/jupyter/(\d+).*", True) == (route["name"], route["match"], route["ws"])
        assert 401 == AdminClient(proxy.admin_port).get("/api/v1/config").status

    def test_sessions_and_instances(self, place: Place) -> None:
        """Who, where, since when; found by user and instance."""
        proxy = place.start()
        admin = AdminClient(proxy.admin_port)
        open_channels(place, proxy, 2)
        proxy.wait(lambda: len(admin.get("/api/v1/sessions").json["sessions"]) == 2)
        document = admin.get("/api/v1/openapi.json").json["components"]["schemas"]
        for session in admin.get("/api/v1/sessions").json["sessions"]:
            assert set(document["Session"]["properties"]) == set(session)
            assert (7, 1, [socket.gethostname()]) == (
                session["instance"],
                session["connections"],
                session["nodes"],
            )
        user = session["user"]
        assert user.startswith("token:")
        (instance,) = admin.get("/api/v1/instances").json["instances"]
        assert set(document["Instance"]["properties"]) == set(instance)
        assert (7, [user], 2) == (instance["id"], instance["users"], instance["sessions"])
        for query, count in ((f"user={user}&instance=7", 2), ("user=ben", 0), ("instance=8", 0)):
            assert count == len(admin.get(f"/api/v1/sessions?{query}").json["sessions"])

    @pytest.mark.parametrize(
        ("target", "said"),
        [
            ("sessions?instance=abc", "instance: write the id of an instance, a whole number up to"),
            ("sessions?instance=", "instance: write the id"),
            ("sessions?instance=-1", "instance: write the id"),
            (f"sessions?instance={2**63}", "instance: write the id"),
            ("sessions?instance=٣", "instance: write the id"),
            ("sessions?user=", "user: write the `user` of a session, or leave it out"),
            ("sessions?user=a&user=b", "user: is there more than once: write it once"),
            ("sessions?users=a", "users: there is no such parameter: there are user, instance"),
            ("instances?instance=7", "instance: there is no such parameter: there are none here"),
            ("routes?name=x", "there are none here"),
            ("config?x", "there are none here"),
            ("openapi.json?x=", "there are none here"),
            ("events?token=x", "there are none here"),
        ],
    )
    def test_parameters_that_mean_nothing(self, place: Place, target: str, said: str) -> None:
        """400 with what to write, instead of an answer to another question."""
        admin = AdminClient(place.start().admin_port)
        answered = admin.get(f"/api/v1/{quote(target, safe='/?=&-')}")
        assert (400, "bad_parameter") == (answered.status, answered.json["error"])
        assert said in answered.json["message"]
        document = admin.get("/api/v1/openapi.json").json
        assert "400" in document["paths"]["/sessions"]["get"]["responses"]
        parameters = document["paths"]["/sessions"]["get"]["parameters"]
        assert {"user": "string", "instance": "integer"} == {
            one["name"]: one["schema"]["type"] for one in parameters
        }

    def test_a_user_whose_name_is_shortened(self, place: Place) -> None:
        """Whoever copies it from the API, or writes the token's `sub`, means that user."""
        place.instance.play(answer)
        proxy = place.start()
        admin = AdminClient(proxy.admin_port)
        sub = "https://identity.example/" + "a" * 200
        token = f"e30.{base64.urlsafe_b64encode(json.dumps({'sub': sub}).encode()).decode().rstrip('=')}.c2ln"
        place.api.user(token, "anna")
        proxy.wait(lambda: admin.get("/health/ready").status == 200)
        for named in ("as the API shows it", "as the token has it"):
            client = place.client(proxy)
            target = path(f"/api/kernels/{KERNEL}/channels?session_id=S")
            assert 101 == client.ask(upgrade(target, token=token)).status
            proxy.wait(
                lambda: [one["connections"] for one in admin.get("/api/v1/sessions").json["sessions"]] == [1]
            )
            (session,) = admin.get("/api/v1/sessions").json["sessions"]
            assert 151 == len(session["user"])
            name = quote(session["user"] if named == "as the API shows it" else sub, safe="")
            assert 1 == len(admin.get(f"/api/v1/sessions?user={name}").json["sessions"])
            assert 202 == admin.get(f"/api/v1/users/{name}/tunnels", method="DELETE").status
            assert FAREWELL == client.exactly(len(FAREWELL))
            client.finish()
            proxy.wait(lambda: admin.get("/api/v1/sessions").json["sessions"] == [])

    def test_a_session_is_ended(self, place: Place) -> None:
        """On whatever worker: its browser gets a close frame, the others go on; the log says who asked."""
        place.instance.play(answer)
        proxy = place.start(WORKERS="2")
        admin = AdminClient(proxy.admin_port)
        channels = open_channels(place, proxy, 3)
        proxy.wait(lambda: len(admin.get("/api/v1/sessions").json["sessions"]) == len(channels))
        ids = {one["session"]: one["id"] for one in admin.get("/api/v1/sessions").json["sessions"]}
        for session in ("S0", "S2"):
            told = admin.get(f"/api/v1/sessions/{ids[session]}", method="DELETE", User_Agent="board")
            assert (202, {"nodes": [socket.gethostname()]}) == (told.status, told.json)
            client, _ = channels[session]
            assert FAREWELL == client.exactly(len(FAREWELL))
        proxy.wait(lambda: place.sessions() == {one: one not in ("S0", "S2") for one in channels})
        assert answers(channels["S1"][0])
        records = proxy.records("an administrator ends connections")
        assert [("127.0.0.1", "board", ids["S0"]), ("127.0.0.1", "board", ids["S2"])] == [
            (one["client"], one["user_agent"], one["session"]) for one in records
        ]
        for gone in (ids["S0"], "none", "%2e%2e"):
            assert 404 == admin.get(f"/api/v1/sessions/{gone}", method="DELETE").status
        foreign = admin.get(f"/api/v1/sessions/{ids['S1']}", method="DELETE", Origin="https://evil.example")
        assert 403 == foreign.status
        assert answers(channels["S1"][0])

    def test_a_user_is_ended_on_all_nodes(self, place: Place, postgres: PostgresServer) -> None:
        """Terminals, too; those of others go on. And one session, from the node that has it not."""
        place.instance.play(answer)
        url = postgres.create("admin")
        token = f"e30.{base64.urlsafe_b64encode(b'{"sub": "anna/1"}').decode().rstrip('=')}.c2ln"
        place.api.user(token, "anna")
        nodes = [place.start(node=name, STORAGE_URL=url, OWNER_TIMEOUT_S="2.5") for name in ("one", "two")]
        admins = [AdminClient(node.admin_port) for node in nodes]
        kernels = [place.client(node) for node in nodes]
        for number, client in enumerate(kernels):
            target = path(f"/api/kernels/{KERNEL}/channels?session_id=N{number}")
            assert 101 == client.ask(upgrade(target, token=token)).status
        terminal, other = place.client(nodes[1]), place.client(nodes[1])
        assert 101 == terminal.ask(upgrade(path("/terminals/websocket/1"), token=token)).status
        assert 101 == other.ask(upgrade(path("/terminals/websocket/2"), token=TOKEN)).status
        for node, admin in zip(nodes, admins, strict=True):
            node.wait(partial(knows_sessions, admin, 2))
        ids = {one["session"]: one["id"] for one in admins[0].get("/api/v1/sessions").json["sessions"]}
        assert 202 == admins[0].get(f"/api/v1/sessions/{ids['N1']}", method="DELETE").status
        assert FAREWELL == kernels[1].exactly(len(FAREWELL))
        assert answers(kernels[0])
        assert answers(terminal)
        nodes[0].wait(partial(knows_sessions, admins[0], 1))  # the other is over in the journal, too
        told = admins[0].get("/api/v1/users/anna%2F1/tunnels", method="DELETE")
        known = {"instances": 1, "sessionsElsewhere": 0}  # a terminal of another node is known there alone
        assert (202, {"nodes": [socket.gethostname()], **known}) == (told.status, told.json)
        for client in (kernels[0], terminal):
            assert FAREWELL == client.exactly(len(FAREWELL))
        assert answers(other)
        nobody = admins[0].get("/api/v1/users/nobody/tunnels", method="DELETE")
        assert (202, 0, 0) == (nobody.status, nobody.json["instances"], nobody.json["sessionsElsewhere"])
        # What no id can be, and PostgreSQL takes no question about.
        assert 404 == admins[0].get("/api/v1/sessions/%00", method="DELETE").status
        assert 202 == admins[0].get("/api/v1/users/%00/tunnels", method="DELETE").status
        asked = [one["asked_by"] for one in nodes[1].records("connections are ended for an administrator")]
        assert [f"127.0.0.1 at {socket.gethostname()}"] * 2 == asked[:2]

    def test_without_the_journal(self, place: Place) -> None:
        """What is here is ended all the same; what has to be looked up is not, and both are said."""
        place.instance.play(answer)
        proxy = place.start(STORAGE_DIR=str(place.directory / "proxy.log"))
        admin = AdminClient(proxy.admin_port)
        client = place.client(proxy)
        assert 101 == client.ask(channel("S")).status
        assert 503 == admin.get("/api/v1/sessions").status
        assert 503 == admin.get("/api/v1/sessions/x", method="DELETE").status
        assert answers(client)
        user = f"token:{hashlib.sha256(TOKEN.encode()).hexdigest()[:16]}"
        told = admin.get(f"/api/v1/users/{user}/tunnels", method="DELETE")
        assert (503, "journal_unavailable") == (told.status, told.json["error"])
        assert FAREWELL == client.exactly(len(FAREWELL))
