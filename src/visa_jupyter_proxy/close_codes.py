"""What our close frames tell a browser (RFC 6455 7.4; names as in IANA's registry of 11.7)."""

from typing import Final

GOING_AWAY: Final = 1001
"""What it is connected to goes down."""

POLICY_VIOLATION: Final = 1008
"""Nothing is wrong with what it has sent, and trying again is no help."""

SERVICE_RESTART: Final = 1012
"""It is to come back."""
