"""What the ledger makes of what workers say."""

import pytest

from support.costs import instructions
from visa_jupyter_proxy.control.journal.records import Ended, Progressed
from visa_jupyter_proxy.control.ledger import Ledger
from visa_jupyter_proxy.mailbox import NotebookKey, Traffic, TunnelEnded, TunnelOpened, TunnelProgressed

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
    traffic = Traffic(bytes_up=1, bytes_down=1, first_interaction_at=first, last_interaction_at=last)
    progressed = ledger.progressed(1, TunnelProgressed(1, traffic))
    assert isinstance(progressed, Progressed)
    assert progressed.traffic is not None
    begin = None if first is None else max(first, 100.0)
    assert begin == progressed.traffic.first_interaction_at
    ended = ledger.ended(1, TunnelEnded(1, "x", 101.0, traffic), 1.0)
    assert isinstance(ended, Ended)
    assert ended.traffic is not None
    assert expected == (ended.traffic.first_interaction_at, ended.traffic.last_interaction_at)


def test_a_session_of_thousands_of_connections_ends_in_any_order() -> None:
    """The end of one costs what it always costs, whether it was opened first or last."""

    def cost(connections: int) -> int:
        """Count what ending the newest of so many connections of one session takes."""
        ledger = Ledger()
        for number in range(connections):
            ledger.opened(1, TunnelOpened(tunnel=number, notebook=_KEY, user="anna", token="t", at=100.0))
        return instructions(
            lambda: ledger.ended(1, TunnelEnded(connections - 1, "x", 101.0, Traffic(1, 1)), 1.0)
        )

    assert cost(2) == cost(2000)
