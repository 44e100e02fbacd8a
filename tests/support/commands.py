"""The commands, run in this process as an operator would in a directory of theirs.

site = Site(tmp_path)                       # a working directory
site.routes([...]); site.settings(API_URL=...)
answer = site.run("explain", "/jupyter/7/lab")
answer.exit_code, answer.stdout, answer.stderr
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from typer.testing import CliRunner, Result

from support.log import log_kept
from visa_jupyter_proxy.cli import app

PREFIX: Final = "VISA_JUPYTER_PROXY_"


class Site:
    """A working directory with its `.env` and `proxy.conf.json`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._settings = {"STORAGE_DIR": str(directory / "data"), "SERVER_PORT": "0"}

    def settings(self, **settings: str) -> None:
        """Set these, besides what is set."""
        self._settings |= settings

    def routes(self, routes: Sequence[Mapping[str, Any]] | str) -> None:
        """Write `proxy.conf.json`."""
        text = routes if isinstance(routes, str) else json.dumps(routes, indent=1)
        (self.directory / "proxy.conf.json").write_text(text)

    def run(self, *arguments: str, stdin: str | None = None) -> Result:
        """Run a command; its exit status and what it printed."""
        others: dict[str, str | None] = {name: None for name in os.environ if name.startswith(PREFIX)}
        ours: dict[str, str | None] = {PREFIX + name: value for name, value in self._settings.items()}
        before = Path.cwd()
        os.chdir(self.directory)
        try:
            with log_kept():
                return CliRunner().invoke(app, arguments, input=stdin, env=others | ours)
        finally:
            os.chdir(before)
