"""The board in a real browser: what an operator sees, finds and ends, with a mouse and without one."""

import base64
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from process.conftest import KERNEL, Place, path, place, request
from process.test_admin import FAREWELL
from process.test_ending import ANSWER, answer
from process.test_upgrade import successor
from support.admin import AdminClient
from support.client import RawClient, upgrade
from support.proxy import RunningProxy

__all__ = ["place"]  # a fixture

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

HOUR_END: Final = 1_700_000_000
"""A moment, in Unix time."""

ADMIN_TOKEN: Final = "0123456789abcdef"
HELLO: Final = b"\x81\x85abcd" + bytes(5)
"""A data message of a browser: something that somebody did."""


def _token(user: str) -> str:
    return f"e30.{base64.urlsafe_b64encode(json.dumps({'sub': user}).encode()).decode().rstrip('=')}.c2ln"


def _channel(place: Place, proxy: RunningProxy, user: str) -> RawClient:
    place.api.user(_token(user), "anna")
    client = place.client(proxy)
    target = path(f"/api/kernels/{KERNEL}/channels?session_id={quote(user)}")
    assert 101 == client.ask(upgrade(target, token=_token(user))).status
    return client


@pytest.fixture
def wrong(page: Page) -> Iterator[list[str]]:
    """Collect what the browser finds wrong with the page, or fetches from elsewhere: nothing."""
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("console", lambda said: found.append(said.text) if "olicy" in said.text else None)
    page.on("request", lambda asked: None if "127.0.0.1" in asked.url else found.append(asked.url))
    yield found
    assert [] == [one for one in found if not one.startswith("data:")]


def _open(page: Page, proxy: RunningProxy) -> None:
    page.goto(f"http://127.0.0.1:{proxy.admin_port}/")
    expect(page.get_by_role("heading", name="Open sessions, on all nodes")).to_be_visible()


def _fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


def _lines(page: Page, selector: str) -> int:
    """Count the lines of the longest text that an element has."""
    return int(
        page.evaluate(
            """selector => Math.max(...[...document.querySelectorAll(selector)].map(node => {
                 const range = document.createRange();
                 range.selectNodeContents(node);
                 return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size;
               }))""",
            selector,
        )
    )


def _ragged_cards(page: Page) -> float:
    """Measure the empty room, in pixels, behind the last card of the row."""
    return float(
        page.evaluate(
            """[...document.querySelectorAll('.cards')].map(row =>
                 row.getBoundingClientRect().right - row.lastElementChild.getBoundingClientRect().right)[0]"""
        )
    )


@pytest.mark.parametrize("size", [(1280, 900), (800, 1000), (390, 844)], ids=["desktop", "tablet", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_shown(
    place: Place, page: Page, wrong: list[str], size: tuple[int, int], scheme: str
) -> None:
    """Health, charts and sessions, live; nothing is wider than the screen, and nothing comes from outside."""
    place.instance.play(answer)
    proxy = place.start(WORKERS="2")
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    _open(page, proxy)
    expect(page.get_by_text("ready", exact=True)).to_be_visible()
    expect(page.get_by_text("Nobody has a notebook open.")).to_be_visible()
    client = _channel(place, proxy, "ada <b>lovelace</b>")
    row = page.get_by_role("row").filter(has_text="ada <b>lovelace</b>")
    expect(row).to_contain_text("7")
    expect(row).to_contain_text("0 / 0")
    expect(page.get_by_text("1 user watched")).to_be_visible()
    client.send(HELLO)
    assert ANSWER == client.exactly(len(ANSWER))
    expect(row).to_contain_text("1 / 1")
    expect(row).to_contain_text("11 B / 4 B")
    assert 200 == place.client(proxy).ask(request()).status
    chart = page.get_by_role("img", name="Requests per second over the last hour")
    expect(chart).to_have_accessible_name(re.compile(r"at most [\d.]+$"))
    expect(page.get_by_role("img")).to_have_count(4)
    assert _fits(page)
    assert (1, 1) == (_lines(page, "td button"), _lines(page, "td.number"))
    assert _ragged_cards(page) < 1
    assert [] == wrong


def test_an_hour_and_a_moment_of_it(place: Place, page: Page, wrong: list[str]) -> None:
    """No scale stands in a line; every chart tells its value at the moment of the mouse, or of the slider."""
    proxy = place.start()
    page.clock.install(time=HOUR_END)
    # 5 requests a second in the first half of the hour, then 20; nothing from minute 10 to minute 20.
    points = [
        [HOUR_END - 3600 + second, 5 if second < 1800 else 20, 0, 0.004, 0.25, second // 60]
        for second in range(10, 3601, 10)
        if not 600 < second <= 1200
    ]
    history = json.dumps({"step": 10, "points": points})
    page.route("**/api/v1/events", lambda route: route.fulfill(body=f"event: history\ndata: {history}\n\n"))
    _open(page, proxy)
    requests, websockets = (page.locator(f"figure.{name}") for name in ("requests", "websockets"))
    latency = page.locator("figure.latency")
    expect(requests.locator(".now")).to_have_text("20")
    expect(websockets.get_by_role("img")).to_have_accessible_name(re.compile(r"now 60, at most 60$"))
    expect(latency.locator(".now")).to_have_text("median4 ms95 %250 ms")
    for scale_ends, line_begins in page.evaluate(
        """[...document.querySelectorAll('.charts svg')].map(svg => [
             Math.max(...[...svg.querySelectorAll('text')].slice(0, 3)
               .map(text => text.getBoundingClientRect().right)),
             svg.querySelector('.first').getBoundingClientRect().left])"""
    ):
        assert scale_ends < line_begins
    assert 2 == requests.locator("path.first").count()
    slider = page.get_by_role("slider", name="Moment of the charts' values")
    slider.press("Home")
    slider.press("ArrowRight")
    expect(requests.locator(".now")).to_have_text("5")
    expect(websockets.locator(".now")).to_have_text("0")
    assert "Requests 5, Latency 4 ms / 250 ms, Errors 0, WebSockets 0" in str(
        slider.get_attribute("aria-valuetext")
    )
    slider.press("End")
    expect(requests.locator(".now")).to_have_text("20")
    box = requests.get_by_role("img").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 52 + (box["width"] - 56) / 4, box["y"] + 50)
    expect(requests.locator(".now")).to_have_text("\N{EN DASH}")
    page.mouse.move(box["x"] + 52 + (box["width"] - 56) * 2 / 5, box["y"] + 50)
    expect(requests.locator(".now")).to_have_text("5")
    expect(websockets.locator(".now")).to_have_text(re.compile("^2[34]$"))
    page.mouse.move(0, 0)
    expect(websockets.locator(".now")).to_have_text("60")
    assert [] == wrong


def test_a_session_is_found_and_ended(place: Place, page: Page, wrong: list[str]) -> None:
    """Searched for, ended after a question, and said so; whoever says no ends nothing. The other goes on."""
    place.instance.play(answer)
    proxy = place.start()
    ada, emmy = _channel(place, proxy, "ada"), _channel(place, proxy, "emmy")
    _open(page, proxy)
    expect(page.get_by_role("row")).to_have_count(3)
    page.get_by_label("Search").fill("EMM")
    expect(page.get_by_role("row")).to_have_count(2)
    expect(page.get_by_text("1 of 2 sessions, 1 user")).to_be_visible()
    page.get_by_label("Search").fill("nobody")
    expect(page.get_by_text("Nothing found for “nobody”.")).to_be_visible()
    page.get_by_label("Search").fill("ada")
    button = page.get_by_role("button", name="End session of ada on instance 7")
    button.click()
    dialog = page.get_by_role("dialog", name="End this session?")
    expect(dialog).to_contain_text("ada on instance 7")
    dialog.get_by_role("button", name="Keep it").click()
    expect(dialog).to_be_hidden()
    ada.send(HELLO)
    assert ANSWER == ada.exactly(len(ANSWER))
    button.click()
    dialog.get_by_role("button", name="End session").click()
    assert FAREWELL == ada.exactly(len(FAREWELL))
    expect(page.get_by_role("status")).to_have_text("The session of ada on instance 7 is being ended.")
    page.get_by_label("Search").fill("")
    expect(page.get_by_role("row")).to_have_count(2)
    emmy.send(HELLO)
    assert ANSWER == emmy.exactly(len(ANSWER))
    assert 1 == len(proxy.records("an administrator ends connections"))
    assert [] == wrong


def test_with_the_keyboard_alone(place: Place, page: Page, wrong: list[str]) -> None:
    """Skip link, search, button and dialog, in this order; Escape ends nothing, and the focus comes back."""
    place.instance.play(answer)
    proxy = place.start()
    client = _channel(place, proxy, "ada")
    _open(page, proxy)
    expect(page.get_by_role("row")).to_have_count(2)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the sessions")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type("ada")
    page.keyboard.press("Tab")
    button = page.get_by_role("button", name="End session of ada on instance 7")
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Keep it")).to_be_focused()
    page.keyboard.press("Escape")
    expect(button).to_be_focused()
    client.send(HELLO)
    assert ANSWER == client.exactly(len(ANSWER))
    expect(page.get_by_role("row").filter(has_text="1 / 1")).to_be_visible()
    expect(button).to_be_focused()  # although the row has changed meanwhile
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert FAREWELL == client.exactly(len(FAREWELL))
    assert [] == wrong


def test_with_a_token(place: Place, page: Page, wrong: list[str]) -> None:
    """The page asks for it, again when it is wrong, and not after a reload."""
    proxy = place.start(ADMIN_TOKEN=ADMIN_TOKEN)
    _open(page, proxy)
    dialog = page.get_by_role("dialog", name="Admin token")
    expect(page.get_by_text("not signed in", exact=True)).to_be_visible()
    dialog.get_by_label("Token").fill("wrong")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("That is not ADMIN_TOKEN, and it is forgotten. The right one is kept")
    expect(page.get_by_text("not signed in", exact=True)).to_be_visible()
    expect(page.get_by_text("no connection", exact=True)).to_be_hidden()
    assert page.evaluate("sessionStorage.getItem('token')") is None
    dialog.get_by_label("Token").fill(ADMIN_TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_text("ready", exact=True)).to_be_visible()
    page.reload()
    expect(page.get_by_text("ready", exact=True)).to_be_visible()
    expect(dialog).to_be_hidden()
    assert ADMIN_TOKEN not in proxy.log.read_text()
    assert [] == wrong


def test_what_goes_wrong_is_shown(place: Place, page: Page) -> None:
    """A VISA API that is down, a proxy that is gone; and it goes on by itself when that is back."""
    proxy = place.start(ADMIN_PORT=str(_free_port()))
    _open(page, proxy)
    assert 200 == place.client(proxy).ask(request()).status
    expect(page.get_by_text("answers", exact=True)).to_be_visible()
    place.api.down()
    assert 503 == place.client(proxy).ask(upgrade(path("/x"), token="other")).status
    expect(page.get_by_text("does not answer", exact=True)).to_be_visible()
    expect(page.get_by_text("degraded", exact=True)).to_be_visible()
    place.api.up()
    port = proxy.admin_port
    assert 0 == proxy.stop()
    expect(page.get_by_text("no connection", exact=True)).to_be_visible()
    expect(page.get_by_text("What is shown here is as of")).to_be_visible()
    expect(page).to_have_title(re.compile("^no connection: "))
    again = proxy.start_again()
    try:
        assert port == again.admin_port
        expect(page.get_by_text("ready", exact=True)).to_be_visible()
        expect(page.get_by_text("What is shown here is as of")).to_be_hidden()
        expect(page).to_have_title(re.compile("^ready: "))
    finally:
        again.kill()


def test_a_connection_that_has_gone_silent(place: Place, page: Page, wrong: list[str]) -> None:
    """Nobody has closed it, as when a network is cut: what is shown is not taken for what is."""
    proxy = place.start()
    _open(page, proxy)
    expect(page.get_by_text("ready", exact=True)).to_be_visible()
    os.kill(proxy.pid, signal.SIGSTOP)
    try:
        expect(page.get_by_text("no connection", exact=True)).to_be_visible()
        expect(page.get_by_text("What is shown here is as of")).to_be_visible()
    finally:
        os.kill(proxy.pid, signal.SIGCONT)
    expect(page.get_by_text("no connection", exact=True)).to_be_hidden()
    expect(page.get_by_text("What is shown here is as of")).to_be_hidden()
    assert [] == wrong


def test_it_goes_on_with_the_process_that_takes_over(place: Place, page: Page, wrong: list[str]) -> None:
    """The same address, and the sessions that are open with either."""
    place.instance.play(answer)
    proxy = place.start(ADMIN_PORT=str(_free_port()))
    _channel(place, proxy, "ada")
    _open(page, proxy)
    expect(page.get_by_role("row")).to_have_count(2)
    with successor(proxy) as after:
        assert 0 == proxy.exit_status()
        assert proxy.admin_port == after.admin_port
        _channel(place, after, "emmy")
        expect(page.get_by_role("row").filter(has_text="emmy")).to_be_visible()
        expect(page.get_by_text("ready", exact=True)).to_be_visible()
    assert [] == wrong


def test_what_is_not_done_is_not_shown_as_well_done(place: Place, page: Page) -> None:
    """Access that nobody watches; and a stream that is refused is no connection that has gone."""
    proxy = place.start(RECHECK_S="0")
    _open(page, proxy)
    expect(page.get_by_text("not watched", exact=True)).to_be_visible()
    page.route("**/api/v1/events", lambda route: route.fulfill(status=503))
    page.reload()
    expect(page.get_by_text("answers 503", exact=True)).to_be_visible()


def test_the_page_is_closed_to_others(place: Place) -> None:
    """It may run nothing but its own script, load nothing, and stand in no frame."""
    answer = AdminClient(place.start().admin_port).get("/")
    policy = answer.fields["content-security-policy"]
    for part in ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"):
        assert part in policy
    assert "unsafe" not in policy
    assert b"://" not in answer.body.replace(b"http://www.w3.org/2000/svg", b"")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])
