"""API keys: made once, shown once, kept as a hash, revoked for good.

A key reads `ph_<id>_<secret>`. The secret has 256 random bits, so one SHA-256 keeps it: a slow hash defends short
passwords, here it would only make every request slow.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from pilothouse.control import audit
from pilothouse.domain.keys import KeyRole
from pilothouse.errors import Conflict, FieldError, InvalidInput, NotFound
from pilothouse.store.database import Database, Row, Transaction

PREFIX = "ph"
USE_SPACING_US = 60_000_000
"""A key's last use is written at most this often, in microseconds."""

MAX_NAME_LENGTH = 100


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Who shows a key. `tenant` None: all tenants."""

    key_id: str
    name: str
    role: KeyRole
    tenant: str | None

    @property
    def principal(self) -> str:
        return f"key:{self.name}"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made; its `text` is shown now and never again."""

    id: str
    text: str


async def create_key(
    db: Database, name: str, role: KeyRole, *, tenant: str | None, expires_at: int | None, principal: str
) -> NewKey:
    """Makes a key. `expires_at` is an instant in microseconds, None for never. Raises InvalidInput."""
    if not name.strip() or len(name) > MAX_NAME_LENGTH:
        told = f"name: a key's name has 1 to {MAX_NAME_LENGTH} characters, so that the audit can tell who acted"
        raise InvalidInput(told, [FieldError("name", told)])
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)

    def work(tx: Transaction) -> None:
        tx.execute(
            "insert_key",
            id=key_id,
            name=name,
            role=role,
            tenant=tenant,
            secret_hash=_hash(secret),
            created_by=principal,
            expires_at=expires_at,
        )
        facts = f"{role}{'' if tenant is None else f' of tenant {tenant}'}, named {name}"
        _record(tx, "key.created", key_id, tenant, principal=principal, reason=facts)

    await db.transaction(work)
    return NewKey(key_id, f"{PREFIX}_{key_id}_{secret}")


async def list_keys(db: Database) -> list[Row]:
    """All keys, without their hashes."""
    return await db.read(lambda tx: tx.fetch_all("list_keys"))


async def revoke_key(db: Database, key_id: str, *, principal: str) -> None:
    """From now on the key opens nothing. Raises NotFound, Conflict where it was revoked before."""

    def work(tx: Transaction) -> None:
        key = tx.fetch_one("key_by_id", id=key_id)
        if key is None:
            raise NotFound(f"there is no key {key_id}; `pilothouse keys list` shows them")
        if tx.fetch_one("revoke_key", id=key_id) is None:
            raise Conflict(f"key {key_id} was revoked before")
        _record(tx, "key.revoked", key_id, key["tenant"], principal=principal)

    await db.transaction(work)


def _record(
    tx: Transaction, action: str, key_id: str, tenant: str | None, *, principal: str, reason: str | None = None
) -> None:
    tenant = audit.PLATFORM if tenant is None else tenant
    audit.record(tx, [audit.entry(action, "key", key_id, principal=principal, tenant=tenant, reason=reason)])


async def authenticate(db: Database, text: str) -> KeyHolder | None:
    """Who shows this key; None where it is no key, or one that was revoked or has expired."""
    prefix, _, rest = text.partition("_")
    key_id, _, secret = rest.partition("_")
    if prefix != PREFIX or not secret or not key_id.isalnum():
        return None
    row = await db.read(lambda tx: tx.fetch_one("key_by_id", id=key_id))
    if row is None or not hmac.compare_digest(row["secret_hash"], _hash(secret)):
        return None
    return holder_of(row)


def holder_of(row: Row) -> KeyHolder | None:
    """Whose key a row is; None where it opens nothing any more."""
    if standing(row) != "active":
        return None
    return KeyHolder(row["id"], row["name"], KeyRole(row["role"]), row["tenant"])


async def are_needed(db: Database) -> bool:
    """Whether there is any key that opens something; from then on every request must show one."""
    return await db.read(lambda tx: tx.fetch_one("active_key")) is not None


async def note_use(db: Database, key_id: str) -> None:
    await db.transaction(lambda tx: tx.execute("note_key_use", id=key_id, spacing_us=USE_SPACING_US))


def standing(row: Row) -> str:
    """How a key stands: active, expired or revoked."""
    if row["revoked_at"] is not None:
        return "revoked"
    return "expired" if row["expires_at"] is not None and row["expires_at"] <= row["now"] else "active"


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
