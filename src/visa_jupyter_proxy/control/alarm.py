"""Which failures of the VISA API are worth a line in the log. Plain code: `now` is a monotonic clock."""

import math
from typing import Final

_QUIET_S: Final = 60.0
"""Between two warnings, when the API fails and works by turns."""


class Alarm:
    """Warns once of an outage, however much fails in it, and of none within a minute of the last warning."""

    def __init__(self) -> None:
        self._is_raised = False
        self._raised_at = -math.inf

    def failed(self, now: float) -> bool:
        """Take note of a failure; say whether to warn of it."""
        if self._is_raised or now - self._raised_at < _QUIET_S:
            return False
        self._is_raised, self._raised_at = True, now
        return True

    def worked(self) -> bool:
        """Take note that all is well; say whether to tell, for there was a warning."""
        was_raised, self._is_raised = self._is_raised, False
        return was_raised
