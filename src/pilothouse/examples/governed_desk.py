"""The agents of `pilothouse demo governance`: they spend, refund, send mail and wire money, as far as they may.

What their tools do to the world is a line in a file, which nobody takes back.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from pilothouse.app import App
from pilothouse.clock import SystemClock
from pilothouse.engine.context import Context

PRICE_USD = 0.05
MAIL_SECONDS = 0.02

app = App("governed-desk")


def note(name: str, line: str) -> None:
    """One line, written at once or not at all."""
    with Path(f"{name}.txt").open("ab", buffering=0) as file:
        file.write(f"{SystemClock().now_us()} {line}\n".encode())


@app.tool(effect="write", platform="search", cost_usd=PRICE_USD)
def search(query: str) -> str:
    """Asks a search service that takes five cents a question."""
    note("searches", query)
    return f"found: {query}"


@app.tool(effect="write", platform="payments", amount="amount_usd", idempotent=True)
def refund(order: int, amount_usd: float) -> str:
    """Pays money back to a customer."""
    note("refunds", f"order {order}: ${amount_usd:.2f}")
    return "refunded"


@app.tool(effect="write", platform="email")
def send_mail(number: int) -> str:
    """Sends one mail of many."""
    time.sleep(MAIL_SECONDS)
    note("mails", str(number))
    return "sent"


@app.tool(effect="irreversible", platform="payments")
def wire(reference: str) -> str:
    """Wires money to a supplier. The first time its process dies before it can tell that it did."""
    is_first = not Path("wires.txt").exists()
    note("wires", reference)
    if is_first:
        os.kill(os.getpid(), signal.SIGKILL)
    return "wired"


@app.agent
async def researcher(ctx: Context, number: int) -> str:
    found: str = await ctx.tool(search, query=f"question {number}")
    return found


@app.agent
async def refunder(ctx: Context, order: int, amount_usd: float) -> str:
    done: str = await ctx.tool(refund, order=order, amount_usd=amount_usd)
    return done


@app.agent
async def mailer(ctx: Context, mails: int) -> int:
    for number in range(1, mails + 1):
        await ctx.tool(send_mail, number=number)
    return mails


@app.agent
async def payer(ctx: Context, reference: str) -> str:
    done: str = await ctx.tool(wire, reference=reference)
    return done
