"""Bytes through the kernel: from one socket to another by way of a pipe, never through this process.

The loop goes on owning both sockets. A splice begins behind whatever the loop had read or queued, takes
exactly the bytes it was told to, and leaves both connections to the loop again. While it lasts, it is the
reader of its source, whose transport is paused, and the writer of its sink, whose protocol hears of
back-pressure from it as from a transport.

Sources and sinks are waited for apart (`readiness`), for a client's connection may be both at a time.
"""

import asyncio
import errno
import os
import select
from typing import Final, Protocol

from visa_jupyter_proxy.worker.sockets.admission import pipes_that_descriptors_allow
from visa_jupyter_proxy.worker.sockets.pipes import PIPE_SIZE, Pipe, Pipes
from visa_jupyter_proxy.worker.sockets.readiness import Readiness
from visa_jupyter_proxy.worker.sockets.sockets import Transport

_NOT_DONE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.ENOMEM})
"""What the kernel, or what guards it, says where it does not splice. All else is the peer's end."""

_NOW: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class Sink(Protocol):
    """The protocol of the connection that a splice writes to."""

    @property
    def transport(self) -> Transport | None:
        """The connection, while there is one."""

    def pause_writing(self) -> None:
        """Know that the peer takes no more at the moment."""

    def resume_writing(self) -> None:
        """Know that the peer has taken some."""

    def hung_up(self) -> None:
        """End: the peer has gone."""


class Source(Protocol):
    """The protocol of the connection that a splice reads from. It has paused reading, and leaves it so."""

    @property
    def transport(self) -> Transport | None:
        """The connection, while there is one."""

    def passed(self, count: int) -> None:
        """Know that so many bytes have gone to the sink. With the last of them the splice is over."""

    def read_on(self) -> None:
        """Read the rest: the splice has ended early, at the end of the source or because it is not done."""

    def hung_up(self) -> None:
        """End: the peer has gone."""


class Splices:
    """The splices of a worker, and their pipes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int | None = None) -> None:
        """Have `most` at a time; None is what the file descriptors allow."""
        self.loop = loop
        self.most = pipes_that_descriptors_allow() if most is None else most
        self.active: set[Splice] = set()
        self.sources = Readiness(loop, select.EPOLLIN)
        self.sinks = Readiness(loop, select.EPOLLOUT)
        self._pipes = Pipes()

    @property
    def kept_count(self) -> int:
        """How many empty pipes are kept."""
        return self._pipes.kept_count

    def begin(self, source: Source, sink: Sink, length: int) -> "Splice | None":
        """Move `length` bytes; None when that cannot be had: the source has to read as ever.

        Nothing is called back from here. The source ends the splice when either connection is lost,
        before its descriptor can become another's.
        """
        if len(self.active) >= self.most:
            return None
        ours, theirs = _plain(source.transport), _plain(sink.transport)
        if ours is None or theirs is None:
            return None
        pipe = self._pipes.take()
        if pipe is None:
            return None
        splice = Splice(self, pipe, (source, ours), (sink, theirs), length)
        self.active.add(splice)
        return splice

    def ended(self, splice: "Splice", pipe: Pipe, *, empty: bool) -> None:
        """Forget a splice that is over, and take its pipe back."""
        self.active.discard(splice)
        self._pipes.give_back(pipe, empty=empty)

    def close(self) -> None:
        """Let go of all descriptors."""
        self.most = 0
        for splice in [*self.active]:
            splice.stop()
        self.sources.close()
        self.sinks.close()
        self._pipes.close()


class Splice:
    """A body, or the rest of one, on its way. Never more than one pipe of it is on the way at a time."""

    def __init__(
        self,
        splices: Splices,
        pipe: Pipe,
        source: tuple[Source, Transport],
        sink: tuple[Sink, Transport],
        length: int,
    ) -> None:
        self.is_active = True
        self._splices = splices
        self._pipe = pipe
        self._source, transport = source
        self._from = _descriptor(transport)
        self._sink, self._transport = sink
        self._to = _descriptor(self._transport)
        self._left = length
        """To be taken from the source."""
        self._piped = 0
        """Taken, and not yet given to the sink."""
        self._blocked = False
        """Whether the sink's protocol believes that it is full."""
        self._flushing = False
        """Whether the sink's transport has yet to send what was queued before."""
        self._waiting: Readiness | None = None
        # The loop sends what was queued in this turn at its end.
        splices.loop.call_soon(self.ready)

    def ready(self) -> None:
        """Move what can be moved, once through the pipe: whoever was waited for is ready."""
        if self.is_active and self._is_flushed() and (self._piped or self._take()):
            self._give()

    def stop(self) -> None:
        """End at once: what is in the pipe is lost. The source's transport stays paused."""
        if not self.is_active:
            return
        self.is_active = False
        self._wait_for(None)
        if self._flushing:
            self._transport.set_write_buffer_limits()
        self._splices.ended(self, self._pipe, empty=not self._piped)

    # --- steps -----------------------------------------------------------------------------

    def _is_flushed(self) -> bool:
        """Whether the transport has nothing queued; until then it must say when it has sent it all."""
        queued = self._transport.get_write_buffer_size() > 0
        if queued != self._flushing:
            self._flushing = queued
            if queued:
                self._transport.set_write_buffer_limits(high=0)
            else:
                self._transport.set_write_buffer_limits()
        if queued:
            self._wait_for(self._splices.sinks)
        return not queued

    def _take(self) -> bool:
        """Fill the pipe; False when there is nothing to be had now."""
        try:
            taken = os.splice(self._from, self._pipe.writer, min(self._left, PIPE_SIZE), flags=_NOW)
        except BlockingIOError:
            self._wait_for(self._splices.sources)
            return False
        except OSError as error:
            self.stop()
            if self._is_refusal(error):
                self._source.read_on()
            else:
                self._source.hung_up()
            return False
        if not taken:
            self.stop()
            self._source.read_on()  # whose transport meets the end itself
            return False
        self._left -= taken
        self._piped = taken
        return True

    def _give(self) -> None:
        """Empty the pipe, as far as the sink takes it."""
        try:
            given = os.splice(self._pipe.reader, self._to, self._piped, flags=_NOW)
        except BlockingIOError:
            given = 0
        except OSError as error:
            if self._is_refusal(error):
                self._rescue()
            else:
                self.stop()
                self._sink.hung_up()
            return
        self._piped -= given
        if given:
            self._tell(given)
        if self.is_active:
            self._wait()

    def _tell(self, given: int) -> None:
        """Tell both protocols of progress; with the end of the body, the splice is over before."""
        self._unblock()
        if not (self._left or self._piped):
            self.stop()
        self._source.passed(given)

    def _unblock(self) -> None:
        if self._blocked:
            self._blocked = False
            self._sink.resume_writing()

    def _wait(self) -> None:
        if not self._piped:
            self._wait_for(self._splices.sources)
            return
        self._wait_for(self._splices.sinks)
        if not self._blocked:
            self._blocked = True
            self._sink.pause_writing()

    def _wait_for(self, readiness: Readiness | None) -> None:
        if readiness is self._waiting:
            return
        if self._waiting is not None:
            self._waiting.forget(self._from if self._waiting is self._splices.sources else self._to)
        self._waiting = readiness
        if readiness is not None:
            readiness.watch(self._from if readiness is self._splices.sources else self._to, self.ready)

    def _is_refusal(self, error: OSError) -> bool:
        """Whether the kernel does not splice here; then it is not asked again."""
        if error.errno not in _NOT_DONE:
            return False
        self._splices.most = 0
        return True

    def _rescue(self) -> None:
        """Give the sink's transport what is in the pipe, and the source its reading."""
        data = os.read(self._pipe.reader, self._piped)
        self._piped = 0
        self._unblock()
        self._transport.write(data)
        self._tell(len(data))
        if self.is_active:
            self.stop()
            self._source.read_on()


def _plain(transport: Transport | None) -> Transport | None:
    """Return the transport if the kernel can move its bytes: open, a socket, and not TLS."""
    if transport is None or transport.is_closing() or transport.get_extra_info("sslcontext") is not None:
        return None
    return transport if transport.get_extra_info("socket") is not None else None


def _descriptor(transport: Transport) -> int:
    descriptor: int = transport.get_extra_info("socket").fileno()
    return descriptor
