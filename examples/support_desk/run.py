"""All messages through all three desks, and whether they come to the same: `python run.py`."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from desk import make_app  # noqa: E402 - the folder must be on the path first
from mail_catcher import MailCatcher  # noqa: E402

from pilothouse.config import load_settings  # noqa: E402
from pilothouse.testing import TestPlatform  # noqa: E402

ENDED = ("succeeded", "failed", "cancelled")
PATIENCE_SECONDS = 600
SETTINGS = (
    "routes",
    "offline_model",
    "policies",
    "action_caps",
    "daily_budget_usd",
    "max_run_usd",
    "auto_spend_limit_usd",
)
DESKS = ("desk", "desk-workflow", "desk-framework")


@dataclass
class Result:
    """What one desk did with all messages."""

    kinds: dict[int, str] = field(default_factory=dict)
    replies: dict[int, str] = field(default_factory=dict)
    refunds: set[int] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)
    cost_microusd: int = 0
    model_calls: int = 0
    approvals: int = 0


def read_messages() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / "messages.jsonl").read_text(encoding="utf-8").splitlines()]


async def run_desk(name: str, messages: list[dict[str, Any]], **settings: Any) -> Result:
    """Every message as a run of one agent, on a database, an order book and a mail catcher of its own."""
    catcher, result = MailCatcher(), Result()
    await catcher.start()
    with tempfile.TemporaryDirectory() as folder:
        orders = Path(folder) / "orders.db"
        app = make_app(mail_port=catcher.port, orders=orders)
        async with TestPlatform(app, is_frozen=False, **settings) as platform:
            ids = {}
            for message in messages:  # each customer is another address, so that replies can be told apart
                sender = f"{message['id']}+{message['sender']}"
                ids[message["id"]] = await platform.submit(name, _input(name, sender, message["text"]))
            result.approvals = await _until_ended(platform, list(ids.values()))
            for number, run_id in ids.items():
                _note(result, number, await platform.timeline(run_id))
        with closing(sqlite3.connect(orders)) as connection:
            result.refunds = {row[0] for row in connection.execute("SELECT order_id FROM refunds")}
    for mail in catcher.mails:
        result.replies[int(str(mail["To"]).partition("+")[0])] = mail.get_content().strip()
    await catcher.stop()
    return result


async def _until_ended(platform: TestPlatform, ids: list[str]) -> int:
    """A run may wait, for a model that is limited or away, or for a reviewer, who says yes here; how often."""
    approved = 0
    async with asyncio.timeout(PATIENCE_SECONDS):
        while ids:
            await platform.run_until_idle(timeout_seconds=PATIENCE_SECONDS)
            for approval in await platform.approvals():
                await platform.decide(approval["id"], "approve", note="the customer is right")
                approved += 1
            ids = [id for id in ids if (await platform.get(id))["state"] not in ENDED]
            await asyncio.sleep(0.2 if ids else 0)
    return approved


def _input(desk: str, sender: str, text: str) -> dict[str, Any]:
    if desk != "desk-framework":
        return {"sender": sender, "text": text}
    return {"prompt": f"<message>\n{text}\n</message>", "context": {"sender": sender}}


def _note(result: Result, number: int, found: dict[str, Any]) -> None:
    run = found["run"]
    if run["state"] != "succeeded":
        result.failed.append(f"message {number}: {run['state']} {run['error']}")
        return
    output = run["output"]
    label = output.get("label", output) or {"kind": "empty"}
    result.kinds[number] = label["kind"]
    result.cost_microusd += sum(call["cost_microusd"] for call in found["model_calls"])
    result.model_calls += sum(call["outcome"] == "answered" for call in found["model_calls"])


async def main() -> int:
    messages = read_messages()
    settings = load_settings()
    chosen = {name: getattr(settings, name) for name in SETTINGS}
    results = {name: await run_desk(name, messages, **chosen) for name in DESKS}
    for name, result in results.items():
        right = sum(result.kinds.get(m["id"]) == m["expect"]["kind"] for m in messages)
        print(
            f"{name:15} {right} of {len(messages)} kinds as expected, {len(result.replies)} replies, "
            f"{len(result.refunds)} refunds, {result.approvals} approvals, {result.model_calls} model calls, "
            f"${result.cost_microusd / 1e6:.4f}"
        )
        for line in result.failed[:5]:
            print(f"  {line}")
    first, *others = results.values()
    same = all((r.kinds, r.replies, r.refunds) == (first.kinds, first.replies, first.refunds) for r in others)
    print("the three came to the same" if same else "the three differ")
    print("by kind:", ", ".join(f"{count} {kind}" for kind, count in Counter(first.kinds.values()).most_common()))
    return 0 if same and not any(result.failed for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
