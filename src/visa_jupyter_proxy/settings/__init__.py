"""What the operator sets, read and checked at the start, and at a reload.

- `settings` has every setting with its default and meaning.
- `loading` makes them of what was set, or says all that is wrong with it.
- `reloading` says which of them a reload changes.
- `variables` collects what was set: the environment, `.env`, files.
- `parsing` turns the text of a variable into a value, or says what is allowed; `databases` does so for the
  URL of one, and `cpus` counts them for `WORKERS=auto`.

Only `cli` and `control` import this: a worker gets plain values.
"""

from visa_jupyter_proxy.routes import ConfigurationError
from visa_jupyter_proxy.settings.loading import load
from visa_jupyter_proxy.settings.reloading import RELOADABLE, Reloaded, reloaded
from visa_jupyter_proxy.settings.settings import FIELDS, PREFIX, Settings

__all__ = [
    "FIELDS",
    "PREFIX",
    "RELOADABLE",
    "ConfigurationError",
    "Reloaded",
    "Settings",
    "load",
    "reloaded",
]
