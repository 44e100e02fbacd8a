"""Control: the one process that starts and watches the workers, and owns what must not be lost.

- `control` starts and watches the workers; what they say of tunnels goes to `notebooks`.
- `notebooks` turns connections into notebook sessions. It asks nobody and waits for nothing when a
  tunnel opens or ends: that becomes a record in memory, and one task does the rest.
- `ledger` knows which connections are open here; `journal` knows it for every process that ever wrote
  to the store, and has the last word on whether a session is open. While the store cannot be written,
  the ledger's word counts, and the records wait.
- `reports` tells the VISA API: in order for each session, across sessions at the same time, again and
  again until it is confirmed. A report exists in the journal before it is sent.
- `owners` notices that another process is dead: its heartbeat stands still. Then its connections are
  ended, once, and its reports are taken over.

Decisions (`ledger`, `owners`, `reports.Outbox`, `journal.backlog`) are plain code with no loop, no
socket and no clock of their own; what touches the world (`journal.store`, `reports.Delivery`,
`notebooks`) is thin. Imports point down in this order: control, notebooks, reports, journal.
"""
