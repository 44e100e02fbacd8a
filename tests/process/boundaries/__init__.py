"""Lives of a journal that are cut short at the calls that change its file."""
