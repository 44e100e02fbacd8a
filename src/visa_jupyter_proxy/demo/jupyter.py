"""An instance of the demo: a JupyterLab as VISA's machines run it (contract section 4), on this one."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from visa_jupyter_proxy.demo.parts import Part

_DEBUG: Final = 10

_NOTEBOOKS: Final = {
    "Welcome.ipynb": {
        "cells": [
            {
                "cell_type": "markdown",
                "id": "welcome",
                "metadata": {},
                "source": "# Behind the proxy\nRun the cell below, open a terminal, upload a file: "
                "all of it passes through `visa-jupyter-proxy`.",
            },
            {
                "cell_type": "code",
                "id": "code",
                "metadata": {},
                "execution_count": None,
                "outputs": [],
                "source": "print(6*7)",
            },
        ],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
}

# Otherwise JupyterLab asks every new user whether it may ask the internet for news.
_USER_SETTINGS: Final = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {
        "checkForUpdates": False,
        "fetchNews": "false",
    }
}


def jupyterlab(instance_id: int, host: str, port: int, *, home: Path, log: Path, log_requests: bool) -> Part:
    """Return the JupyterLab of an instance, not yet started.

    Its home, settings and notebooks are in `home`, which is made; nothing of the user's own is read
    or written. It logs every request that it gets only with `log_requests`.
    """
    settings = home / ".jupyter"
    notebooks = home / "notebooks"
    settings.mkdir(parents=True)
    notebooks.mkdir()
    for name, content in _NOTEBOOKS.items():
        (notebooks / name).write_text(json.dumps(content))
    for name, content in _USER_SETTINGS.items():
        file = settings / "lab/user-settings" / name
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(content))
    config = settings / "jupyter_server_config.json"
    config.write_text(
        json.dumps(_config(instance_id, host, port, notebooks, log_requests=log_requests), indent=2)
    )
    argv = [sys.executable, "-m", "jupyterlab", f"--config={config}"]
    return Part(f"JupyterLab of instance {instance_id}", argv, cwd=notebooks, env=_environment(home), log=log)


def _config(instance_id: int, host: str, port: int, notebooks: Path, *, log_requests: bool) -> object:
    return {
        "ServerApp": {
            "ip": host,
            "port": port,
            "port_retries": 0,
            "base_url": f"/jupyter/{instance_id}",
            "allow_origin": "*",
            "trust_xheaders": True,
            "root_dir": str(notebooks),
            "open_browser": False,
            "allow_root": True,
            # Below that level an answer without an error is not logged.
            **({"log_level": _DEBUG} if log_requests else {}),
        },
        "IdentityProvider": {"token": ""},
        "LabApp": {"check_for_updates_class": "jupyterlab.handlers.announcements.NeverCheckForUpdate"},
    }


def _environment(home: Path) -> Mapping[str, str]:
    foreign = ("JUPYTER", "IPYTHON", "JPY_", "XDG_", "PYTHONSTARTUP", "VISA_JUPYTER_PROXY_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {
        "HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(home / ".jupyter"),
        "JUPYTER_DATA_DIR": str(home / ".local/share/jupyter"),
        "JUPYTER_RUNTIME_DIR": str(home / ".local/share/jupyter/runtime"),
        "IPYTHONDIR": str(home / ".ipython"),
        "JUPYTER_PREFER_ENV_PATH": "1",
    }
