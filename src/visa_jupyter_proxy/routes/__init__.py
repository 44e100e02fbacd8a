"""The services of `proxy.conf.json`: which one a target is for, which instance it names, what is sent.

- `route` has the values, checked and plain: they travel to the workers.
- `conf` reads the file and finds all its mistakes, once, before the start.
- `router` finds the route of a request, for every request.
- `javascript` is the language that patterns and replacements are written in.

No loop, no socket, no clock.
"""

from visa_jupyter_proxy.routes.conf import load
from visa_jupyter_proxy.routes.route import PLACEHOLDER, PLACEHOLDERS, ConfigurationError, Rewrite, Route
from visa_jupyter_proxy.routes.router import Match, Router

__all__ = ["PLACEHOLDER", "PLACEHOLDERS", "ConfigurationError", "Match", "Rewrite", "Route", "Router", "load"]
