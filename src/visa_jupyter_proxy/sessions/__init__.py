"""The commands `visa-jupyter-proxy sessions ...`: what the journal knows, for operators.

- `commands`: the commands and their options.
- `answers`: what each does, on an open journal.
- `times`: moments and days, as people write them; `layouts`: rows as a table, JSON or CSV.

All of it may run beside a proxy that writes to the same journal.
"""

from visa_jupyter_proxy.sessions.commands import app

__all__ = ["app"]
