"""The authenticated reverse proxy of VISA.

- `cli` reads the settings and the routes, and starts **control**.
- **control** binds the socket, starts the **worker**, and owns what must not be lost: the journal of
  notebook sessions and the reports to VISA.
- The **worker** moves bytes. `proxy.forward` is the straight line that every request takes:
  route, token, authorise, connect, forward.
- `error_pages` makes the pages for people who cannot be served, before the start; workers get them ready.
- They talk over the `mailbox`, in small typed messages; a worker never waits for control on the way
  of a request.
- `errors`, `routes`, `logs`, `state`, `circuit`, `visa_api`, `mailbox` and `settings` are the ground floor:
  values and rules that both wings stand on.

Imports point down only; `pyproject.toml` has the contracts.
"""

__version__ = "4.0.0.dev0"
