"""The journal: the durable record of owners, notebook sessions, their connections and their reports.

- `schema`: the tables; `migrations` makes them, and only ever adds.
- `records`: what is written, and what the store says about it.
- `backlog`: the records that wait to be written, bounded.
- `store`: `Journal`, the only place that speaks to the database.
"""

from visa_jupyter_proxy.control.journal.store import Journal

__all__ = ["Journal"]
