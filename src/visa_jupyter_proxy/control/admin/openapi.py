"""The OpenAPI description of `/api/v1` (OpenAPI 3.1)."""

from typing import Any, Final

from visa_jupyter_proxy import __version__
from visa_jupyter_proxy.identifiers import LARGEST_INSTANCE

_TIME: Final = {"type": "number", "description": "Unix time in seconds"}
_TIME_OR_NULL: Final = {"type": ["number", "null"], "description": "Unix time in seconds"}
_TEXT: Final = {"type": "string"}
_COUNT: Final = {"type": "integer"}
_INSTANCE: Final = {"type": "integer", "minimum": 0, "maximum": LARGEST_INSTANCE}
_TEXTS: Final = {"type": "array", "items": _TEXT}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": [*properties], "properties": properties}


_SCHEMAS: Final[dict[str, Any]] = {
    "Session": _object(
        {
            "id": _TEXT,
            "user": {
                "type": "string",
                "description": "`sub` of the token, shortened if it is long; or a digest of one without",
            },
            "instance": _COUNT,
            "kernel": _TEXT,
            "session": _TEXT,
            "since": _TIME,
            "lastInteraction": {**_TIME_OR_NULL, "description": "when the browser last sent a message"},
            "messagesUp": {"type": "integer", "description": "from the browser"},
            "messagesDown": _COUNT,
            "bytesUp": _COUNT,
            "bytesDown": _COUNT,
            "connections": {
                "type": "integer",
                "description": "open now (`sessions --json` has all ever); 0 while its browser may come back",
            },
            "nodes": _TEXTS,
        }
    ),
    "Instance": _object(
        {
            "id": _COUNT,
            "users": _TEXTS,
            "sessions": _COUNT,
            "connections": _COUNT,
            "lastInteraction": _TIME_OR_NULL,
            "bytesUp": _COUNT,
            "bytesDown": _COUNT,
        }
    ),
    "Error": _object({"error": _TEXT, "message": _TEXT, "requestId": _TEXT}),
}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _list(name: str, of: str) -> dict[str, Any]:
    return _object({name: {"type": "array", "items": _reference(of)}})


def _failures(**described: str) -> dict[str, Any]:
    common = {
        "400": "a parameter that there is not, or whose value cannot be read",
        "401": "no token, or another one than ADMIN_TOKEN",
        "403": "asked by a page of another site",
        "421": "without ADMIN_TOKEN: not asked under a name of this machine",
    }
    told = common | {status.removeprefix("_"): text for status, text in described.items()}
    return {status: _answer(text, _reference("Error")) for status, text in told.items()}


def _operation(summary: str, answers: dict[str, Any], *parameters: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "parameters": [*parameters], "responses": answers}


def _in(where: str, name: str, description: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "in": where,
        "name": name,
        "required": where == "path",
        "description": description,
        "schema": schema or {"type": "string", "minLength": 1},
    }


_UNAVAILABLE: Final = "the journal cannot be used"
_ORDERED: Final = _answer("ordered; other nodes obey within a heartbeat", _object({"nodes": _TEXTS}))
_USER_ORDERED: Final = _answer(
    "ordered, also for a user whom this node does not know; others obey within a heartbeat",
    _object(
        {
            "nodes": _TEXTS,
            "instances": {**_COUNT, "description": "to which the user had WebSockets on this node"},
            "sessionsElsewhere": {**_COUNT, "description": "with a connection on other nodes; no terminals"},
        }
    ),
)


def document() -> dict[str, Any]:
    """Make the description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "visa-jupyter-proxy",
            "version": __version__,
            "description": "What the proxy does at the moment, and ending it. On the admin listener alone.",
        },
        "servers": [{"url": "/api/v1"}],
        "security": [{"token": []}, {}],
        "paths": {
            "/sessions": {
                "get": _operation(
                    "Open notebook sessions of all nodes, the newest first",
                    {
                        "200": _answer("sessions", _list("sessions", "Session")),
                        **_failures(_503=_UNAVAILABLE),
                    },
                    _in("query", "user", "only those of this user: `sub` of the token, or as it is shown"),
                    _in("query", "instance", "only those on this instance", _INSTANCE),
                )
            },
            "/sessions/{id}": {
                "delete": _operation(
                    "End the connections of a session; a browser that VISA lets in may come back",
                    {"202": _ORDERED, **_failures(_404="no such open session", _503=_UNAVAILABLE)},
                    _in("path", "id", "of the session"),
                )
            },
            "/users/{sub}/tunnels": {
                "delete": _operation(
                    "End all WebSockets of a user, those of terminals and printing included",
                    {"202": _USER_ORDERED, **_failures(_503="ended here, other nodes could not be told")},
                    _in("path", "sub", "`user` of a session, or `sub` of the token"),
                )
            },
            "/instances": {
                "get": _operation(
                    "Instances with open sessions",
                    {
                        "200": _answer("instances", _list("instances", "Instance")),
                        **_failures(_503=_UNAVAILABLE),
                    },
                )
            },
            "/events": {
                "get": _operation(
                    "Server-sent events for the board: history, state, sessions, point",
                    {
                        "200": {"description": "events", "content": {"text/event-stream": {}}},
                        **_failures(_503="too many look at the same time"),
                    },
                )
            },
            "/routes": {
                "get": _operation(
                    "The services of proxy.conf.json; fixed values of setHeaders are masked",
                    {"200": _answer("routes", {"type": "object"}), **_failures()},
                )
            },
            "/config": {
                "get": _operation(
                    "The settings in force; secrets are masked",
                    {"200": _answer("settings", {"type": "object"}), **_failures()},
                )
            },
            "/openapi.json": {
                "get": _operation("This", {"200": _answer("OpenAPI 3.1", {"type": "object"}), **_failures()})
            },
        },
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
