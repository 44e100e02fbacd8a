"""Findings and explanations in words, for people at a terminal."""

from collections.abc import Iterator, Sequence
from typing import Final

import typer

from visa_jupyter_proxy.diagnosis.explaining import Explanation, Field
from visa_jupyter_proxy.diagnosis.findings import Finding
from visa_jupyter_proxy.routes import Route

_COLOURS: Final = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "wrong": typer.colors.RED}
_SIGNS: Final = {"kept": " ", "changed": "~", "added": "+", "dropped": "-"}
_ORDER: Final = ("changed", "added", "dropped", "kept")


def finding_line(finding: Finding) -> str:
    """Say one finding; the colours are left out where there is no terminal."""
    verdict = typer.style(f"{finding.verdict:8}", fg=_COLOURS[finding.verdict])
    return f"{verdict} {finding.about:10} {finding.text}"


def service_lines(routes: Sequence[Route]) -> Iterator[str]:
    """Say what the routes are, in the order in which they are looked at."""
    for route in routes:
        yield typer.style(route.name, bold=True)
        told = {
            "match": route.match,
            "type": route.type,
            "goes to": f"{route.remote_scheme}, port {route.remote_port}",
            "WebSockets": "forwarded" if route.ws else "not forwarded",
            **{f"{rule.pattern}": f"becomes {rule.replacement}" for rule in route.path_rewrite},
            **dict(_unusual(route)),
        }
        yield from (f"  {name:14} {value}" for name, value in told.items())


def _unusual(route: Route) -> Iterator[tuple[str, str]]:
    for name, value in route.set_headers:
        yield "sets", f"{name}: {value}"
    if route.remote_ca is not None:
        yield "trusts", route.remote_ca
    if not route.remote_verify:
        yield "certificate", "any"
    if route.max_body_bytes is not None:
        yield "bodies", f"{route.max_body_bytes} bytes at most"
    if not route.strip_credentials:
        yield "VISA token", "is sent to the instance"


def explanation_lines(told: Explanation) -> Iterator[str]:
    """Say what becomes of the request: where it goes, or why it does not."""
    kind = "WebSocket" if told.websocket else "request"
    yield f"{told.request}: a {kind} for {told.host}, from {told.peer}"
    yield from _heading("services, as they are looked at")
    width = max(len(service.name) for service in told.services)
    for service in told.services:
        yield f"  {'*' if service.chosen else ' '} {service.name:{width}}  {service.why}  ({service.match})"
    if told.kernel is not None:
        yield f"  a notebook session: kernel {told.kernel}, session {told.session or '(none)'}"
    if told.refused is not None:
        yield from _heading("refused", typer.colors.RED)
        yield f"  {told.refused.status} {told.refused.error}: {told.refused.reason}"
        yield f"  {told.refused.advice}"
        return
    yield from _heading("VISA")
    yield f"  allows it, to {told.user}" if told.asked_visa else "  was not asked: --token does it"
    yield from _heading("sent to the instance")
    yield f"  {told.connects_to}"
    yield f"  {told.sent}"
    for change in _ORDER:
        yield from (_field_line(field) for field in told.fields if field.change == change)
    if told.answer:
        yield from _heading("of an answer such as this one, the browser gets")
    for field in told.answer:
        got = (
            "nothing"
            if field.browser is None
            else "the same"
            if field.browser == field.instance
            else field.browser
        )
        yield f"  {field.name}: {field.instance}  ->  {got}"


def _field_line(field: Field) -> str:
    why = f"   ({field.why})" if field.why else ""
    return f"  {_SIGNS[field.change]} {field.name}: {field.value}{why}"


def _heading(text: str, colour: str | None = None) -> Iterator[str]:
    yield ""
    yield typer.style(text, bold=True, fg=colour)
