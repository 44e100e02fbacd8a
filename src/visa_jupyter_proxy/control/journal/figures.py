"""What a session's connections come to, taken together. Plain code.

It is kept up with every change of one of them: to add all of them up again would take the longer, the
more often a browser has come back.
"""

from typing import Any, Final

from visa_jupyter_proxy.control.journal.schema import COUNTS, FIGURES

type Row = dict[str, Any]

SUMS: Final = ("connections", *FIGURES)
"""The columns of a session that are kept so."""

NOTHING: Final[Row] = dict.fromkeys(FIGURES)
"""What is known at the beginning."""


def join(session: Row) -> None:
    """Count one more connection of a session."""
    session["connections"] = (session["connections"] or 0) + 1


def tell(session: Row, before: Row, now: Row) -> None:
    """Change a session's figures as those of a connection have changed; what is None now is as before.

    `before` is brought up to date, too.
    """
    for name in FIGURES:
        value = now[name]
        if value is None:
            continue
        known = session[name]
        if name in COUNTS:
            session[name] = (known or 0) + value - (before[name] or 0)
        elif known is None:
            session[name] = value
        else:
            session[name] = min(known, value) if name == "first_interaction_at" else max(known, value)
        before[name] = value
