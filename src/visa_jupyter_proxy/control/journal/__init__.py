"""The journal: the durable record of owners, notebook sessions, their connections and their reports.

- `records`: what is written, and what the store says about it.
- `backlog`: the records that wait to be written, bounded.
- `store`: `Journal`, all that can be asked of it, on one of two engines: `postgres`, and `sqlite` with
  `filesystems` (where its file may be), `damage` and `salvage` (what becomes of a broken one, and of what is
  in it). Both translate foreign errors into those of `errors`.
- `changes` and `figures`: what records change, in plain code; `writing`, `takeover` and `ends` are the
  statements.
- `acceptances`: what nodes tell each other of tokens that were accepted.
- `under_way`: what goes on at the moment; `endings`: orders to end it, from one node to another.
- `reading`: questions for reports; `upkeep`: what is taken out again; `backup`: a copy of the file;
  `inheritance`: what the original has left.
- `schema`: the tables; `migrations` makes them, and only ever adds.
"""

from visa_jupyter_proxy.control.journal.store import Journal

__all__ = ["Journal"]
