"""A stand-in for VISA Web: users sign in with a link, see their instances and what was recorded."""

import re
from html import escape
from typing import Final

from aiohttp import web

from visa_jupyter_proxy.demo.accounts import LIFETIME_S, User
from visa_jupyter_proxy.demo.visa import Instance, NotebookRow, Visa, iso

COOKIE: Final = "access_token"

_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>VISA (stand-in)</title>
<style>
  :root {{ color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }}
  body {{ max-width: 52rem; margin: 2rem auto; padding: 0 1rem }}
  table {{ border-collapse: collapse; width: 100%; margin-bottom: 2rem }}
  th, td {{ text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8884 }}
  code {{ font-size: .85rem }}
</style>
<h1>VISA <small>(stand-in)</small></h1>
<p>{whoami}</p>
<h2>Instances</h2>
<table>
<tr><th>Instance<th>Name<th>Owner<th>State<th><th>
{instances}
</table>
<h2>Notebook sessions</h2>
<table>
<tr><th>Instance<th>User<th>Kernel<th>Opened<th>Closed
{notebooks}
</table>
<p>As a program sees it: <a href="/sessions">notebook sessions</a>, <a href="/calls">calls to the API</a></p>
"""


class Pages:
    """The pages of `visa`; `proxy_url` (without a slash at its end) is where JupyterLab is reached.

    The cookie knows no port, so these pages and the proxy must have the same host.
    """

    def __init__(self, visa: Visa, users: tuple[User, ...], proxy_url: str) -> None:
        self._visa = visa
        self._users = {user.login: user for user in users}
        self._proxy_url = proxy_url

    def application(self) -> web.Application:
        """Return the pages, with the API under `/api`."""
        application = web.Application()
        application.router.add_get("/", self._start)
        application.router.add_get("/sign-in", self._sign_in)
        application.router.add_get("/sign-out", self._sign_out)
        application.router.add_post("/give", self._give)
        application.router.add_get("/sessions", self._sessions)
        application.router.add_get("/calls", self._calls)
        application.add_subapp("/api", self._visa.application())
        return application

    async def _start(self, request: web.Request) -> web.Response:
        page = _PAGE.format(
            whoami=_whoami(self._visa.tokens.verify(request.cookies.get(COOKIE, ""))),
            instances="\n".join(self._instance_row(one) for one in self._visa.instances.values()),
            notebooks="\n".join(map(_notebook_row, reversed(self._visa.notebooks)))
            or "<tr><td colspan=5>None yet",
        )
        return web.Response(text=page, content_type="text/html")

    async def _sign_in(self, request: web.Request) -> web.Response:
        user = self._user(request)
        lifetime = request.query.get("lifetime", str(LIFETIME_S))
        if not re.fullmatch(r"[0-9]{1,6}", lifetime):
            raise web.HTTPBadRequest(text="lifetime must be a number of seconds\n")
        token = self._visa.tokens.sign(user, lifetime_s=int(lifetime))
        response = _go_to(self._target(request.query.get("next")))
        # As VISA Web does it, though from JavaScript (hence not HttpOnly); not Secure: this is plain HTTP.
        response.set_cookie(COOKIE, token, path="/", samesite="Strict")
        return response

    async def _give(self, request: web.Request) -> web.Response:
        user, number = self._user(request), request.query.get("instance", "")
        if not re.fullmatch(r"[0-9]{1,18}", number) or not self._visa.give(int(number), user):
            raise web.HTTPNotFound(text="There is no such instance\n")
        return _go_to("/")

    async def _sign_out(self, _request: web.Request) -> web.Response:
        response = _go_to("/")
        response.del_cookie(COOKIE, path="/", samesite="Strict")
        return response

    async def _sessions(self, _request: web.Request) -> web.Response:
        return web.json_response([row.as_json() for row in self._visa.notebooks])

    async def _calls(self, _request: web.Request) -> web.Response:
        return web.json_response([call.as_json() for call in self._visa.calls])

    def _user(self, request: web.Request) -> User:
        user = self._users.get(request.query.get("user", ""))
        if user is None:
            raise web.HTTPNotFound(text=f"There is no such user; there are: {', '.join(self._users)}\n")
        return user

    def _instance_row(self, instance: Instance) -> str:
        owner, name = instance.owner, escape(instance.name)
        link = f"/sign-in?user={owner.login}&amp;next=/jupyter/{instance.id}/lab"
        others = (user for user in self._users.values() if user != owner)
        gifts = (
            f'<form method="post" action="/give?instance={instance.id}&amp;user={user.login}">'
            f"<button>Give to {escape(user.given_name)}</button></form>"
            for user in others
        )
        return (
            f"<tr><td>{instance.id}<td>{name}<td>{escape(owner.name)}<td>{instance.state}"
            f'<td><a href="{link}">Open as {escape(owner.given_name)}</a><td>{"".join(gifts)}'
        )

    def _target(self, path: str | None) -> str:
        if path is None:
            return "/"
        if not path.startswith("/") or not path.isprintable():
            raise web.HTTPBadRequest(text="next must be a path on the proxy, such as /jupyter/1/lab\n")
        return self._proxy_url + path


def _go_to(url: str) -> web.Response:
    # No redirect: after one from another site's page the browser holds back a SameSite=Strict cookie
    # (RFC 6265bis 5.2). A page that then moves on by itself is this site's own.
    body = f'<!doctype html><title>VISA</title><p><a href="{escape(url)}">Continue</a>'
    return web.Response(text=body, content_type="text/html", headers={"Refresh": f"0; url={url}"})


def _whoami(user: User | None) -> str:
    if user is None:
        return "You are not signed in. Open an instance as one of its users:"
    return f'You are signed in as <b>{escape(user.name)}</b>. <a href="/sign-out">Sign out</a>'


def _notebook_row(row: NotebookRow) -> str:
    opened, closed = iso(row.opened_at), iso(row.closed_at)
    return (
        f"<tr><td>{row.key.instance_id}<td>{escape(row.user.name)}<td><code>{escape(row.key.kernel_id)}</code>"
        f"<td>{opened}<td>{closed or 'still open'}"
    )
