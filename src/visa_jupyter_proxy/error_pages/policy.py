"""What a page may do: its `Content-Security-Policy` (W3C, Content Security Policy Level 3)."""

import base64
import hashlib
from html.parser import HTMLParser
from typing import Final, override

from visa_jupyter_proxy.mailbox import REQUEST_ID_HERE, SERVICE_HERE, STATUS_HERE

_INLINE: Final = ("script", "style")


def policy_of(page: str) -> str:
    """Return the policy that allows a page its own scripts and styles, pictures within itself, and no more.

    A script may ask this site. They are known by their hashes, so what differs from request to request can
    stand in none: raises `ValueError` for that, and for what would be loaded.
    """
    found = _Inline()
    found.feed(page)
    found.close()
    parts = ["default-src 'none'"]
    parts += [f"{kind}-src {' '.join(found.hashes[kind])}" for kind in _INLINE if found.hashes[kind]]
    if found.hashes["script"]:
        parts.append("connect-src 'self'")
    return "; ".join([*parts, "img-src data:", "font-src data:", "base-uri 'none'", "form-action 'none'"])


class _Inline(HTMLParser):
    """Collects the hashes of what stands in `script` and `style` elements."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.hashes: dict[str, list[str]] = {kind: [] for kind in _INLINE}
        self._kind: str | None = None
        self._content = ""

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        loaded = dict(attrs).get("href" if tag == "link" else "src")
        if loaded is not None and tag != "a" and not loaded.startswith("data:"):
            raise ValueError(f"a page loads nothing: put what <{tag}> loads into the page itself")
        if tag in _INLINE:
            self._kind, self._content = tag, ""

    @override
    def handle_data(self, data: str) -> None:
        if self._kind is not None:
            self._content += data

    @override
    def handle_endtag(self, tag: str) -> None:
        if tag != self._kind:
            return
        if any(here in self._content for here in (STATUS_HERE, REQUEST_ID_HERE, SERVICE_HERE)):
            raise ValueError(
                f"neither status, request_id nor {{service}} can stand in a <{tag}>: it is known by its hash"
            )
        digest = base64.b64encode(hashlib.sha256(self._content.encode()).digest()).decode("ascii")
        self.hashes[tag].append(f"'sha256-{digest}'")
        self._kind = None
