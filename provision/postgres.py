"""A question to a PostgreSQL server over its unix socket.

`psql` would do as well, but under emulation it takes longer to start than everything else that is looked at; psycopg is
in the hosts' Python anyway, for the shop.
"""

from __future__ import annotations

import math
from pathlib import Path

from underlay.errors import NotReady, Problem


def ask(sockets: Path, port: int, statement: str, *, user: str, database: str, timeout: float, where: str) -> str:
    """Return the first value of the first row that a statement gives; "" if there is none, or it is NULL.

    ``sockets`` is the directory of the server's socket, which lets ``user`` in without a password; ``timeout`` is in
    seconds, for the connection and for the statement. Raises NotReady with what the server said, or why it did not.
    """
    import psycopg  # slow to load, and needed only where there is a database

    milliseconds = round(timeout * 1000)
    try:
        with psycopg.connect(
            host=str(sockets),
            port=port,
            user=user,
            dbname=database,
            connect_timeout=math.ceil(timeout),
            options=f"-c statement_timeout={milliseconds}",
            autocommit=True,
        ) as connection:
            cursor = connection.execute(statement.encode())
            row = cursor.fetchone() if cursor.description else None
    except psycopg.Error as error:
        hint = f"is PostgreSQL running? Its socket is in {sockets}"
        raise NotReady(Problem(where, f"PostgreSQL does not answer: {str(error).strip()}", hint)) from error
    return "" if not row or row[0] is None else str(row[0])
