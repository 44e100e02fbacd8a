"""Reading `proxy.conf.json`: every mistake found, each with its place and what to write instead."""

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from visa_jupyter_proxy.routes import javascript, values
from visa_jupyter_proxy.routes.route import ConfigurationError, Rewrite, Route
from visa_jupyter_proxy.routes.syntax import syntax_mistake

_TYPES: Final = ("jupyter", "service")
_SCHEMES: Final = ("http", "https")


class _Object(dict[str, Any]):
    """A JSON object that still knows which of its keys were written twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        keys = [key for key, _ in pairs]
        self.repeated = sorted({key for key in keys if keys.count(key) > 1})


def load(path: Path) -> tuple[Route, ...]:
    """Read the routes from `path`. Raises `ConfigurationError` with every mistake in it.

    A relative `remoteCa` is relative to the folder of `path`.
    """
    reading = _Reading(path)
    routes = reading.services(_document(path))
    if reading.mistakes:
        raise ConfigurationError(reading.mistakes)
    return routes


def _document(path: Path) -> object:
    text = _text(path)
    try:
        return json.loads(text, object_pairs_hook=_Object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ConfigurationError([syntax_mistake(path, text, error)]) from None
    except RecursionError:
        raise ConfigurationError([f"{path}: is nested too deeply: write an array of services"]) from None
    except ValueError as error:
        # Python refuses integers of more than 4300 digits, and `_no_constant` NaN and Infinity.
        raise ConfigurationError([f"{path}: has a number that is none: {error}"]) from None


def _no_constant(name: str) -> None:
    raise ValueError(f"JSON has no {name}")


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            [f"{path}: cannot be read: {error.strerror}: see CONFIG_FILE, which says where the routes are"]
        ) from None
    if raw.startswith(codecs.BOM_UTF8):
        raise ConfigurationError([f"{path}:1:1: starts with a byte order mark: save it as UTF-8 without one"])
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise ConfigurationError([f"{path}:{line}:{column}: is not UTF-8: save the file as UTF-8"]) from None


class _Reading:
    """One pass over the document; what is wrong is collected in `mistakes`."""

    def __init__(self, path: Path) -> None:
        self.mistakes: list[str] = []
        self._path = path
        self._keys: dict[str, tuple[str, Callable[[str, Any], object]]] = {
            "match": ("match", self._match),
            "type": ("type", values.one_of(_TYPES)),
            "name": ("name", values.name),
            "remotePort": ("remote_port", values.port),
            "ws": ("ws", values.flag),
            "pathRewrite": ("path_rewrite", self._rewrites),
            "remoteScheme": ("remote_scheme", values.one_of(_SCHEMES)),
            "remoteCa": ("remote_ca", self._ca),
            "remoteVerify": ("remote_verify", values.flag),
            "setHeaders": ("set_headers", self._headers),
            "maxBodyBytes": ("max_body_bytes", values.size),
            "stripCredentials": ("strip_credentials", values.flag),
        }

    def services(self, document: object) -> tuple[Route, ...]:
        """Return the routes; those with a mistake are left out."""
        if not isinstance(document, list):
            self._wrong("$", f"is {values.kind(document)}: write an array of services, [{{...}}, {{...}}]")
            return ()
        if not document:
            self._wrong("$", "is empty: write at least one service, otherwise nothing can be reached")
        routes = [self._service(f"$[{index}]", given) for index, given in enumerate(document)]
        return tuple(route for route in routes if route is not None)

    def _wrong(self, where: str, what: str) -> None:
        self.mistakes.append(f"{self._path}: {where}: {what}")

    def _service(self, where: str, given: object) -> Route | None:
        if not isinstance(given, _Object):
            self._wrong(where, f"is {values.kind(given)}: write a service, {{...}}")
            return None
        before = len(self.mistakes)
        self._repeated(where, given)
        for key in [key for key in given if key not in self._keys]:
            self._wrong(f"{where}{values.step(key)}", f"is no known key: {values.nearest(key, self._keys)}")
        written = {key.lower() for key in given}
        for key in ("match", "type", "name", "remotePort"):
            if key.lower() not in written:  # in other letters, it is a mistake already
                self._wrong(where, f"has no `{key}`: add it")
        fields = {key: self._value(where, key, given[key]) for key in self._keys if key in given}
        self._tls(where, given)
        if len(self.mistakes) > before:
            return None
        return Route(**{self._keys[key][0]: value for key, value in fields.items()})

    def _value(self, where: str, key: str, given: object) -> Any:
        where = f"{where}.{key}"
        try:
            return self._keys[key][1](where, given)
        except values.BadValueError as wrong:
            self._wrong(where, str(wrong))
            return None

    def _repeated(self, where: str, given: _Object) -> None:
        for key in given.repeated:
            self._wrong(f"{where}{values.step(key)}", "is written twice: keep one of them")

    def _tls(self, where: str, given: _Object) -> None:
        if given.get("remoteScheme") != "https":
            for key in sorted(given.keys() & {"remoteCa", "remoteVerify"}):
                self._wrong(f"{where}.{key}", 'needs `"remoteScheme": "https"`: add that, or remove this')
        elif given.get("remoteVerify") is False and "remoteCa" in given:
            self._wrong(f"{where}.remoteCa", "is not used with `remoteVerify: false`: remove one of the two")

    def _match(self, _where: str, given: object) -> str:
        pattern = values.pattern(given)
        if not javascript.groups(pattern):
            raise values.BadValueError(
                "has no group: write the instance id in parentheses: ^/jupyter/(\\\\d+)"
            )
        return pattern

    def _rewrites(self, where: str, given: object) -> tuple[Rewrite, ...]:
        pairs = self._pairs(where, given, values.pattern, values.replacement, r'{"^/x/\\d+/": "/"}')
        return tuple(Rewrite(*pair) for pair in pairs)

    def _ca(self, _where: str, given: object) -> str:
        path = (self._path.parent / values.string(given)).absolute()
        try:
            pem = path.read_bytes()
        except OSError as error:
            raise values.BadValueError(f"{path}: {error.strerror}: write the path of a PEM file") from None
        if b"-----BEGIN CERTIFICATE-----" not in pem:
            raise values.BadValueError(f"{path} holds no certificate: write the path of a PEM file")
        return str(path)

    def _headers(self, where: str, given: object) -> tuple[tuple[str, str], ...]:
        pairs = self._pairs(where, given, values.field_name, values.field_value, '{"x-id": "{id}"}')
        names = [name.lower() for name, _ in pairs]
        for name, _ in pairs:
            if names.count(name.lower()) > 1:
                self._wrong(f"{where}{values.step(name)}", "differs from another only in case: keep one")
        return pairs

    def _pairs(
        self,
        where: str,
        given: object,
        key_check: Callable[[str], object],
        value_check: Callable[[object], object],
        example: str,
    ) -> tuple[tuple[str, str], ...]:
        if not isinstance(given, _Object):
            raise values.BadValueError(f"is {values.kind(given)}: write an object: {example}")
        self._repeated(where, given)
        for key, value in given.items():
            try:
                key_check(key)
                value_check(value)
            except values.BadValueError as wrong:
                self._wrong(f"{where}{values.step(key)}", str(wrong))
        return tuple((key, str(value)) for key, value in given.items())
