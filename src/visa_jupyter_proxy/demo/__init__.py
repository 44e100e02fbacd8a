"""All of VISA that is needed to see the proxy work, on one machine, in one command.

- `accounts` has two users and signs their tokens.
- `visa` stands in for the VISA API server, faithful to what the proxy knows of it.
- `pages` stands in for VISA Web: sign in, see the instances and the recorded notebook sessions.
- `jupyter` is what an "instance" is here: a JupyterLab on a loopback address of its own.
- `parts` starts programs, waits until they answer, and ends them and all that they started.
- `demo` puts these together, with the proxy in front.
"""

from visa_jupyter_proxy.demo.demo import run

__all__ = ["run"]
