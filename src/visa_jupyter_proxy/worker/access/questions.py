"""How the VISA API is asked about instances: in turn, and, while it is down, hardly at all.

It is down when several questions in a row have got no answer, or several known tokens none that makes sense
(`circuit`). Then a question passes from time to time, as a probe, and every other one is refused at once:
nobody waits `API_TIMEOUT_S` for what does not come, and nobody rushes at an API that comes back.
"""

import itertools
import random
from collections.abc import Awaitable, Callable
from typing import Final

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.circuit import Circuit
from visa_jupyter_proxy.errors import (
    InstanceNotFound,
    ProxyError,
    TokenRejected,
    VisaInvalid,
    VisaTimeout,
    VisaUnreachable,
)
from visa_jupyter_proxy.visa_api import Access, Instance, VisaApi
from visa_jupyter_proxy.worker.access.turns import Turns
from visa_jupyter_proxy.worker.http.credentials import AccessToken

LARGEST_DELAY_S: Final = 5.0
"""Between two probes: what `Retry-After` says, and what users of an API that is back wait at most."""

type Key = tuple[bytes, int]
"""Digest of a whole token, and the id of an instance."""


class Questions:
    """The questions of one worker."""

    def __init__(
        self,
        api: VisaApi,
        *,
        patience_s: float,
        now: Callable[[], float],
        workers: int = 1,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Wait for a turn `patience_s` at most; what is allowed at a time is divided among `workers`."""
        self._api = api
        self._now = now
        self._turns = Turns(patience_s, workers)
        self._circuit = Circuit[int | Key](jitter, LARGEST_DELAY_S)
        self._numbers = itertools.count()

    @property
    def is_api_in_doubt(self) -> bool:
        """Whether a question has failed since the last that was answered."""
        return self._circuit.is_open or self._circuit.is_in_doubt

    @property
    def may_begin(self) -> bool:
        """Whether a question would pass now."""
        return self._circuit.allows(self._now()) != 0

    async def ask(self, token: AccessToken, instance_id: int, client: str, *, is_known: bool) -> Instance:
        """Ask, in the turn of `client`, whether the owner of `token` owns the instance.

        `is_known` is whether the API has granted that before: then it need not wait behind strangers.
        Raises what `VisaApi.get_instance` raises, `VisaBusy`, and `VisaUnreachable` while the API is down.
        """
        return await self._put(self._api.get_instance, token, instance_id, client, is_known=is_known)

    async def look(self, token: AccessToken, instance_id: int, client: str, *, is_known: bool) -> Access:
        """Ask the same without a side effect, `VisaApi.get_access`; all else as `ask`."""
        return await self._put(self._api.get_access, token, instance_id, client, is_known=is_known)

    async def _put[T](
        self,
        call: Callable[[str, int], Awaitable[T]],
        token: AccessToken,
        instance_id: int,
        client: str,
        *,
        is_known: bool,
    ) -> T:
        self._check()
        async with self._turns.of_known() if is_known else self._turns.of_stranger(client):
            self._check()  # it may have gone down meanwhile
            probe = self._circuit.begins()
            try:
                answer = await call(token.text, instance_id)
            except (TokenRejected, InstanceNotFound):
                self._worked()
                raise
            except (VisaUnreachable, VisaTimeout) as error:
                self._failed(error, next(self._numbers), probe=probe)
                raise
            except VisaInvalid as error:
                # To a token that nobody knows it says nothing about the API: whoever finds one that it chokes
                # on could shut it for all.
                if is_known:
                    self._failed(error, (token.digest, instance_id), probe=probe)
                else:
                    self._circuit.said_nothing(self._now(), probe=probe)
                raise
            except BaseException:  # cancelled: another one may be the probe
                self._circuit.broken_off(probe=probe)
                raise
            self._worked()
            return answer

    def _check(self) -> None:
        if not self.may_begin:
            raise VisaUnreachable("the VISA API is down, and was not asked")

    def _worked(self) -> None:
        if self._circuit.is_open:
            logs.get().notice("the VISA API answers again")
        self._circuit.worked()

    def _failed(self, error: ProxyError, what: int | Key, *, probe: bool) -> None:
        was_open = self._circuit.is_open
        self._circuit.failed(what, self._now(), probe=probe)
        if self._circuit.is_open and not was_open:
            logs.get().error("the VISA API is down", reason=error.error, detail=str(error))
