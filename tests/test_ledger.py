"""What the ledger makes of what workers say."""

import pytest

from visa_jupyter_proxy.control.journal.records import Ended, Progressed
from visa_jupyter_proxy.control.ledger import Ledger
from visa_jupyter_proxy.mailbox import NotebookKey, TunnelEnded, TunnelOpened, TunnelProgressed

_KEY = NotebookKey(7, "kernel", "session")


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (100.001, 100.5, (100.001, 100.5)),
        (99.998, 99.999, (100.0, 100.0)),
        (100.2, 101.001, (100.2, 101.0)),
        (None, None, (None, None)),
    ],
)
def test_interaction_is_while_a_connection_is_there(
    first: float | None, last: float | None, expected: tuple[float | None, float | None]
) -> None:
    """Two clocks differ by milliseconds: nobody does anything before the begin, or behind the end."""
    ledger = Ledger()
    ledger.opened(1, TunnelOpened(tunnel=1, notebook=_KEY, user="anna", token="t", at=100.0))
    known = {"tunnel": 1, "bytes_up": 1, "bytes_down": 1, "first_interacted_at": first, "interacted_at": last}
    progressed = ledger.progressed(1, TunnelProgressed(**known))  # type: ignore[arg-type]  # one dictionary for two messages
    assert isinstance(progressed, Progressed)
    begin = None if first is None else max(first, 100.0)
    assert begin == progressed.first_interaction_at
    ended = ledger.ended(1, TunnelEnded(**known, reason="x", at=101.0), 1.0)  # type: ignore[arg-type]  # likewise
    assert isinstance(ended, Ended)
    assert expected == (ended.first_interaction_at, ended.last_interaction_at)
