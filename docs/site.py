"""A hook of mkdocs: decisions are in the navigation by being in their folder."""

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Fill the section `Decisions`."""
    folder = Path(config.docs_dir) / "decisions"
    pages = sorted(f"decisions/{path.name}" for path in folder.glob("*.md"))
    for entry in config.nav:
        if isinstance(entry, dict) and "Decisions" in entry:
            entry["Decisions"] = ["decisions/README.md", *(one for one in pages if "README" not in one)]
    return config
