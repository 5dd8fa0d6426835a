"""Let the hub commit to its database without waiting for the disk.

A login makes about eight commits, and no other request is served meanwhile.
"""

from sqlalchemy import event
from sqlalchemy.engine import Engine


def use_write_ahead_log():
    """Open SQLite databases of this process with a write-ahead log, which commits don't sync.

    After a power failure, the database is intact, and its last commits can be missing: somebody
    may have to log in again. See https://sqlite.org/pragma.html#pragma_synchronous
    """
    event.listen(Engine, "connect", _set_pragmas)


def _set_pragmas(connection, _):
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
