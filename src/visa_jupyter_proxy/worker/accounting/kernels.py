"""Which WebSockets are kernel channels, and of which notebook session (contract section 4).

Read from the target as the instance sees it, the way Jupyter reads it itself: the last `session_id`
of the query counts, percent-decoded. An id that is missing is the empty string; an id is never cut.
"""

import re
from typing import Final
from urllib.parse import parse_qs, unquote

from visa_jupyter_proxy.mailbox import NotebookKey
from visa_jupyter_proxy.routes import Match

_CONTROL: Final = re.compile(r"[\x00-\x08\x0e-\x1f]")
"""What tornado, in which Jupyter is written, makes blanks of in an argument."""

_CHANNELS: Final = re.compile(r"/api/kernels/([^/]+)/channels\Z")


def notebook_key(match: Match) -> NotebookKey | None:
    """Return the notebook session that a WebSocket to `match` belongs to, or None."""
    if match.route.type != "jupyter":
        return None
    path, _, query = match.target.decode("ascii").partition("?")
    channels = _CHANNELS.search(path)
    if channels is None:
        return None
    values = parse_qs(query, keep_blank_values=True, max_num_fields=None).get("session_id", [""])
    return NotebookKey(match.instance_id, unquote(channels[1]), _CONTROL.sub(" ", values[-1]).strip())
