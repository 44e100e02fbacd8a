"""What can be wrong when the journal is asked for something."""


class JournalError(Exception):
    """The journal has not done what it was asked; nothing of the transaction has been kept."""


class JournalUnavailable(JournalError):
    """The store cannot be used now. Try again later."""


class RecordRefused(JournalError):
    """One of the records can never be written, whatever the state of the store; none of them was."""


class OwnerGone(JournalError):
    """The journal does not count this owner among the living; nothing was written.

    `declared_dead`: another process has ended its connections and taken its reports over. Otherwise
    the owner is not there at all: it is new, or the database is.
    """

    def __init__(self, *, declared_dead: bool) -> None:
        super().__init__("declared dead" if declared_dead else "not in the journal")
        self.declared_dead = declared_dead


class StorageRefused(Exception):
    """The journal must not be kept there; the text says where else."""
