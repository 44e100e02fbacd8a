"""structlog, without rich.

structlog imports rich where it is installed, and the commands (typer) bring it along; it would only be
used for tracebacks, which are made in `lines`. It costs every worker 3 MB and 200 ms at its start.
"""

import sys

if "rich" in sys.modules:
    import structlog
else:
    sys.modules["rich"] = None  # type: ignore[assignment]  # what makes an import fail at once
    try:
        import structlog
    finally:
        del sys.modules["rich"]

__all__ = ["structlog"]
