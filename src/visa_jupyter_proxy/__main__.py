"""`python -m visa_jupyter_proxy` is `visa-jupyter-proxy`."""

from visa_jupyter_proxy.cli import main

main()
