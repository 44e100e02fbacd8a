"""docs/behaviour.md tells the truth where that can be looked up."""

import re
from pathlib import Path

from support.cases import LATER, TOPICS
from visa_jupyter_proxy import errors
from visa_jupyter_proxy.errors import ClientGone, ProxyError

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
