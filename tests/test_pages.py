"""What is told to whom, when a request cannot be served (cases 203, 204)."""

import json

import pytest

from support.messages import fields, request
from support.pages import PAGES, SHIPPED, PageText
from support.reading import lines_of
from visa_jupyter_proxy import errors
from visa_jupyter_proxy.error_pages import TEMPLATES
from visa_jupyter_proxy.errors import InstanceNotReady, InstanceUnreachable, ProxyError
from visa_jupyter_proxy.routes import Match, Route
from visa_jupyter_proxy.visa_api import Instance
from visa_jupyter_proxy.worker.access.grant import not_ready
from visa_jupyter_proxy.worker.http.response import parse_response, response_head
from visa_jupyter_proxy.worker.pages import _STATES, Answer, Pages, error_object, go_on

_ALL = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, ProxyError)]
_ALL.remove(ProxyError)
_ALL.remove(errors.ClientGone)  # never sent

JUPYTER = Match(
    route=Route(match=r"^/jupyter/(\d+)", type="jupyter", name="Notebooks", remote_port=8888),
    instance_id=7,
    target=b"/jupyter/7",
    prefix=b"/jupyter/7",
)

_PERSON = b"Sec-Fetch-Mode: navigate"


def _answer(error: ProxyError, *lines: bytes, pages: Pages = PAGES, service: Match | None = None) -> Answer:
    return pages.refusal(error, request(*lines), service, b"id-1", b"today")


def _service(name: str) -> Match:
    route = Route(match=r"^/x/(\d+)", type="service", name=name, remote_port=80)
    return Match(route=route, instance_id=7, target=b"/x/7", prefix=b"/x/7")


def _title(answer: Answer) -> str:
    return PageText(answer[2].decode()).said["h1"][0]


def _not_ready(state: str | None) -> InstanceNotReady:
    """Make the error of an instance in this state that cannot be reached; None is one without a state."""
    if state is None:
        return InstanceNotReady("x")
    return not_ready(Instance(id=7, host=None, state=state, owner=None, values={}), "x")


@pytest.mark.parametrize("error", _ALL, ids=lambda error: error.__name__)
class TestEveryError:
    """Fixed texts, safe fields."""

    def test_203_204_the_body_is_fixed(self, error: type[ProxyError]) -> None:
        """Error, message and the request's id, and nothing of what happened."""
        _, _, body = _answer(error("10.0.0.12 secret"))
        expected = {"error": error.error, "message": error.message, "requestId": "id-1"}
        assert expected == json.loads(body)
        assert error_object(error(""), b"id-1", b"today")[2] == body

    def test_203_the_head_is_complete(self, error: type[ProxyError]) -> None:
        """With its length, and what keeps browsers and caches from making more of it."""
        reason, lines, body = _answer(error("10.0.0.12 secret"))
        head = parse_response(response_head(error.status, reason, lines))
        assert (error.status, len(body)) == (head.status, head.length)
        sent = dict(fields(lines_of(head)))
        assert (b"application/json", b"no-store", b"nosniff", b"today") == (
            sent[b"Content-Type"],
            sent[b"Cache-Control"],
            sent[b"X-Content-Type-Options"],
            sent[b"Date"],
        )
        assert b"secret" not in b"".join(lines) + reason

    @pytest.mark.parametrize("language", SHIPPED)
    def test_203_204_a_page_is_fixed(self, error: type[ProxyError], language: str) -> None:
        """What happened, what to do, status and the request's id, in a page that needs nothing else."""
        wanted = b"Accept-Language: " + language.encode()
        reason, lines, body = _answer(error("10.0.0.12 <b>"), _PERSON, wanted)
        head = parse_response(response_head(error.status, reason, lines))
        page = body.decode()
        assert (error.status, len(body)) == (head.status, head.length)
        said = PageText(page).said
        assert said["title"] == said["h1"]
        assert len(said["p"]) >= 2
        assert f" {error.status}, " in said["footer"][0]
        assert said["footer"][0].endswith(" id-1")
        unfilled = ("@status@", "@request-id@", "@service@", "{{", "{service}")
        assert [] == [text for text in ("10.0.0.12", "<b>", *unfilled) if text in page]
        assert language.encode() == dict(fields(lines))[b"Content-Language"]

    def test_what_a_status_demands(self, error: type[ProxyError]) -> None:
        """401 a challenge, 405 the methods, 426 the version, 503 when to come again (RFC 9110 15)."""
        needed = {401: b"www-authenticate", 405: b"allow", 426: b"sec-websocket-version", 503: b"retry-after"}
        for lines in ((), (_PERSON,)):
            names = {name.lower() for name, _ in fields(_answer(error(""), *lines)[1])}
            assert (
                ({needed[error.status]} <= names) if error.status in needed else b"retry-after" not in names
            )


def test_there_is_a_page_for_everything() -> None:
    """For every error, for every state that explains one, and no other."""
    assert {error.error for error in _ALL} | set(_STATES.values()) | {"silent"} == set(TEMPLATES)


class TestStates:
    """An instance that cannot be reached: why."""

    @pytest.mark.parametrize(
        ("state", "title"),
        [
            ("BUILDING", "Your instance is being built"),
            ("STARTING", "Your instance is starting"),
            ("REBOOTING", "Your instance is rebooting"),
            ("MIGRATING", "Your instance is moving to another machine"),
            ("STOPPING", "Your instance is shutting down"),
            ("STOPPED", "Your instance is switched off"),
            ("DELETED", "This instance has been deleted"),
            ("ERROR", "Your instance has failed"),
            ("ACTIVE", "JupyterLab is about to start"),
            ("UNKNOWN", "Your instance is not ready yet"),
            ("<b>", "Your instance is not ready yet"),
            (None, "Your instance is not ready yet"),
        ],
    )
    def test_the_state_is_told(self, state: str | None, title: str) -> None:
        """Those that are known; others are not ready."""
        assert title == _title(_answer(_not_ready(state), _PERSON))

    def test_an_instance_that_is_up(self) -> None:
        """Whether JupyterLab has never answered yet, or does not any more, as VISA sees it."""
        error = InstanceUnreachable("x")
        error.state = "ACTIVE"
        assert "JupyterLab is about to start" == _title(_answer(error, _PERSON))
        error.jupyter_answers = True
        assert "JupyterLab does not answer" == _title(_answer(error, _PERSON))

    @pytest.mark.parametrize(
        ("state", "status", "error", "message", "again"),
        [
            *(
                (state, 503, "instance_not_ready", "The instance is not ready yet. Try again soon.", b"5")
                for state in ("BUILDING", "STARTING", "REBOOTING", "MIGRATING", "UNAVAILABLE", "UNKNOWN")
            ),
            *(
                (state, 503, "instance_stopped", "The instance is switched off. Start it in VISA.", b"60")
                for state in ("STOPPING", "STOPPED")
            ),
            ("ERROR", 503, "instance_failed", "The instance has failed. Restart it in VISA.", b"60"),
            *(
                (state, 404, "instance_deleted", "The instance has been deleted.", None)
                for state in ("DELETING", "DELETED")
            ),
        ],
    )
    def test_programs_are_told_the_same(
        self, state: str, status: int, error: str, message: str, again: bytes | None
    ) -> None:
        """What is gone is gone, and nobody is told to try again soon who has to do something first."""
        refusal = _not_ready(state)
        assert status == refusal.status
        _, lines, body = _answer(refusal)
        told = json.loads(body)
        assert (error, message) == (told["error"], told["message"])
        assert again == dict(fields(lines)).get(b"Retry-After")


class TestServices:
    """Pages speak of what the person wants."""

    def test_jupyterlab_is_called_so(self) -> None:
        """Whatever the operator calls its service; and where no service was found, it is what most want."""
        error = InstanceUnreachable("x")
        for service in (JUPYTER, None):
            assert "JupyterLab did not answer" == _title(_answer(error, _PERSON, service=service))

    def test_others_have_the_operators_name(self) -> None:
        """In the title, in the text and in what is awaited; it can be nothing but text."""
        error = InstanceUnreachable("x")
        error.state, error.jupyter_answers = "ACTIVE", True
        service = _service("R & <b>Studio</b>")
        body = _answer(error, _PERSON, service=service)[2].decode()
        said = PageText(body).said
        assert ["R & <b>Studio</b> does not answer"] == said["title"] == said["h1"]
        assert "R & <b>Studio</b> will open here by itself." in said["p"]
        assert ("JupyterLab" in body, "<b>" in body) == (False, False)

    def test_a_page_that_waits_for_it(self) -> None:
        """What it shows from now on has the same name, so that it knows whether anything has changed."""
        error, service = _not_ready("STOPPED"), _service("Visa Files")
        whole = _answer(error, _PERSON, service=service)[2]
        assert whole == PAGES.still_waiting(error, request(), service, b"id-1", b"today")[2]
        assert b"Visa Files cannot be used while it is off." in whole


class TestLanguages:
    """By `Accept-Language` (RFC 9110 12.5.4), English when nothing else will do."""

    @pytest.mark.parametrize(
        ("accepted", "language"),
        [
            ([], b"en"),
            ([b""], b"en"),
            ([b"fr"], b"fr"),
            ([b"FR-ch, en;q=0.5"], b"fr"),
            ([b"de, fr;q=0.4, en;q=0.3"], b"fr"),
            ([b"de"], b"en"),
            ([b"*"], b"en"),
            ([b"fr;q=0, *"], b"en"),
            ([b"fr;q=0.2, *;q=0.8"], b"en"),
            ([b"en;q=0.5", b"fr;q=0.6"], b"fr"),
            ([b"en, fr"], b"en"),
            ([b"fr\xe9, frx, \xff"], b"en"),
            ([b"de," * 1000 + b"fr"], b"en"),
            ([b"fr;q=2, en;q=0.9"], b"fr"),
        ],
    )
    def test_the_one_that_is_wanted_most(self, accepted: list[bytes], language: bytes) -> None:
        """Of equals the first; a region does not matter; a quality that is none is 1."""
        lines = [b"Accept-Language: " + value for value in accepted]
        _, sent, body = _answer(errors.NoRoute("x"), _PERSON, *lines)
        assert language == dict(fields(sent))[b"Content-Language"]
        assert b'<html lang="%b">' % language in body


class TestPolls:
    """What a page that waits is told."""

    def test_what_it_shows_from_now_on(self) -> None:
        """The page that a person would see, as an answer that went well: nothing is demanded of a browser."""
        error = errors.TokenRejected("x")
        _, _, page = _answer(error, _PERSON)
        reason, lines, body = PAGES.still_waiting(error, request(), JUPYTER, b"id-1", b"today")
        assert (b"OK", page) == (reason, body)
        assert b"WWW-Authenticate" not in dict(fields(lines))
        assert b"no-store" == dict(fields(lines))[b"Cache-Control"]

    def test_that_it_may_go_on(self) -> None:
        """Without a body, and never from a cache."""
        reason, lines, body = go_on(b"id-1", b"today")
        assert (b"No Content", b"") == (reason, body)
        assert [(b"Date", b"today"), (b"Cache-Control", b"no-store"), (b"X-Request-Id", b"id-1")] == fields(
            lines
        )
