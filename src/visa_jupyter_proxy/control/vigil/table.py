"""What follows for a user's access to an instance from what is heard of it: a table, and nothing else.

Rows are how things stand, columns what happens. Everything that is firm is asked twice; what may be
transient ends nothing before its grace is over; silence ends nothing at all.
"""

from enum import Enum
from typing import Final


class Standing(Enum):
    """How a user's access to an instance stands."""

    GOOD = "good"
    """Nothing speaks against it."""
    DENIED = "denied"
    """The API has said once that it is not theirs."""
    GOING = "going"
    """The API has said once that the instance is stopped or deleted."""
    DOUBTED = "doubted"
    """The API refuses their newest token: transient perhaps, or they have signed out."""


class Heard(Enum):
    """What happens. The first five are answers of the API to the user's newest token."""

    OWNER = "owner"
    """They own it, and it is neither stopped nor deleted."""
    NOT_OWNER = "not owner"
    """404 or 403, or a role that is not OWNER."""
    GOING = "going"
    """They own it, and it is DELETED, DELETING or STOPPED."""
    TOKEN_REFUSED = "token refused"  # noqa: S105 -- no secret
    """401."""
    NOTHING = "nothing"
    """No answer, or none that says anything: a 5xx, nonsense."""
    TOKEN_ACCEPTED = "token accepted"  # noqa: S105 -- likewise
    """The API has accepted a token of theirs on this node, for another instance."""
    ACCEPTED_ELSEWHERE = "accepted elsewhere"
    """It has accepted one for this instance, on another node."""
    GRACE_OVER = "grace over"
    """Since a token was refused, none was accepted for `ACCESS_GRACE_S`, on any node."""


class Step(Enum):
    """What to do."""

    REST = "rest"
    """Ask again in a period."""
    CONFIRM = "confirm"
    """Ask again soon."""
    WAIT = "wait"
    """Ask again when it was to be asked anyway."""
    REVOKE = "revoke"
    """End the user's tunnels to the instance with 1008, and forget the grants; ask again in a period."""
    LEAVE = "leave"
    """The same with 1001."""


class Grace(Enum):
    """What becomes of the time for which a user may stay without a token that is accepted."""

    BEGINS = "begins"
    """Unless it runs already."""
    BEGINS_ANEW = "begins anew"
    """If it runs."""
    GOES_ON = "goes on"
    ENDS = "ends"


type Row = dict[Heard, tuple[Standing, Step]]

TABLE: Final[dict[Standing, Row]] = {
    Standing.GOOD: {
        Heard.OWNER: (Standing.GOOD, Step.REST),
        Heard.NOT_OWNER: (Standing.DENIED, Step.CONFIRM),
        Heard.GOING: (Standing.GOING, Step.CONFIRM),
        Heard.TOKEN_REFUSED: (Standing.DOUBTED, Step.REST),
        Heard.NOTHING: (Standing.GOOD, Step.REST),
        Heard.TOKEN_ACCEPTED: (Standing.GOOD, Step.WAIT),
        Heard.ACCEPTED_ELSEWHERE: (Standing.GOOD, Step.WAIT),
        Heard.GRACE_OVER: (Standing.GOOD, Step.WAIT),  # there is no grace while nothing is refused
    },
    Standing.DENIED: {
        Heard.OWNER: (Standing.GOOD, Step.REST),
        Heard.NOT_OWNER: (Standing.GOOD, Step.REVOKE),
        Heard.GOING: (Standing.GOING, Step.CONFIRM),
        Heard.TOKEN_REFUSED: (Standing.DENIED, Step.REST),
        Heard.NOTHING: (Standing.DENIED, Step.CONFIRM),
        Heard.TOKEN_ACCEPTED: (Standing.DENIED, Step.CONFIRM),
        Heard.ACCEPTED_ELSEWHERE: (Standing.DENIED, Step.WAIT),
        Heard.GRACE_OVER: (Standing.GOOD, Step.REVOKE),
    },
    Standing.GOING: {
        Heard.OWNER: (Standing.GOOD, Step.REST),
        Heard.NOT_OWNER: (Standing.DENIED, Step.CONFIRM),
        Heard.GOING: (Standing.GOOD, Step.LEAVE),
        Heard.TOKEN_REFUSED: (Standing.GOING, Step.REST),
        Heard.NOTHING: (Standing.GOING, Step.CONFIRM),
        Heard.TOKEN_ACCEPTED: (Standing.GOING, Step.CONFIRM),
        Heard.ACCEPTED_ELSEWHERE: (Standing.GOING, Step.WAIT),
        Heard.GRACE_OVER: (Standing.GOOD, Step.REVOKE),
    },
    Standing.DOUBTED: {
        Heard.OWNER: (Standing.GOOD, Step.REST),
        Heard.NOT_OWNER: (Standing.DENIED, Step.CONFIRM),
        Heard.GOING: (Standing.GOING, Step.CONFIRM),
        Heard.TOKEN_REFUSED: (Standing.DOUBTED, Step.REST),
        Heard.NOTHING: (Standing.DOUBTED, Step.REST),
        Heard.TOKEN_ACCEPTED: (Standing.GOOD, Step.CONFIRM),
        Heard.ACCEPTED_ELSEWHERE: (Standing.DOUBTED, Step.WAIT),
        Heard.GRACE_OVER: (Standing.GOOD, Step.REVOKE),
    },
}

GRACE: Final[dict[Heard, Grace]] = {
    Heard.OWNER: Grace.ENDS,
    Heard.NOT_OWNER: Grace.ENDS,  # the token was accepted
    Heard.GOING: Grace.ENDS,
    Heard.TOKEN_REFUSED: Grace.BEGINS,
    Heard.NOTHING: Grace.GOES_ON,
    Heard.TOKEN_ACCEPTED: Grace.ENDS,
    Heard.ACCEPTED_ELSEWHERE: Grace.BEGINS_ANEW,
    Heard.GRACE_OVER: Grace.ENDS,
}
"""What becomes of the grace, whatever the standing."""
