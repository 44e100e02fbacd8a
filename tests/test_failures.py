"""Why there is no connection, in words: none of Python's classes, and no number that means something else."""

import asyncio
import ssl

import pytest

from visa_jupyter_proxy import failures


async def _failure(says: bytes | None) -> OSError:
    """Try TLS with a peer that says something else and closes; None is one that no longer listens."""

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(says or b"")
        writer.close()

    async with await asyncio.start_server(accepted, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        if says is None:
            server.close()
        with pytest.raises(OSError) as caught:  # noqa: PT011 -- which one is what the test is about
            await asyncio.open_connection("127.0.0.1", port, ssl=ssl.create_default_context())
    return caught.value


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (None, "Connection refused"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "TLS does not succeed with it"),
        (b"", "the connection was closed before an answer came"),
    ],
    ids=["refused", "no TLS", "closed"],
)
def test_why_there_is_no_connection(says: bytes | None, words: str) -> None:
    """An error of TLS has a number of OpenSSL's, and a connection that closes in the middle has none."""
    assert words == failures.of_connection(asyncio.run(_failure(says)))
