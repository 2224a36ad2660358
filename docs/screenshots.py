"""`python docs/screenshots.py`: the pictures of the dashboard under docs/images, of a site that is made for them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from playwright.sync_api import Page, sync_playwright  # noqa: E402

from tests.browser.conftest import FLAGS  # noqa: E402
from tests.browser.site import Site, until  # noqa: E402

IMAGES = Path(__file__).parent / "images"
MINUTES = 9
MOST_BYTES = 150_000
chance = random.Random(7)
AGENTS = '''
import asyncio
import random

from pilothouse import App, Context

app = App("support-desk")
chance = random.Random(7)


@app.tool(effect="read", platform="orders")
async def look_up_order(order: int) -> dict:
    """Finds an order."""
    await asyncio.sleep(0.05 + chance.random() / 8)
    return {"order": order, "total": 42.5, "items": ["lamp", "bulb"]}


@app.tool(effect="write", platform="email")
async def send_reply(to: str, body: str) -> str:
    """Sends a mail."""
    await asyncio.sleep(0.1)
    if "nobody" in to:
        raise ValueError("the mail server refused: no such mailbox")
    return "sent"


@app.tool(effect="write", platform="payments", cost_usd=0.02)
async def pay_back(order: int, amount_usd: float) -> str:
    """Pays money back."""
    await asyncio.sleep(0.2)
    return "paid"


@app.agent(lane="critical", max_attempts=2)
async def triage(ctx: Context, sender: str, text: str) -> dict:
    """Sorts a ticket, looks up its order and answers."""
    label = await ctx.llm("classify", f"What is this about? {text}")
    order = await ctx.tool(look_up_order, order=7)
    draft = await ctx.llm("draft", f"Answer kindly, in three sentences: {text} The order is {order}.")
    await ctx.tool(send_reply, to=sender, body=str(draft))
    return {"label": str(label)[:40], "reply": str(draft)[:200]}


@app.agent
async def refund(ctx: Context, order: int, amount: float) -> str:
    """Pays back what a person agrees to."""
    await ctx.tool(look_up_order, order=order)
    asked = await ctx.approve(
        "refund",
        amount_usd=amount,
        recommendation=f"Pay back ${amount:.2f} for order {order}: the lamp arrived broken.",
        reasoning="The customer sent a photo two hours after the delivery.\\nIt is the first refund of this customer.",
        alternatives=["Send a new lamp", "A voucher of the same value"],
        risk=2,
        confidence=0.82,
        arguments={"order": order, "amount_usd": amount},
    )
    return await ctx.tool(pay_back, order=order, amount_usd=asked.arguments["amount_usd"])


@app.agent(lane="low")
async def report(ctx: Context, parts: int) -> dict:
    """Sums up the day."""
    children = await ctx.start_many("parts", "summarise", [{"part": part} for part in range(parts)])
    return {"parts": await ctx.results("all parts", children)}


@app.agent(lane="low")
async def summarise(ctx: Context, part: int) -> str:
    """Sums up a part of the day."""
    await ctx.step("read", lambda: asyncio.sleep(0.2 + chance.random()))
    return str(await ctx.llm("sum up", f"Sum up part {part}"))


app.schedule("nightly-report", agent="report", cron="0 2 * * *", timezone="Europe/Paris", input={"parts": 4})
'''
ANSWERS = """
answers:
- when: {contains: What is this about}
  say: "delivery: arrived broken"
- when: {contains: Answer kindly}
  say: >-
    I am sorry that your lamp arrived broken. A new one is on its way and reaches you within three days.
    You need not send the broken one back.
- say: "Twelve tickets, all answered; two customers wait for a refund."
"""
SETTINGS = """
app = "agents:app"
daily_budget_usd = 0.5

[routes.default]
models = ["openai:gpt-5-mini"]
max_output_tokens = 500
"""


def fill(site: Site) -> str:
    """Makes runs of every kind for some minutes, so that charts have something to show; returns one worth a look."""
    until_seconds = time.monotonic() + 60 * MINUTES
    place = 0
    while time.monotonic() < until_seconds:
        sender = "nobody@example.com" if place % 10 == 9 else f"customer{place}@example.com"
        site.submit("triage", {"sender": sender, "text": f"My lamp number {place} arrived broken. What now?"})
        if place % 40 == 0:
            site.submit("refund", {"order": 100 + place, "amount": 12.5 + place / 4})
        if place % 12 == 0:
            site.submit("report", {"parts": 4})
        time.sleep(chance.expovariate(1))
        place += 1
    decided = next(iter(site.get("/api/v1/approvals?state=pending")["items"]))
    site.command("approvals", "approve", decided["id"])
    until(lambda: site.get(f"/api/v1/runs/{decided['run_id']}")["state"] == "succeeded", "the refund")
    shown = site.submit("triage", {"sender": "ada@example.com", "text": "My lamp arrived broken. What now?"})
    until(lambda: site.get(f"/api/v1/runs/{shown}")["state"] == "succeeded", "the last run")
    return shown


@contextmanager
def provider(folder: Path) -> Iterator[dict[str, str]]:
    """A model that answers, takes its time and costs something: the environment of who asks it."""
    (folder / "answers.yaml").write_text(ANSWERS, "utf-8")
    command = [sys.executable, "-m", "pilothouse", "fake-provider", "--port", "0", "--json"]
    options = ["--script", "answers.yaml", "--latency-ms", "400"]
    with subprocess.Popen([*command, *options], cwd=folder, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield {"OPENAI_BASE_URL": json.loads(process.stdout.readline())["openai"], "OPENAI_API_KEY": "any"}
        process.terminate()


def picture(page: Page, name: str, path: str, *, height: int = 900, opened: str = "") -> None:
    page.set_viewport_size({"width": 1360, "height": height})
    page.goto(path)
    page.wait_for_timeout(800)
    if opened:
        page.locator("summary", has_text=opened).first.click()
    page.screenshot(path=IMAGES / f"{name}.png")
    assert (IMAGES / f"{name}.png").stat().st_size < MOST_BYTES, name


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pilothouse-screenshots-") as folder, provider(Path(folder)) as environment:
        site = Site(Path(folder), AGENTS, SETTINGS, environment)
        site.start()
        run_id = fill(site)
        approval = site.get("/api/v1/approvals?state=pending")["items"][0]["id"]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
            page = browser.new_page(base_url=site.url, color_scheme="light", locale="en-GB")
            picture(page, "overview", "/")
            picture(page, "run", f"/runs/{run_id}", opened="classify")
            picture(page, "approval", f"/approvals/{approval}", height=700)
            dark = browser.new_page(base_url=site.url, color_scheme="dark", locale="en-GB")
            picture(dark, "runs-dark", "/runs", height=700)
            browser.close()
        site.stop()


if __name__ == "__main__":
    main()
