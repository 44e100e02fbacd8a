"""Brings the journal's schema up to date, with alembic, inside the caller's transaction.

Migrations only add, so that the version before this one works on the schema of this one, and an
upgrade can be undone by going back to the old program.
"""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

_HERE: Final = Path(__file__).parent


def migrate(connection: Connection) -> None:
    """Make or complete the tables; a schema newer than this program is left as it is."""
    config = Config()
    # The option is read by configparser, to which a percent sign means something.
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    config.attributes["connection"] = connection
    script = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in script.walk_revisions()}
    current = MigrationContext.configure(connection).get_current_revision()
    if current is None or (current in known and current != script.get_current_head()):
        command.upgrade(config, "head")
