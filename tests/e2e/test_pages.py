"""Each page in its situation, in a real browser: what a person sees, and how it goes on by itself.

PICTURES=/tmp/pictures pytest tests/e2e/test_pages.py -k looks    # screenshots, to be looked at
"""

import itertools
import os
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from support.instance import Connection, Instance, ok
from support.proxy import RunningProxy, running_proxy
from support.running_demo import RunningDemo, eventually
from support.visa_api import VisaApiServer, visa_api_thread

CHROMIUM: Final = "/usr/bin/chromium"
DESK: Final = "#jp-main-dock-panel"
"""What JupyterLab always has; a launcher only where nothing is open."""
NOBODY: Final = "127.0.0.3"
"""An address at which nothing listens."""

POLL_MS: Final = 6_000
"""Longer than a page waits between two questions, at first."""

LAB: Final = ok(b"<!doctype html><title>JupyterLab</title><h1>Lab</h1>", "Content-Type: text/html")

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
_numbers: Final = itertools.count(1)


@dataclass
class World:
    """A person with an instance, at a browser; clocks of its pages go as the test says."""

    proxy: RunningProxy
    api: VisaApiServer
    instance: Instance
    number: int
    context: BrowserContext
    page: Page
    wrong: list[str] = field(default_factory=list)
    """What the browser complained of: scripts that failed, what a policy has forbidden."""

    @property
    def url(self) -> str:
        """Where the person's JupyterLab is."""
        return f"http://127.0.0.1:{self.proxy.port}/jupyter/{self.number}/lab?reset#cell"

    @property
    def polls(self) -> int:
        """How often VISA was asked on behalf of a page that waits."""
        return len([one for one in self.api.asked("account") if one.path.endswith(f"/{self.number}")])

    def own(self, **fields: Any) -> None:
        """Have VISA say this of the instance."""
        self.api.instance(self.number, owner=f"user-{self.number}", **{"ip": self.instance.host, **fields})

    def sign_in(self, context: BrowserContext | None = None) -> None:
        """Do what VISA Web does, in another tab."""
        (context or self.context).add_cookies(
            [{"name": "access_token", "value": f"token-{self.number}", "url": self.url.partition("?")[0]}]
        )

    def sees(self, title: str) -> None:
        """Expect a page of ours, and the same as the title of its tab."""
        expect(self.page.get_by_role("heading", name=title, exact=True)).to_be_visible()
        expect(self.page).to_have_title(title)

    def waits(self, milliseconds: int = POLL_MS) -> None:
        """Let so much time go by in the page."""
        self.page.clock.run_for(milliseconds)

    def goes_on(self) -> None:
        """Expect JupyterLab, without a click, at the very address."""
        self.waits()
        expect(self.page.get_by_role("heading", name="Lab", exact=True)).to_be_visible()
        assert self.url == self.page.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium. Playwright ends with the module: its loop would be in the way of other tests."""
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=os.geteuid() != 0)
        expect.set_options(timeout=60_000)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def api() -> Iterator[VisaApiServer]:
    """Run a scripted VISA API."""
    with visa_api_thread() as server:
        yield server


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, api: VisaApiServer) -> Iterator[RunningProxy]:
    """Run a proxy with one service, which takes a kilobyte at a time."""
    with socket.create_server(("0.0.0.0", 0)) as sock:
        port = int(sock.getsockname()[1])
    route = {
        "match": r"^/jupyter/(\d+).*",
        "type": "jupyter",
        "name": "Jupyter",
        "remotePort": port,
        "maxBodyBytes": 1024,
    }
    with running_proxy(tmp_path_factory.mktemp("proxy"), api_url=api.url, routes=[route]) as running:
        yield running


@pytest.fixture
def world(proxy: RunningProxy, api: VisaApiServer, browser: Browser) -> Iterator[World]:
    """Give a person an instance that is up, and a tab."""
    number = next(_numbers)
    api.user(f"token-{number}", f"user-{number}")
    port = _port_of(proxy)
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    page.clock.install()
    with Instance(port) as instance:
        instance.answer(LAB)
        made = World(proxy, api, instance, number, context, page)
        page.on("pageerror", lambda error: made.wrong.append(str(error)))
        page.on("console", lambda said: made.wrong.append(said.text) if "olicy" in said.text else None)
        made.own()
        made.sign_in()
        yield made
        context.close()
    assert [] == made.wrong


def _port_of(proxy: RunningProxy) -> int:
    return int(re.findall(r'"remotePort": (\d+)', (proxy.directory / "proxy.conf.json").read_text())[0])


def _building(world: World) -> None:
    world.own(ip=None, state="BUILDING", activeProtocols=[])


def _starting(world: World) -> None:
    world.own(ip=NOBODY, state="STARTING", activeProtocols=[])


def _not_yet(world: World) -> None:
    world.own(ip=NOBODY, activeProtocols=[])


def _silent(world: World) -> None:
    world.own(ip=NOBODY)


def _stopped(world: World) -> None:
    world.own(ip=None, state="STOPPED", activeProtocols=[])


def _signed_out(world: World) -> None:
    world.context.clear_cookies()


def _visa_is_down(world: World) -> None:
    world.api.down()


def _of_somebody_else(world: World) -> None:
    world.api.instance(world.number, owner="somebody else", ip=world.instance.host)


SITUATIONS: Final[dict[str, tuple[Callable[[World], None], str]]] = {
    "building": (_building, "Your instance is being built"),
    "starting": (_starting, "Your instance is starting"),
    "not-yet": (_not_yet, "JupyterLab is about to start"),
    "silent": (_silent, "JupyterLab does not answer"),
    "stopped": (_stopped, "Your instance is switched off"),
    "signed-out": (_signed_out, "You are not signed in"),
    "unreachable": (_visa_is_down, "VISA cannot be reached"),
}
"""Those that may be over soon."""


@pytest.fixture(autouse=True)
def visa_is_back(api: VisaApiServer) -> Iterator[None]:
    """Have VISA answer again behind each test."""
    yield
    api.up()


class TestGoingOn:
    """Pages that turn into JupyterLab without a click."""

    @pytest.mark.parametrize("situation", SITUATIONS)
    def test_it_turns_into_jupyterlab(self, world: World, situation: str) -> None:
        """When what it waits for has come; not before, and without counting as use of the instance."""
        begin, title = SITUATIONS[situation]
        begin(world)
        world.page.goto(world.url)
        world.sees(title)
        seen = world.api.seen(world.number)
        asked = world.polls
        world.waits()
        if situation not in ("signed-out", "unreachable"):
            eventually("the page has asked", lambda: world.polls > asked)
        world.sees(title)
        assert (seen, []) == (world.api.seen(world.number), world.instance.requests)
        world.api.up()
        world.own()
        world.sign_in()
        world.goes_on()

    def test_it_shows_what_happens_meanwhile(self, world: World) -> None:
        """In place: it is the same document from being built to being up."""
        _building(world)
        world.page.goto(world.url)
        world.page.evaluate("window.same = true")
        for begin, title in (SITUATIONS[name] for name in ("building", "starting", "not-yet", "signed-out")):
            begin(world)
            world.waits()
            world.sees(title)
        assert world.page.evaluate("window.same") is True
        world.sign_in()
        world.own()
        world.goes_on()

    def test_what_will_not_change_is_not_asked_again(self, world: World) -> None:
        """A page that waited, and whose instance has been deleted, says so and stops."""
        _stopped(world)
        world.page.goto(world.url)
        _of_somebody_else(world)
        world.waits()
        world.sees("There is no such instance, or it is not yours")
        asked = len(world.api.requests)
        world.waits(600_000)
        assert asked == len(world.api.requests)

    def test_it_asks_seldom_and_gives_up(self, world: World) -> None:
        """Every 5 s at most, later every 15 s, for half an hour; a click begins anew."""
        # The answers are the test's own: real ones take real time, and the page's clock does not.
        world.page.add_init_script(
            """window.asked = [];
            window.fetch = async () => {
              window.asked.push(Date.now());
              return { status: 200, text: async () => document.documentElement.outerHTML };
            };"""
        )
        _building(world)
        world.page.goto(world.url)
        world.sees("Your instance is being built")
        began = world.page.evaluate("Date.now()")
        world.waits(40 * 60_000)
        expect(world.page.get_by_text("This page has stopped looking")).to_be_visible()
        expect(world.page.get_by_text("JupyterLab will open here by itself")).to_be_hidden()
        times = world.page.evaluate("window.asked")
        between = [after - before for before, after in itertools.pairwise(times)]
        assert times[0] - began > 4_000
        assert 5_000 <= min(between[:10]) <= max(between[:10]) < 6_500
        assert min(between) >= 5_000
        assert 15_000 <= min(between[-10:]) <= max(between[-10:]) < 16_500
        assert 29 * 60_000 < times[-1] - began < 31 * 60_000
        world.own()
        world.page.get_by_role("button", name="Look again").click()
        expect(world.page.get_by_role("heading", name="Lab", exact=True)).to_be_visible()

    def test_a_forgotten_page_keeps_nothing_alive(self, world: World) -> None:
        """An instance that accepts connections and answers nothing, again and again: half an hour in all."""
        _silent(world)
        world.page.goto(world.url)
        world.sees("JupyterLab does not answer")
        # What the page leaves to its successor when it goes on; here it is the same page once more.
        world.page.evaluate("history.replaceState({visaWaitsSince: Date.now() - 29 * 60_000}, '')")
        world.page.reload()
        world.sees("JupyterLab does not answer")
        world.waits(70_000)
        expect(world.page.get_by_text("This page has stopped looking")).to_be_visible()
        # A person who reloads it begins anew.
        world.page.reload()
        world.sees("JupyterLab does not answer")
        world.waits(70_000)
        expect(world.page.get_by_text("JupyterLab will open here by itself")).to_be_visible()

    def test_it_leaves_its_beginning_to_its_successor(self, world: World) -> None:
        """Whoever goes on and comes back has waited since then, and not since a moment."""
        _silent(world)
        world.page.goto(world.url)
        world.sees("JupyterLab does not answer")
        began = world.page.evaluate("Date.now()")
        world.own()
        world.goes_on()
        assert abs(world.page.evaluate("history.state.visaWaitsSince") - began) < 5_000

    def test_in_the_frame_of_visa(self, world: World) -> None:
        """It goes on inside the frame; its link leads out of it."""
        _signed_out(world)
        place = world.url.partition("?")[0]
        frame_of = f"http://127.0.0.1:{world.proxy.port}/home"
        html = f'<!doctype html><title>VISA</title><iframe src="{place}" width="800" height="600"></iframe>'
        world.page.route(frame_of, lambda route: route.fulfill(body=html, content_type="text/html"))
        world.page.goto(frame_of)
        frame = world.page.frame_locator("iframe")
        expect(frame.get_by_role("heading", name="You are not signed in")).to_be_visible()
        link = frame.get_by_role("link", name="Open VISA")
        assert ("/", "_top") == (link.get_attribute("href"), link.get_attribute("target"))
        world.sign_in()
        world.waits()
        expect(frame.get_by_role("heading", name="Lab", exact=True)).to_be_visible()
        expect(world.page).to_have_title("VISA")


class TestFinal:
    """Pages that say what has happened, and what to do."""

    def test_one_that_can_be_tried_again(self, world: World) -> None:
        """In the frame of VISA, where there is no other way to reload: it asks for the same address."""

        def close(connection: Connection) -> None:
            connection.request()

        world.instance.play(close)
        frame_of = f"http://127.0.0.1:{world.proxy.port}/home"
        html = (
            f'<!doctype html><title>VISA</title><iframe src="{world.url}" width="800" height="600"></iframe>'
        )
        world.page.route(frame_of, lambda route: route.fulfill(body=html, content_type="text/html"))
        world.page.goto(frame_of)
        frame = world.page.frame_locator("iframe")
        expect(frame.get_by_role("heading", name="JupyterLab did not answer")).to_be_visible()
        world.instance.answer(LAB)
        frame.get_by_role("link", name="Try again").click()
        expect(frame.get_by_role("heading", name="Lab", exact=True)).to_be_visible()
        expect(world.page).to_have_title("VISA")

    def test_not_yours(self, world: World) -> None:
        """Neither does it say that the instance exists."""
        _of_somebody_else(world)
        world.page.goto(world.url)
        world.sees("There is no such instance, or it is not yours")
        expect(world.page.get_by_role("link", name="Open VISA")).to_have_attribute("href", "/")

    def test_too_large(self, world: World) -> None:
        """A form sends more than the service accepts."""
        world.page.goto(world.url)
        world.page.evaluate(
            """() => {
              document.body.innerHTML = '<form method="post"><textarea name="a"></textarea></form>';
              document.querySelector('textarea').value = 'x'.repeat(5000);
              document.querySelector('form').submit();
            }"""
        )
        world.sees("That is too large")

    def test_too_many_cookies(self, world: World) -> None:
        """More than is read of a head."""
        url = world.url.partition("?")[0]
        world.context.add_cookies(
            [{"name": f"c{number}", "value": "x" * 3900, "url": url} for number in range(12)]
        )
        world.page.goto(world.url)
        world.sees("Your browser sends too much")

    def test_nothing_there(self, world: World) -> None:
        """An address of no service."""
        world.page.goto(f"http://127.0.0.1:{world.proxy.port}/nowhere<script>alert(1)</script>")
        world.sees("There is nothing at this address")
        assert "alert" not in world.page.content()


def test_in_french(world: World, browser: Browser) -> None:
    """By the browser's own language, also what comes later."""
    context = browser.new_context(locale="fr-FR")
    _building(world)
    page = context.new_page()
    page.clock.install()
    page.goto(world.url)
    expect(page.get_by_role("heading", name="Vous n'êtes pas connecté")).to_be_visible()
    world.sign_in(context)
    page.clock.run_for(POLL_MS)
    expect(page.get_by_role("heading", name="Votre instance est en cours de création")).to_be_visible()
    assert "fr" == page.locator("html").get_attribute("lang")
    context.close()


def test_the_waiting_page_turns_into_a_real_jupyterlab(
    demo: RunningDemo, api: VisaApiServer, browser: Browser, tmp_path: Path
) -> None:
    """The demo's: its launcher is there, without a click, when VISA says where the instance is."""
    found = re.search(r"http://127\.0\.0\.2:(\d+)/jupyter/1", (demo.logs / "jupyter-1.log").read_text())
    assert found is not None
    route = {
        "match": r"^/jupyter/(\d+).*",
        "type": "jupyter",
        "name": "Jupyter",
        "remotePort": int(found[1]),
        "ws": True,
    }
    asked = len(api.asked("account"))
    api.user("token-of-ada", "ada")
    api.instance(1, owner="ada", ip=None, state="BUILDING", activeProtocols=[])
    with running_proxy(tmp_path, api_url=api.url, routes=[route]) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/jupyter/1/lab"
        context = browser.new_context(locale="en-GB")
        context.add_cookies([{"name": "access_token", "value": "token-of-ada", "url": url}])
        page = context.new_page()
        page.goto(url)
        expect(page.get_by_role("heading", name="Your instance is being built")).to_be_visible()
        assert 1 == api.seen(1)  # a person has asked for it; the page that waits does not count
        eventually("the page has asked", lambda: len(api.asked("account")) > asked)
        assert 1 == api.seen(1)
        api.instance(1, owner="ada", ip="127.0.0.2")
        expect(page.locator(DESK)).to_be_visible(timeout=120_000)
        context.close()


def test_from_signed_out_to_jupyterlab(demo: RunningDemo, browser: Browser) -> None:
    """As a person does it in the demo: the link to VISA, in another tab; the first one goes on by itself."""
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    page.goto(demo.instances[1]["url"])
    expect(page.get_by_role("heading", name="You are not signed in")).to_be_visible()
    with context.expect_page() as opening:
        page.get_by_role("link", name="Open VISA").click(modifiers=["Control"])
    visa = opening.value
    visa.get_by_role("link", name="Open as Ada").first.click()
    expect(visa.locator(DESK)).to_be_visible(timeout=120_000)
    expect(page.locator(DESK)).to_be_visible(timeout=120_000)
    context.close()


SIZES: Final = {"phone": {"width": 390, "height": 844}, "desktop": {"width": 1280, "height": 720}}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_how_it_looks(world: World, browser: Browser, size: str, scheme: Any) -> None:
    """All of a page fits into a phone's width; in the colours that the person has chosen."""
    folder = os.environ.get("PICTURES")
    situations = {**SITUATIONS, "not-yours": (_of_somebody_else, "")}
    if not folder:  # those with the longest words and the most elements will do
        situations = {name: situations[name] for name in ("silent", "stopped", "not-yours")}
    grounds = set()
    for locale in ("en-GB", "fr-FR") if folder or size == "phone" else ("en-GB",):
        context = browser.new_context(viewport=SIZES[size], color_scheme=scheme, locale=locale)  # type: ignore[arg-type]  # a TypedDict
        for name, (begin, _) in situations.items():
            world.api.up()
            world.own()
            world.sign_in(context)
            page = context.new_page()
            if name == "signed-out":
                context.clear_cookies()
            else:
                begin(world)
            page.goto(world.url)
            expect(page.get_by_role("heading")).to_be_visible()
            width, needed, ground = page.evaluate(
                """[innerWidth, document.documentElement.scrollWidth,
                    getComputedStyle(document.body).backgroundColor]"""
            )
            assert needed <= width
            grounds.add(ground)
            if folder:
                page.screenshot(path=f"{folder}/{name}-{size}-{scheme}-{locale[:2]}.png")
            page.close()
        context.close()
    (ground,) = grounds
    assert (scheme == "dark") == (int(re.findall(r"\d+", ground)[0]) < 128)
