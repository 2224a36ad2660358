"""The overview in a browser that has seen nothing of it yet: when it shows something, and what it took to load."""

from __future__ import annotations

import shutil
import statistics
from dataclasses import dataclass

from playwright.sync_api import Browser, Page, sync_playwright

from bench.process import up

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
LOADED = """
async () => {
  const painted = () => performance.getEntriesByName("first-contentful-paint")[0];
  while (!painted()) await new Promise((next) => setTimeout(next, 10));
  const loaded = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
  return [painted().startTime, loaded.reduce((sum, each) => sum + each.transferSize, 0)];
}
"""


@dataclass(frozen=True, slots=True)
class Look:
    """Milliseconds from the start of the navigation to the first content on the screen, and bytes as they travelled."""

    painted_ms: float
    travelled: int


def looks(database_url: str, count: int) -> list[Look]:
    """The overview of a server that is just up, looked at `count` times with an empty cache."""
    with up(database_url) as (_, url), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        taken = [_look(browser, url) for _ in range(count)]
        browser.close()
    return taken


def median(taken: list[Look]) -> Look:
    return Look(statistics.median(each.painted_ms for each in taken), max(each.travelled for each in taken))


def _look(browser: Browser, url: str) -> Look:
    context = browser.new_context()
    page: Page = context.new_page()
    page.goto(url, wait_until="load")
    painted_ms, travelled = page.evaluate(LOADED)
    context.close()
    return Look(painted_ms, travelled)
