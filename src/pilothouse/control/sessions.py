"""Sessions: a browser that has shown an API key once stays signed in for a while, by a cookie that is signed.

A session reads `<key id>.<expires>.<nonce>.<signature>`. It is signed with the hash of its key's secret and the setting
`session_secret`, so nothing is stored, every API process can tell a session, and one ends with its key.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from pilothouse.control import keys
from pilothouse.control.keys import KeyHolder
from pilothouse.store.database import Database, Row

PARTS = 4


@dataclass(frozen=True, slots=True)
class Sessions:
    """Opens sessions and tells whose they are. `secret` is the setting; `lifetime_us` in microseconds."""

    db: Database
    secret: str | None
    lifetime_us: int

    async def open(self, key_text: str) -> str | None:
        """The text of a new session for who shows this key; None where the key opens nothing."""
        if await keys.authenticate(self.db, key_text) is None:
            return None
        key_id = key_text.split("_")[1]
        row = await self._key(key_id)
        if row is None:
            return None
        facts = f"{key_id}.{row['now'] + self.lifetime_us}.{secrets.token_hex(8)}"
        return f"{facts}.{self._sign(facts, row)}"

    async def holder(self, text: str) -> KeyHolder | None:
        """Who is signed in by this session; None where it is forged or over, or its key is."""
        facts, _, signature = text.rpartition(".")
        key_id, _, rest = facts.partition(".")
        if text.count(".") != PARTS - 1 or not key_id.isalnum() or not text.isascii():
            return None
        row = await self._key(key_id)
        if row is None or not hmac.compare_digest(self._sign(facts, row), signature):
            return None
        expires_at = int(rest.partition(".")[0])
        return keys.holder_of(row) if row["now"] < expires_at else None

    async def _key(self, key_id: str) -> Row | None:
        return await self.db.read(lambda tx: tx.fetch_one("key_by_id", id=key_id))

    def _sign(self, facts: str, row: Row) -> str:
        secret = hashlib.sha256(f"{row['secret_hash']}\n{self.secret or ''}".encode()).digest()
        return hmac.new(secret, facts.encode(), hashlib.sha256).hexdigest()
