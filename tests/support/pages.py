"""The pages that are shipped, and how to read one."""

from html.parser import HTMLParser
from typing import Final, override

from visa_jupyter_proxy.error_pages import load
from visa_jupyter_proxy.worker.pages import Pages

SHIPPED: Final = load(None, "/")
PAGES: Final = Pages(SHIPPED)


class PageText(HTMLParser):
    """What a person reads, and what a page refers to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.said: dict[str, list[str]] = {}
        """Element -> its texts."""
        self.links: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "br", "img"):
            self._open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    @override
    def handle_endtag(self, tag: str) -> None:
        assert tag == self._open.pop(), f"</{tag}> closes something else"

    @override
    def handle_data(self, data: str) -> None:
        if data.strip():
            self.said.setdefault(self._open[-1], []).append(data.strip())
