"""`/health/live` and `/health/ready`: for whoever restarts this process, or sends requests to it."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from visa_jupyter_proxy.control.admin.seen import Seen


def live() -> Mapping[str, Any]:
    """Say that the process runs: who reads this has asked a loop that turns."""
    return {"status": "live"}


def ready(seen: Seen) -> Mapping[str, Any]:
    """Say whether requests should come here: some worker serves, the journal is written, nobody stops it.

    A VISA API that does not answer is shown (`degraded`), and is no reason to send requests elsewhere:
    it is the same for all nodes.
    """
    serving = seen.supervisor.serving
    checks = {
        "listening": serving > 0,
        "journal": seen.notebooks.journal_state == "written",
        "draining": seen.is_draining(),
    }
    is_ready = checks["listening"] and checks["journal"] and not checks["draining"]
    is_degraded = seen.api_health == "failing" or serving < seen.supervisor.places
    return {
        "status": "not ready" if not is_ready else "degraded" if is_degraded else "ready",
        "workers": {"serving": serving, "wanted": seen.supervisor.places},
        "journal": seen.notebooks.journal_state,
        "journalsReplaced": seen.notebooks.journals_replaced,
        "draining": checks["draining"],
        "visaApi": seen.api_health,
    }


def respond(answer: Mapping[str, Any]) -> web.Response:
    """Make the response: 503 when not ready."""
    return web.json_response(answer, status=503 if answer["status"] == "not ready" else 200)
