"""The instance that nginx cannot play: it echoes WebSockets and swallows uploads; and the VISA API stand-in.

    python -m benchmarks.instance HOST PORT API_PORT PAGE

A program of its own, so that it can be pinned to another CPU than the proxy. It does as little as it may.
"""

import asyncio
import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import Final, cast

import uvloop
from aiohttp import web

from benchmarks import transfers
from benchmarks.messages import CLOSE

_HEAD_END: Final = b"\r\n\r\n"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3


class Instance(asyncio.Protocol):
    """One connection: requests, one after the other, until one of them is an upgrade."""

    def __init__(self, page: dict[str, bytes]) -> None:
        self._page = page
        self._head = bytearray()
        self._frames: bytearray | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember whom to answer."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Echo, or read a head."""
        if self._frames is not None:
            self._echo(data)
        else:
            self._head += data
            # A proxy sends its next request when this one is answered: there is never more than one here.
            if _HEAD_END in self._head:
                head, _, rest = bytes(self._head).partition(_HEAD_END)
                self._head = bytearray()
                self._answer(head, rest)

    def _answer(self, head: bytes, rest: bytes) -> None:
        line, *lines = head.split(b"\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (one.partition(b":") for one in lines)}
        if fields.get(b"upgrade", b"").lower() == b"websocket":
            self._accept(fields)
            self._frames = bytearray()
            self._echo(rest)
        elif size := int(fields.get(b"content-length", b"0")):
            self._swallow(size, len(rest))
        else:
            self._transport.write(self._page.get(line.split()[1].decode(), _response(b"", b"404 Not Found")))

    def _swallow(self, size: int, seen: int) -> None:
        """Let a thread throw a body away, and tell its size when all of it has come."""
        self._transport.pause_reading()
        sock = self._transport.get_extra_info("socket")
        loop = asyncio.get_running_loop()

        def done(swallowed: "asyncio.Future[int]") -> None:
            self._transport.resume_reading()
            self._transport.write(_response(b"%d" % (seen + swallowed.result())))

        loop.run_in_executor(None, transfers.swallow, sock.fileno(), size - seen).add_done_callback(done)

    def _accept(self, fields: dict[bytes, bytes]) -> None:
        key = hashlib.sha1(fields[b"sec-websocket-key"] + _GUID).digest()  # noqa: S324 -- RFC 6455 4.2.2
        protocol = fields[b"sec-websocket-protocol"]
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\nSec-WebSocket-Protocol: %b\r\n\r\n"
            % (base64.b64encode(key), protocol)
        )

    def _echo(self, data: bytes) -> None:
        """Send frames back without their masks, which are zero, and close after a close frame."""
        frames = self._frames
        assert frames is not None  # noqa: S101 -- the caller has looked
        frames += data
        while len(frames) >= 2:
            short = frames[1] & 0x7F
            head = {126: 4, 127: 10}.get(short, 2)
            size = short if head == 2 else int.from_bytes(frames[2:head])
            end = head + 4 + size
            if len(frames) < end:
                return
            unmasked = bytes((frames[0], short)) + frames[2:head] + frames[head + 4 : end]
            first = frames[0]
            del frames[:end]
            self._transport.write(unmasked)
            if first == CLOSE:
                self._transport.close()
                return


def _response(body: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(body)) + body


def page_responses(page: Path) -> dict[str, bytes]:
    """Make the responses of a recorded page load: bodies of the recorded size."""
    return {one["target"]: _response(b"x" * one["bytes"]) for one in json.loads(page.read_text())}


class Api:
    """The VISA API: every token is the owner's, instance N is at 127.x.y.N; it counts what it was asked."""

    def __init__(self, host: str) -> None:
        self._network = host.rpartition(".")[0]
        self._asked = 0

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer one request; `/asked` tells how often an instance was asked for."""
        match request.path.split("/")[1:]:
            case ["asked"]:
                return web.json_response(self._asked)
            case ["api", "jupyter" | "account" as whose, "instances", number]:
                self._asked += whose == "jupyter"  # the other question is about access that is in use
                if not request.headers.get("Authorization", "").startswith("Bearer ey"):
                    return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})
                address = f"{self._network}.{number}"
                instance = {"id": int(number), "uid": "u", "computeId": "c", "name": "benchmark"}
                instance |= {"ipAddress": address, "state": "ACTIVE", "membership": {"role": "OWNER"}}
                return web.json_response({"data": instance})
            case ["api", "jupyter", "instances", _, "notebook", "open" | "close"]:
                await request.read()
                return web.json_response({"data": None})
        return web.json_response({"errors": ["no such thing"]}, status=404)


async def serve(host: str, port: int, api_port: int, page: Path) -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    responses = page_responses(page)
    instance = await loop.create_server(lambda: Instance(responses), host, port, backlog=10_000)
    api = await loop.create_server(web.Server(Api(host).answer), "127.0.0.1", api_port)
    await asyncio.gather(instance.serve_forever(), api.serve_forever())


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
