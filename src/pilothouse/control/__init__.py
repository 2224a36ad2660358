"""The verbs. One verb is one transaction and one audit record; API, CLI, dashboard and engine all use them."""

from pilothouse.store.database import Database as Database
from pilothouse.store.redis import Redis as Redis
