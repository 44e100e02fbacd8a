"""The commands `check`, `routes` and `explain`: what a configuration means, without serving it.

- `commands`: the commands and their options.
- `checking`: what has to be there for the proxy to serve: settings, routes, VISA, its clock, the journal. It
  makes `findings`; `patterns` is what can be said of a service's `match` without a request.
- `explaining`: what becomes of one request, and why; `advice` is what to change where it is refused, and
  `order` whether it is the order of the services.
- `rehearsal`: that request on its way through a worker's own parts, so that no explanation can differ
  from what a worker does.
- `telling`: all of it in words, and a sign of life when something takes long.
"""

from visa_jupyter_proxy.diagnosis.commands import check, explain, routes

__all__ = ["check", "explain", "routes"]
