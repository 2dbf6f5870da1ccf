"""The lab's SQL. Its functions run in a transaction their caller opened, on the `Connection` it was given."""

from sqlalchemy import Connection

__all__ = ["Connection"]
