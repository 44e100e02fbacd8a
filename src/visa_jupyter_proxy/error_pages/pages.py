"""From templates and texts to finished pages.

All that is left to fill in is the status and the id of a request, and the name of a service as the operator
has written it: what is in a page is known before there is any request, and so nothing of one can get into it.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, override

import jinja2

from visa_jupyter_proxy.error_pages.policy import policy_of
from visa_jupyter_proxy.error_pages.texts import LANGUAGE_FILE, Texts, read_texts
from visa_jupyter_proxy.mailbox import REQUEST_ID_HERE, SERVICE_HERE, STATUS_HERE, Page
from visa_jupyter_proxy.routes import ConfigurationError

_WAITING: Final = "waiting.html"
_STOPPED: Final = "stopped.html"
_GONE: Final = "gone.html"
_SIGNED_OUT: Final = "signed-out.html"
_UNREACHABLE: Final = "unreachable.html"
_TOO_LARGE: Final = "too-large.html"
_TRY_AGAIN: Final = "try-again.html"
_PROBLEM: Final = "problem.html"

TEMPLATES: Final[Mapping[str, str]] = {
    "building": _WAITING,
    "starting": _WAITING,
    "rebooting": _WAITING,
    "migrating": _WAITING,
    "unanswered": _WAITING,
    "silent": _WAITING,
    "instance_not_ready": _WAITING,
    "stopping": _STOPPED,
    "instance_stopped": _STOPPED,
    "instance_failed": _STOPPED,
    "instance_not_found": _GONE,
    "instance_deleted": _GONE,
    "no_token": _SIGNED_OUT,
    "token_rejected": _SIGNED_OUT,
    "visa_unreachable": _UNREACHABLE,
    "visa_busy": _UNREACHABLE,
    "visa_invalid": _UNREACHABLE,
    "visa_timeout": _UNREACHABLE,
    "content_too_large": _TOO_LARGE,
    "target_too_long": _TOO_LARGE,
    "head_too_large": _TOO_LARGE,
    "bad_request": _PROBLEM,
    "origin_not_allowed": _PROBLEM,
    "no_route": _PROBLEM,
    "method_not_allowed": _PROBLEM,
    "request_timeout": _TRY_AGAIN,
    "expectation_failed": _PROBLEM,
    "misdirected": _PROBLEM,
    "websocket_version": _PROBLEM,
    "not_implemented": _PROBLEM,
    "version_not_supported": _PROBLEM,
    "instance_address": _PROBLEM,
    "instance_unreachable": _TRY_AGAIN,
    "instance_invalid": _TRY_AGAIN,
    "instance_timeout": _TRY_AGAIN,
    "internal": _TRY_AGAIN,
}
"""The template of each page. A page is named after an `error`, or after the state that explains it."""

_WAITS: Final = frozenset({_WAITING, _STOPPED, _SIGNED_OUT, _UNREACHABLE})
"""Pages that go on by themselves."""

_SHIPPED: Final = Path(__file__).parent / "templates"

_LARGEST: Final = 64 * 1024
"""Bytes of a page: every worker keeps all of them, in every language."""


def load(directory: Path | None, visa_url: str) -> dict[str, dict[str, Page]]:
    """Make all pages: language -> name -> page.

    `directory` (`PAGES_DIR`) may replace templates and texts, and add languages; `visa_url` is where people
    find VISA. Raises `ConfigurationError` with every mistake.
    """
    mistakes: list[str] = []
    languages = read_texts(directory, mistakes)
    rendering = _Rendering(directory, visa_url)
    pages = {
        language: {name: page for name in TEMPLATES if (page := rendering.page(name, texts)) is not None}
        for language, texts in languages.items()
    }
    mistakes += dict.fromkeys([*rendering.mistakes, *rendering.unused()])
    if mistakes:
        raise ConfigurationError(mistakes)
    return pages


class _Noted(jinja2.FileSystemLoader):
    """Keeps in mind which templates were wanted."""

    def __init__(self, directories: list[Path]) -> None:
        super().__init__(directories)
        self.wanted: set[str] = set()

    @override
    def get_source(
        self, environment: jinja2.Environment, template: str
    ) -> tuple[str, str, Callable[[], bool]]:
        self.wanted.add(template)
        return super().get_source(environment, template)


def _of_a_service(texts: Mapping[str, str]) -> dict[str, str]:
    return {key: text.replace("{service}", SERVICE_HERE) for key, text in texts.items()}


class _Rendering:
    """Renders pages, and collects what is wrong with them."""

    def __init__(self, directory: Path | None, visa_url: str) -> None:
        self.mistakes: list[str] = []
        self._directory = directory
        self._visa_url = visa_url
        self._loader = _Noted([_SHIPPED] if directory is None else [directory, _SHIPPED])
        # "shipped/layout.html" is the one that a file of the same name replaces, for that file to build upon.
        shipped = jinja2.PrefixLoader({"shipped": jinja2.FileSystemLoader(_SHIPPED)})
        self._environment = jinja2.Environment(
            loader=jinja2.ChoiceLoader([self._loader, shipped]),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def page(self, name: str, texts: Texts) -> Page | None:
        """Make one page; None when something is wrong with it."""
        template = TEMPLATES[name]
        try:
            content = self._environment.get_template(template).render(
                text=_of_a_service(texts[name]),
                words=_of_a_service(texts["words"]),
                name=name,
                waits=template in _WAITS,
                visa_url=self._visa_url,
                status=STATUS_HERE,
                request_id=REQUEST_ID_HERE,
            )
            body = content.encode()
            policy = policy_of(content)
        except jinja2.TemplateSyntaxError as error:
            self.mistakes.append(f"{error.filename or template}, line {error.lineno}: {error.message}")
        except (jinja2.TemplateError, UnicodeError, ValueError, TypeError, OSError) as error:
            self.mistakes.append(f"{self._path(template)} cannot be rendered: {error}")
        else:
            if len(body) <= _LARGEST:
                return Page(body=body, policy=policy)
            self.mistakes.append(
                f"{self._path(template)} makes a page of {len(body)} bytes: make it smaller than {_LARGEST}, "
                "for instance by smaller pictures"
            )
        return None

    def unused(self) -> Iterator[str]:
        """Tell of files that replace nothing: somebody thought that they would."""
        if self._directory is None or self.mistakes:
            return
        for path in sorted(self._directory.iterdir()):
            if path.is_file() and path.name not in self._loader.wanted and path.suffix != LANGUAGE_FILE:
                shipped = ", ".join(sorted(file.name for file in _SHIPPED.iterdir()))
                yield f"{path} is used by no page: name it as what it replaces ({shipped}), or take it away"

    def _path(self, template: str) -> str:
        own = None if self._directory is None else self._directory / template
        return str(own) if own is not None and own.exists() else template
