"""What the admin listener looks at: the parts of control, and what can be said of them together."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from visa_jupyter_proxy import metrics
from visa_jupyter_proxy.control.admin.sums import Sums
from visa_jupyter_proxy.control.notebooks import Notebooks
from visa_jupyter_proxy.control.supervisor import Supervisor
from visa_jupyter_proxy.control.vigil import Vigil
from visa_jupyter_proxy.routes import Route
from visa_jupyter_proxy.settings import Settings
from visa_jupyter_proxy.visa_api import VisaApi

_RECENT_S: Final = 60.0
"""For so long the last answer of the VISA API says how it is."""

_UNREACHED: Final = frozenset({"visa_unreachable", "visa_timeout", "visa_invalid"})

type ApiHealth = Literal["unknown", "ok", "failing"]


@dataclass(kw_only=True)
class Seen:
    """The parts of one control process. Nothing here waits."""

    settings: Settings
    routes: tuple[Route, ...]
    sums: Sums
    supervisor: Supervisor
    notebooks: Notebooks
    vigil: Vigil
    api: VisaApi
    is_draining: Callable[[], bool]
    started_at: float = field(default_factory=time.time)
    """Unix time."""
    monotonic: Callable[[], float] = time.monotonic
    _answers: tuple[int, int] = (0, 0)
    _api: ApiHealth = "unknown"
    _api_at: float = 0.0

    def look_at_api(self) -> None:
        """Conclude from the calls since the last look how the VISA API is; to be done once a second."""
        good = bad = 0
        for (metric, labels), seconds in self.sums.seconds.items():
            if metric == metrics.API_SECONDS and labels[1] != "cancelled":
                if labels[1] in _UNREACHED:
                    bad += seconds.count
                else:
                    good += seconds.count
        if (good, bad) != self._answers:
            self._api = "ok" if good > self._answers[0] else "failing"
            self._api_at = self.monotonic()
        self._answers = (good, bad)

    @property
    def api_health(self) -> ApiHealth:
        """How the VISA API answered last; unknown when nobody has asked it for a minute."""
        if self._api == "ok" and self.monotonic() - self._api_at > _RECENT_S:
            return "unknown"
        return self._api
