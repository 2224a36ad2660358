"""API keys: what each role may do."""

from __future__ import annotations

from enum import StrEnum


class KeyRole(StrEnum):
    """Viewers read; operators also submit, cancel, redrive, signal and pause; admins also make and revoke keys."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


RANKS = {KeyRole.VIEWER: 0, KeyRole.OPERATOR: 1, KeyRole.ADMIN: 2}


def includes(role: KeyRole, needed: KeyRole) -> bool:
    """Whether a key of `role` may do what needs `needed`."""
    return RANKS[role] >= RANKS[needed]
