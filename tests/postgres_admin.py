"""Makes databases on a PostgreSQL server, and drops them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import psycopg


@dataclass(frozen=True, slots=True)
class PostgresAdmin:
    """One connection to a server, for the whole test run."""

    connection: psycopg.Connection
    url: str

    @classmethod
    @contextmanager
    def connected(cls, url: str) -> Iterator[Self]:
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            yield cls(connection, url)

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """The URL of a new copy of the template. Its files are copied: on a server without fsync that is quickest."""
        from psycopg.sql import SQL, Identifier

        name = f"test_{uuid.uuid4().hex}"
        create = SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        self.connection.execute(create.format(Identifier(name), Identifier(template)))
        yield urlsplit(self.url)._replace(path=f"/{name}").geturl()
        self.connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))
