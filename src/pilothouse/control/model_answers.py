"""Model answers that are kept: the same question of the same tenant need not be paid twice while they last."""

from __future__ import annotations

from pilothouse.store.database import Database, Transaction


class ModelAnswers:
    """The kept answers. A question is a hash of everything that the answer depends on."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def find(self, tenant: str, question: str) -> str | None:
        row = await self._db.read(lambda tx: tx.fetch_one("model_answer", tenant=tenant, question=question))
        return None if row is None else str(row["answer"])

    async def keep(self, tenant: str, question: str, answer: str, *, seconds: float) -> None:
        lasts_us = int(seconds * 1_000_000)
        await self._db.transaction(
            lambda tx: tx.execute(
                "keep_model_answer", tenant=tenant, question=question, answer=answer, lasts_us=lasts_us
            )
        )


def prune(tx: Transaction) -> int:
    """Takes out the answers whose time is over."""
    return tx.execute("delete_stale_answers")
