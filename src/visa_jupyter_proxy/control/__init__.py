"""Control: the one process that starts and watches the workers, and owns what must not be lost.

- `control` is the life of the process: it has the workers start, serve and drain. `parts` makes all that it
  owns and ties it together; what the workers say of tunnels goes to `notebooks`.
- `supervisor` keeps a worker (`workers`) in every place; `spawner` starts them.
- `listener` says where the listening socket comes from. Another process can ask for it, and for a reload:
  `control_socket` answers, `caller` asks.
- `notebooks` turns connections into notebook sessions. It asks nobody and waits for nothing when a
  tunnel opens or ends: that becomes a record in memory, and one task does the rest.
- `ledger` knows which connections carry sessions here, those that linger included; `journal` knows it
  for every process that ever wrote to the store, and has the last word on whether a session is open.
- `writer` is the only one here who writes the journal. While it cannot, records wait; the ledger's word
  counts if nobody else can carry our sessions.
- `reporting` makes reports of what the journal says is due, `outbox` knows their order, and `reports`
  tells the VISA API: sessions at the same time, each in order, again and again until it is confirmed, as
  hard as `circuit` allows. `tokens` has the newest of each user for that.
- `vigil` asks the API about those who have live tunnels, and has these ended when they must be.
- `admin` is the listener for operators: health, metrics, API and board.
- `upkeep` prunes the journal, and takes over what 3.5 has left (`original`).
- `owners` notices that another process is dead: its heartbeat stands still. Then its connections are
  ended, once, and its reports are taken over (`neighbours`).

Decisions (`ledger`, `owners`, `outbox`, `circuit`, `tokens`, `alarm`, `journal.backlog`) are plain code
with no loop, no socket and no clock of their own; what touches the world (`journal.store`, `reports`,
`writer`) is thin. Imports point down in this order: control, parts, notebooks, reporting, reports, journal.
"""
