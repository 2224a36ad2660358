"""A real browser: Debian's Chromium, driven by Playwright, in front of a real server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.browser.site import Site

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 45_000
"""A busy machine is slow, not wrong."""

expect.set_options(timeout=PATIENCE_MS)

HARMLESS = ("net::ERR", "Failed to load resource")
"""What a browser says of a server that is away, or of an answer that is a refusal."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("slow")
            item.add_marker(pytest.mark.xdist_group("browser"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    site.start()
    yield site
    site.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        told = "NOT TESTED in a browser: there is no chromium; `apt-get install chromium` brings one"
        pytest.fail(told) if os.environ.get("CI") else pytest.skip(told)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    with opened(browser, site) as page:
        yield page


@contextmanager
def opened(browser: Browser, site: Site) -> Iterator[Page]:
    """A page of a fresh browser; an error of a script or a breach of the content policy fails the test.

    It ends on an empty page: Chromium forgets a request to close that comes while a navigation is being committed,
    which a test's last click may have begun, and whoever has asked then waits for ever.
    """
    context = browser.new_context(base_url=site.url, viewport={"width": 1280, "height": 900}, locale="en-GB")
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.extend(_told(message)))
    yield page
    page.goto("about:blank")
    context.close()
    assert not problems


def _told(message: ConsoleMessage) -> list[str]:
    is_harmless = any(part in message.text for part in HARMLESS)
    return [message.text] if message.type in ("error", "warning") and not is_harmless else []
