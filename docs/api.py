"""The page of the admin API, from its OpenAPI document."""

from collections.abc import Iterator
from typing import Any

from visa_jupyter_proxy.control.admin.openapi import document

_HEAD = """\
# Admin API

On the [admin listener](../behaviour.md#administration), for programs: JSON, with `Authorization: Bearer`
and `ADMIN_TOKEN`, if that is set. The same, for tools, is `/api/v1/openapi.json` (OpenAPI 3.1).

"""


def api_page() -> str:
    """Make the page: every operation, and every kind of object."""
    described = document()
    root = described["servers"][0]["url"]
    parts = [
        "\n".join(_operation(method.upper(), root + path, operation))
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    ]
    parts += ["\n".join(_schema(name, schema)) for name, schema in described["components"]["schemas"].items()]
    return _HEAD + "\n\n".join(parts) + "\n"


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"## {method} `{path}`\n\n{operation['summary']}.\n"
    for one in operation.get("parameters", ()):
        yield f"- `{one['name']}` ({one['in']}): {one['description']}"
    yield "\n| status | answer | body |\n|---|---|---|"
    for status, answer in operation["responses"].items():
        content = answer.get("content", {})
        kinds = [_kind(one.get("schema", {})) or f"`{media}`" for media, one in content.items()]
        yield f"| {status} | {answer['description']} | {', '.join(kinds)} |"


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"## {name}\n\n| field | type | meaning |\n|---|---|---|"
    for field, kind in schema["properties"].items():
        yield f"| `{field}` | {_kind(kind)} | {kind.get('description', '')} |"


def _kind(schema: dict[str, Any]) -> str:
    """Say in a word or two what a value is."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "properties" in schema:
        return ", ".join(f"`{field}`: {_kind(kind)}" for field, kind in schema["properties"].items())
    if schema.get("type") == "array":
        return f"array of {_kind(schema['items'])}"
    kind = schema.get("type", "")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)
