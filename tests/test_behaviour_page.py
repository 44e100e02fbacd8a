"""docs/behaviour.md tells the truth where that can be looked up."""

import inspect
import re
from pathlib import Path

from support.cases import LATER, TOPICS
from visa_jupyter_proxy import errors
from visa_jupyter_proxy.errors import ClientGone, ProxyError
from visa_jupyter_proxy.worker.accounting import records

PAGE = (Path(__file__).parent.parent / "docs" / "behaviour.md").read_text()


def test_every_error_is_in_the_table() -> None:
    """With its status, and no other; the one that is never sent is not."""
    rows = re.findall(r"^\| (\d{3}) \| (.*) \|$", PAGE, re.MULTILINE)
    written = {(int(status), name) for status, names in rows for name in re.findall(r"`(\w+)`", names)}
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ProxyError)
    ]
    raised = {(kind.status, kind.error) for kind in kinds if kind not in (ProxyError, ClientGone)}
    assert raised == written


def test_the_cases_exist() -> None:
    """Every number in brackets is a case, and none of what is not built."""
    numbers = {int(n) for group in re.findall(r"\[([\d, ]+)\]", PAGE) for n in group.split(",")}
    known = {number for cases in TOPICS.values() for number in cases}
    assert set() == numbers - known
    assert set() == numbers & set(LATER)


def test_the_fields_of_the_log() -> None:
    """All that a line of a request has, besides what every line has, and no other."""
    table = PAGE.partition("\n## The log\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    lines = (inspect.getsource(log) for log in (records.log_exchange, records.log_tunnel))
    written = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert [[re.findall(r"^        (\w+)=", line, re.MULTILINE)] for line in lines] == [[written]] * 2
