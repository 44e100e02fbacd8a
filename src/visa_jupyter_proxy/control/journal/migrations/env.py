"""What alembic runs for a migration: on the connection it is given, in that connection's transaction."""

from alembic import context

from visa_jupyter_proxy.control.journal.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
