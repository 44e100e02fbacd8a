"""llhttp's own test blocks: bytes, and what its parser says of them.

They are in the source distribution of aiohttp, in the version that `requirements.txt` pins; pip fetches
it once into `.cache`, checked against the hashes there. A block is a paragraph of Markdown with the
input and the log of llhttp's callbacks; `blocks` gives both as values.
"""

import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]
_FOLDER: Final = "/vendor/llhttp/test/"
_PIN: Final = re.compile(r"^aiohttp==(\S+)(?: \\\n    --hash=\S+)+", re.MULTILINE)

_BLOCK: Final = re.compile(
    r"^(?P<title>#+ [^\n]*)$"
    r"|<!-- meta=(?P<meta>\{[^\n]*\}) -->\s*```http\n(?P<input>[^`]*?)```[^`]*```log\n(?P<log>.*?)```",
    re.MULTILINE | re.DOTALL,
)
_SPAN: Final = re.compile(r'span\[(\w+)\]=(?:"(.*)"|(cr|lf))$')

_ESCAPES: Final = {"r": "\r", "n": "\n", "t": "\t", "f": "\f"}

type Field = tuple[bytes, bytes]


@dataclass
class Message:
    """A request or a response, as far as it was read."""

    start: tuple[bytes, ...] = ()
    """Method and target, or status."""
    fields: list[Field] = field(default_factory=list)
    body: bytes = b""
    trailers: list[Field] = field(default_factory=list)
    is_complete: bool = False


@dataclass(frozen=True)
class Block:
    """One paragraph of the corpus."""

    name: str
    """File and heading, with a number where a heading has several blocks."""
    kind: str
    """`request` or `response`, and perhaps which leniency llhttp was given."""
    data: bytes
    messages: list[Message]
    """What llhttp makes of it."""
    error: str | None
    """Why llhttp reads no further."""

    @property
    def is_lenient(self) -> bool:
        """Whether llhttp was told to be less strict than RFC 9112."""
        return "lenient" in self.kind


def blocks() -> list[Block]:
    """Give all blocks about requests and responses, in order. Fetches them when they are not there."""
    with tarfile.open(_sdist()) as archive:
        names = sorted(name for name in archive.getnames() if _FOLDER in name and name.endswith(".md"))
        found: list[Block] = []
        for name in names:
            content = archive.extractfile(name)
            assert content is not None
            found += _blocks(name.partition(_FOLDER)[2].removesuffix(".md"), content.read().decode())
    return found


def _sdist() -> Path:
    """Return the source distribution of aiohttp; pip downloads it, and builds nothing."""
    pin = _PIN.search((_ROOT / "requirements.txt").read_text())
    assert pin is not None, "requirements.txt pins no aiohttp"
    cache = _ROOT / ".cache"
    sdist = cache / f"aiohttp-{pin[1]}.tar.gz"
    if not sdist.exists():
        cache.mkdir(exist_ok=True)
        wanted = cache / "aiohttp.txt"
        wanted.write_text(pin[0] + "\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "aiohttp"]
        subprocess.run([*pip, "--require-hashes", "-r", wanted, "-d", cache], check=True)
    return sdist


def _blocks(file: str, text: str) -> Iterator[Block]:
    titles: list[str] = []
    seen: dict[str, int] = {}
    for found in _BLOCK.finditer(text):
        if found["title"] is not None:
            level, _, title = found["title"].partition(" ")
            titles = [*titles[: len(level) - 1], title.strip()]
            continue
        name = f"{file}: {titles[-1] if titles else ''}"
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            name += f" ({seen[name]})"
        meta = json.loads(found["meta"])
        if "skipBody" not in meta:  # that is for callers who want no body
            messages, error = _read_log(found["log"])
            yield Block(name, meta["type"], _written(found["input"]), messages, error)


def _written(text: str) -> bytes:
    r"""Give the bytes that a block stands for: lines end with CR LF, `\r` and `\xff` are written out."""
    text = text.removesuffix("\n").replace("\\\n", "").replace("\n", "\r\n")
    text = re.sub(r"\\([rntf])", lambda found: _ESCAPES[found[1]], text)
    text = re.sub(r"\\x([0-9a-fA-F]{2})", lambda found: chr(int(found[1], 16)), text)
    return re.sub(r"\\([0-7]{1,3})", lambda found: chr(int(found[1], 8)), text).encode()


def _read_log(log: str) -> tuple[list[Message], str | None]:
    """Put the callbacks together to messages: those whose head is complete."""
    messages: list[Message] = []
    error: str | None = None
    spans: dict[str, bytes] = {}
    in_body = False
    for line in log.splitlines():
        event = line.partition(" ")[2]
        event = re.sub(r"^len=\d+ ", "", event)
        if (span := _SPAN.match(event)) is not None:
            value = _unescaped(span[2]) if span[3] is None else {"cr": b"\r", "lf": b"\n"}[span[3]]
            if span[1] == "body":
                messages[-1].body += value
            else:
                spans[span[1]] = spans.get(span[1], b"") + value
        elif event == "message begin":
            messages.append(Message())
            spans, in_body = {}, False
        elif event == "header_value complete":
            target = messages[-1].trailers if in_body else messages[-1].fields
            target.append(
                (spans.pop("header_field", b"").lower(), spans.pop("header_value", b"").strip(b" \t"))
            )
        elif event.startswith("headers complete"):
            status = re.search(r"status=(\d+)", event)
            messages[-1].start = (
                (status[1].encode(),)
                if status is not None
                else (spans.get("method", b""), spans.get("url", b""))
            )
            in_body = True
        elif event == "message complete":
            messages[-1].is_complete = True
        elif event.startswith("error ") and "Pause on" not in event:
            error = event.partition("reason=")[2].strip('"')
    return [message for message in messages if message.start], error


def _unescaped(text: str) -> bytes:
    """Give the bytes that a log shows."""
    return re.sub(r"\\([tf])", lambda found: _ESCAPES[found[1]], text).encode()
