"""`websockets` on both ends, direct and through the proxy: the same verdict (case 162).

A conversation is two coroutines, one for each end. What each end has seen, how its connection was closed
and by whom is the verdict; the proxy must not change a word of it.
"""

import asyncio
import hashlib
import itertools
import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from wire.conftest import Wire

MIB: Final = 2**20
TINY: Final = 100_000

type End = Callable[[Any], Awaitable[object]]

_addresses = itertools.count(1)
_silent: Final = logging.getLogger("websockets.silent")
_silent.disabled = True  # what goes wrong here is meant to


@dataclass
class Conversation:
    """What each end does with its open connection; what it returns is what it has seen."""

    client: End
    server: End
    options: dict[str, Any]
    """Of both ends."""
    client_options: dict[str, Any]
    server_options: dict[str, Any]


def conversation(
    client: End,
    server: End,
    *,
    client_options: dict[str, Any] | None = None,
    server_options: dict[str, Any] | None = None,
    **options: Any,
) -> Conversation:
    """Make a conversation; without `compression` there is none."""
    options = {"compression": None, "max_size": None, "ping_interval": None} | options
    return Conversation(client, server, options, client_options or {}, server_options or {})


def verdicts(wire: Wire, talk: Conversation) -> list[object]:
    """Hold the same conversation directly and through the proxy, and give both verdicts."""
    host = f"127.80.0.{next(_addresses)}"
    port = wire.instance.port
    wire.api.instance(wire.number, owner=f"user-{wire.number}", ip=host)

    async def main() -> list[object]:
        seen: asyncio.Queue[object] = asyncio.Queue()

        async def serve_one(connection: ServerConnection) -> None:
            await seen.put(await _see(talk.server, connection))

        server_options = {**talk.options, **talk.server_options, "logger": _silent}
        async with serve(serve_one, host, port, **server_options):
            found: list[object] = []
            for place in (f"{host}:{port}", f"127.0.0.1:{wire.proxy.port}"):
                uri = f"ws://{place}{wire.path('/ws')}"
                fields = {"Authorization": f"Bearer {wire.token}"}
                client_options = {**talk.options, **talk.client_options, "logger": _silent}
                async with connect(
                    uri, additional_headers=fields, proxy=None, open_timeout=20, **client_options
                ) as client:
                    mine = await _see(talk.client, client)
                found.append({"client": mine, "server": await asyncio.wait_for(seen.get(), 20)})
            return found

    return asyncio.run(asyncio.wait_for(main(), 60))


async def _see(end: End, connection: Connection) -> object:
    """Let one end speak; give what it saw, and how the connection was closed."""
    negotiated = [type(extension).__name__ for extension in connection.protocol.extensions]
    try:
        seen = await end(connection)
    except ConnectionClosed as closed:
        seen = type(closed).__name__
    if isinstance(connection, ClientConnection):
        await connection.close()  # nothing more is to be said: not by both, or it were a race
    await asyncio.wait_for(connection.wait_closed(), 20)
    closing = connection.protocol.close_exc
    return {
        "seen": seen,
        "subprotocol": connection.subprotocol,
        "extensions": negotiated,
        "received": closing.rcvd and (closing.rcvd.code, closing.rcvd.reason),
        "sent": closing.sent and (closing.sent.code, closing.sent.reason),
        "received first": closing.rcvd_then_sent,
    }


def digest(message: str | bytes) -> tuple[str, int, str]:
    """Give type, size and digest: a verdict is compared, and printed when it is another."""
    data = message.encode() if isinstance(message, str) else message
    return type(message).__name__, len(data), hashlib.sha256(data).hexdigest()


async def listen(connection: Connection) -> list[object]:
    """Take every message until the end."""
    seen: list[object] = []
    try:
        while True:
            seen.append(digest(await connection.recv()))
    except ConnectionClosed as closed:
        return [*seen, type(closed).__name__]


async def echo(connection: Connection) -> list[object]:
    """Send every message back."""
    seen: list[object] = []
    async for message in connection:
        seen.append(digest(message))
        await connection.send(message)
    return seen


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, rsv: int = 0) -> bytes:
    """Write a frame, valid or not (RFC 6455 5.2)."""
    first = fin << 7 | rsv << 4 | opcode
    mask = b"\x01\x02\x03\x04" if masked else b""
    flag = 0x80 if masked else 0
    if len(payload) < 126:
        head = struct.pack("!BB", first, flag | len(payload))
    elif len(payload) < 65536:
        head = struct.pack("!BBH", first, flag | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, flag | 127, len(payload))
    body = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload)) if masked else payload
    return head + mask + body


def raw(data: bytes) -> End:
    """Write bytes past the library, then listen."""

    async def end(connection: Connection) -> object:
        connection.transport.write(data)
        return await listen(connection)

    return end


async def quiet(connection: Connection) -> None:
    """Do nothing until the other end closes."""
    await connection.wait_closed()


def same(wire: Wire, talk: Conversation) -> Any:
    """Check that both verdicts are equal, and give it."""
    direct, proxied = verdicts(wire, talk)
    assert direct == proxied
    return direct


class TestMessages:
    """What arrives is what was sent."""

    @pytest.mark.parametrize("compression", [None, "deflate"])
    @pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, MIB])
    def test_162_sizes(self, wire: Wire, size: int, compression: str | None) -> None:
        """Text and binary messages, at the edges of every length format."""

        async def client(connection: ClientConnection) -> list[object]:
            seen: list[object] = []
            for message in (b"\xfe" * size, "\u00e9" * (size // 2)):
                await connection.send(message)
                seen.append(digest(await connection.recv()))
            return seen

        verdict = same(wire, conversation(client, echo, compression=compression))
        assert verdict["client"]["seen"] == verdict["server"]["seen"]
        expected = ["PerMessageDeflate"] if compression else []
        assert expected == verdict["client"]["extensions"] == verdict["server"]["extensions"]

    @pytest.mark.parametrize("compression", [None, "deflate"])
    def test_162_a_message_of_64_mebibytes(self, wire: Wire, compression: str | None) -> None:
        """One message of that size, there and back."""
        message = hashlib.sha256(b"seed").digest() * (64 * MIB // 32)

        async def client(connection: ClientConnection) -> object:
            await connection.send(message)
            return digest(await connection.recv())

        verdict = same(wire, conversation(client, echo, compression=compression))
        assert digest(message) == verdict["client"]["seen"]

    @pytest.mark.parametrize("who", ["client", "server"])
    def test_162_tiny_frames_by_the_hundred_thousand(self, wire: Wire, who: str) -> None:
        """Each arrives, in order."""
        numbers = [b"%d" % number for number in range(TINY)]
        data = b"".join(frame(2, number, masked=who == "client") for number in numbers)

        async def give(connection: Connection) -> object:
            connection.transport.write(data)
            return digest(await connection.recv())

        async def take(connection: Connection) -> object:
            received = [await connection.recv() for _ in range(TINY)]
            await connection.send("all")
            return received == numbers

        ends = (give, take) if who == "client" else (take, give)
        verdict = same(wire, conversation(*ends))
        assert {True, digest("all")} == {verdict["client"]["seen"], verdict["server"]["seen"]}

    @pytest.mark.parametrize("compression", [None, "deflate"])
    @pytest.mark.parametrize("who", ["client", "server"])
    def test_162_fragments_with_pings_between(self, wire: Wire, who: str, compression: str | None) -> None:
        """A message in a hundred fragments, and a ping that is answered after each of them."""

        async def give(connection: Connection) -> object:
            async def fragments() -> AsyncIterator[str]:
                for number in range(100):
                    yield f"fragment {number} \u00e9 "
                    await asyncio.wait_for(await connection.ping(b"%d" % number), 20)

            await connection.send(fragments())
            return digest(await connection.recv())

        async def take(connection: Connection) -> object:
            pieces = [piece async for piece in connection.recv_streaming()]
            await connection.send("taken")
            return digest("".join(map(str, pieces))), len(pieces)

        ends = (give, take) if who == "client" else (take, give)
        verdict = same(wire, conversation(*ends, compression=compression))
        other = "server" if who == "client" else "client"
        assert digest("taken") == verdict[who]["seen"]
        assert verdict[other]["seen"][1] >= 100

    @pytest.mark.parametrize("who", ["client", "server"])
    def test_162_a_message_cut_into_single_bytes(self, wire: Wire, who: str) -> None:
        """Fragments of one byte, also in the middle of a character (RFC 6455 5.4)."""
        text = "\u00e9\u4e2d\U0001f600".encode()
        pieces = [frame(n == 0, text[n : n + 1], fin=False, masked=who == "client") for n in range(len(text))]
        data = b"".join([*pieces, frame(0, masked=who == "client"), frame(8, masked=who == "client")])
        ends = (raw(data), listen) if who == "client" else (listen, raw(data))
        verdict = same(wire, conversation(*ends))
        other = "server" if who == "client" else "client"
        assert digest(text.decode()) == verdict[other]["seen"][0]

    def test_162_pings_of_the_library(self, wire: Wire) -> None:
        """Keep-alive pings at a short interval pass both ways; the connection lives on."""

        async def client(connection: ClientConnection) -> object:
            for number in range(20):
                await asyncio.wait_for(await connection.ping(b"%d" % number), 20)
            await connection.send("still here")
            return digest(await connection.recv())

        verdict = same(wire, conversation(client, echo, ping_interval=0.01, ping_timeout=20))
        assert digest("still here") == verdict["client"]["seen"]


class TestNegotiation:
    """Sub-protocols and extensions are the two ends' own."""

    @pytest.mark.parametrize(
        ("offered", "spoken", "chosen"),
        [
            (["v1.kernel.websocket.jupyter.org"], ["v1.kernel.websocket.jupyter.org"], 0),
            (["a", "b", "c"], ["b"], 1),
            (["a", "b"], None, None),
            (None, None, None),
        ],
    )
    def test_162_sub_protocols(
        self, wire: Wire, offered: list[str] | None, spoken: list[str] | None, chosen: int | None
    ) -> None:
        """The server's choice, or none."""
        talk = conversation(
            _ask_for_echo,
            echo,
            client_options={"subprotocols": offered and [*map(Subprotocol, offered)]},
            server_options={"subprotocols": spoken and [*map(Subprotocol, spoken)]},
        )
        verdict = same(wire, talk)
        expected = offered[chosen] if offered is not None and chosen is not None else None
        assert expected == verdict["client"]["subprotocol"] == verdict["server"]["subprotocol"]

    def test_162_no_common_sub_protocol(self, wire: Wire) -> None:
        """The handshake fails in the same way."""
        talk = conversation(
            quiet,
            quiet,
            client_options={"subprotocols": [Subprotocol("a")]},
            server_options={"subprotocols": [Subprotocol("b")]},
        )
        host = f"127.80.0.{next(_addresses)}"
        wire.api.instance(wire.number, owner=f"user-{wire.number}", ip=host)

        async def main() -> list[str]:
            found = []
            server_options = {**talk.options, **talk.server_options, "logger": _silent}
            async with serve(quiet, host, wire.instance.port, **server_options):
                for place in (f"{host}:{wire.instance.port}", f"127.0.0.1:{wire.proxy.port}"):
                    with pytest.raises(InvalidHandshake) as failed:
                        await connect(
                            f"ws://{place}{wire.path('/ws')}",
                            additional_headers={"Authorization": f"Bearer {wire.token}"},
                            proxy=None,
                            **talk.options,
                            **talk.client_options,
                        )
                    found.append(str(failed.value))
            return found

        direct, proxied = asyncio.run(main())
        assert direct == proxied
        assert "400" in direct

    @pytest.mark.parametrize("who", ["client_options", "server_options"])
    def test_162_only_one_end_compresses(self, wire: Wire, who: str) -> None:
        """Then nobody does."""
        options: dict[str, Any] = {who: {"compression": "deflate"}}
        verdict = same(wire, conversation(_ask_for_echo, echo, **options))
        assert [] == verdict["client"]["extensions"] == verdict["server"]["extensions"]


class TestClosing:
    """Who closes, with what code and reason, and who noticed first."""

    @pytest.mark.parametrize("who", ["client", "server"])
    @pytest.mark.parametrize(
        ("code", "reason"),
        [
            (1000, ""),
            (1001, "going away"),
            (1003, "x" * 123),
            (1011, "\u00e9"),
            (3000, ""),
            (4000, "a"),
            (4999, "b"),
        ],
    )
    def test_162_close_codes(self, wire: Wire, who: str, code: int, reason: str) -> None:
        """They arrive as they were sent, and are returned."""

        async def close(connection: Connection) -> None:
            await connection.close(code, reason)

        ends = (close, listen) if who == "client" else (listen, close)
        verdict = same(wire, conversation(*ends))
        other = "server" if who == "client" else "client"
        assert (code, reason) == verdict[other]["received"] == verdict[who]["sent"]

    @pytest.mark.parametrize("who", ["client", "server"])
    def test_162_a_close_without_a_code(self, wire: Wire, who: str) -> None:
        """1005: there was none."""
        data = frame(8, masked=who == "client")
        ends = (raw(data), listen) if who == "client" else (listen, raw(data))
        verdict = same(wire, conversation(*ends))
        other = "server" if who == "client" else "client"
        assert (1005, "") == verdict[other]["received"]

    @pytest.mark.parametrize("who", ["client", "server"])
    def test_162_an_end_without_a_close(self, wire: Wire, who: str) -> None:
        """The connection is gone, and nobody has received or sent a close frame first."""

        async def vanish(connection: Connection) -> None:
            connection.transport.abort()

        ends = (vanish, listen) if who == "client" else (listen, vanish)
        verdict = same(wire, conversation(*ends))
        other = "server" if who == "client" else "client"
        assert ["ConnectionClosedError"] == verdict[other]["seen"]
        assert verdict[other]["received"] is None

    @pytest.mark.parametrize("who", ["client", "server"])
    def test_162_a_message_too_big(self, wire: Wire, who: str) -> None:
        """1009 reaches the one who sent it."""

        async def give(connection: Connection) -> object:
            await connection.send("x" * 2000)
            return await listen(connection)

        ends = (give, listen) if who == "client" else (listen, give)
        verdict = same(wire, conversation(*ends, max_size=1000))
        assert 1009 == verdict[who]["received"][0]

    @pytest.mark.parametrize("who", ["client", "server"])
    def test_162_a_length_beyond_all_measure(self, wire: Wire, who: str) -> None:
        """Nobody waits for 2**63 bytes: the other end's limit decides, not ours."""
        data = bytes([0x82, 0x7F | (who == "client") << 7]) + b"\x80" + bytes(7) + bytes(4)
        ends = (raw(data), listen) if who == "client" else (listen, raw(data))
        verdict = same(wire, conversation(*ends, max_size=1000))
        assert 1009 == verdict[who]["received"][0]


INVALID: Final[dict[str, Callable[[bool], bytes]]] = {
    "reserved data opcode": lambda m: frame(3, masked=m),
    "reserved control opcode": lambda m: frame(11, masked=m),
    "RSV1 without an extension": lambda m: frame(1, b"x", rsv=4, masked=m),
    "RSV2": lambda m: frame(1, b"x", rsv=2, masked=m),
    "RSV3": lambda m: frame(2, b"x", rsv=1, masked=m),
    "wrong masking": lambda m: frame(1, b"x", masked=not m),
    "fragmented ping": lambda m: frame(9, b"x", fin=False, masked=m),
    "ping of 126 bytes": lambda m: frame(9, b"x" * 126, masked=m),
    "continuation of nothing": lambda m: frame(0, b"x", masked=m),
    "new message inside another": lambda m: frame(1, b"x", fin=False, masked=m) + frame(1, b"y", masked=m),
    "close of one byte": lambda m: frame(8, b"\x03", masked=m),
    "close code 999": lambda m: frame(8, b"\x03\xe7", masked=m),
    "close code 1005": lambda m: frame(8, b"\x03\xed", masked=m),
    "close code 1006": lambda m: frame(8, b"\x03\xee", masked=m),
}

NOT_UTF_8: Final[dict[str, Callable[[bool], bytes]]] = {
    "a lone byte": lambda m: frame(1, b"\xff", masked=m),
    "overlong": lambda m: frame(1, b"\xc0\xaf", masked=m),
    "surrogate": lambda m: frame(1, b"\xed\xa0\x80", masked=m),
    "beyond Unicode": lambda m: frame(1, b"\xf4\x90\x80\x80", masked=m),
    "cut off": lambda m: frame(1, b"\xc3", masked=m),
    "in the second fragment": lambda m: frame(1, b"a", fin=False, masked=m) + frame(0, b"\xff", masked=m),
    "in the reason of a close": lambda m: frame(8, b"\x03\xe8\xff", masked=m),
}


class TestInvalid:
    """What is invalid is so for the other end to say: the proxy neither repairs nor refuses it."""

    @pytest.mark.parametrize("who", ["client", "server"])
    @pytest.mark.parametrize("what", INVALID)
    def test_162_invalid_frames(self, wire: Wire, who: str, what: str) -> None:
        """The other end fails the connection with 1002."""
        self._fails(wire, who, INVALID[what](who == "client"), 1002)

    @pytest.mark.parametrize("who", ["client", "server"])
    @pytest.mark.parametrize("what", NOT_UTF_8)
    def test_162_invalid_utf_8(self, wire: Wire, who: str, what: str) -> None:
        """The other end fails the connection with 1007."""
        self._fails(wire, who, NOT_UTF_8[what](who == "client"), 1007)

    @pytest.mark.parametrize("who", ["client", "server"])
    def test_162_compressed_data_that_is_none(self, wire: Wire, who: str) -> None:
        """Garbage where permessage-deflate was agreed upon."""
        data = frame(1, b"\xff" * 20, rsv=4, masked=who == "client")
        ends = (raw(data), listen) if who == "client" else (listen, raw(data))
        verdict = same(wire, conversation(*ends, compression="deflate"))
        other = "server" if who == "client" else "client"
        assert verdict[other]["sent"][0] in (1002, 1007)

    def _fails(self, wire: Wire, who: str, data: bytes, code: int) -> None:
        ends = (raw(data), listen) if who == "client" else (listen, raw(data))
        verdict = same(wire, conversation(*ends))
        other = "server" if who == "client" else "client"
        assert code == verdict[other]["sent"][0] == verdict[who]["received"][0]


async def _ask_for_echo(connection: Connection) -> object:
    await connection.send("hello")
    return digest(await connection.recv())
