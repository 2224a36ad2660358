"""The frame of the dashboard: it stays fresh, outlives its server, fits a phone, and can be used by everybody."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, ViewportSize, expect

from tests.browser.site import Site

PAGES = (
    "/",
    "/runs",
    "/dead",
    "/submit",
    "/approvals",
    "/agents",
    "/agents/triage",
    "/schedules",
    "/alerts",
    "/budgets",
    "/effects",
    "/incidents",
    "/switches",
    "/workers",
    "/audit",
    "/runbooks",
    "/settings",
)
PHONE: ViewportSize = {"width": 390, "height": 844}
FITS = "cards => [...document.querySelectorAll(cards)].every(card => card.scrollWidth <= card.clientWidth)"


def test_the_overview_follows_what_happens_and_outlives_its_server(page: Page, site: Site) -> None:
    page.goto("/")
    waiting = page.locator(".tile", has_text="Waiting").locator("strong")
    before = int(waiting.inner_text())
    site.submit("waits", {})
    expect(waiting).to_have_text(str(before + 1))

    site.stop()
    expect(page.get_by_text("Not connected. Trying again.")).to_be_visible()
    site.start()
    expect(page.get_by_text("Not connected. Trying again.")).to_be_hidden()
    site.submit("waits", {})
    expect(waiting).to_have_text(str(before + 2))


def test_dark_and_light_are_the_systems_until_the_viewer_chooses(page: Page) -> None:
    def ground() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    page.emulate_media(color_scheme="light")
    page.goto("/")
    light = ground()
    page.emulate_media(color_scheme="dark")
    dark = ground()
    assert light != dark
    page.get_by_label("Switch between light and dark").click()
    assert ground() == light
    page.reload()
    assert ground() == light


def test_the_keyboard_leads_everywhere(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_text("To the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("g")
    page.keyboard.press("s")
    page.wait_for_url("**/switches")


def test_a_command_is_copied_or_where_that_is_forbidden_chosen(page: Page) -> None:
    page.goto("/workers")
    button = page.get_by_label("Copy the command").first
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button.click()
    expect(button).to_have_text("copied")
    assert page.evaluate("navigator.clipboard.readText()") == "pilothouse workers list"

    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    button.click()
    assert page.evaluate("String(getSelection())") == "pilothouse workers list"


def test_a_viewer_whose_clock_is_wrong_is_told_the_right_ages(page: Page, site: Site) -> None:
    site.submit("waits", {})
    page.clock.set_fixed_time(datetime.now(UTC) + timedelta(hours=3))
    page.goto("/")
    ages = page.locator("main time:not([data-exact])")
    expect(ages.first).to_have_text(re.compile(r"now|\d+ s ago|[0-5] min ago"))
    assert not [age for age in ages.all_inner_texts() if re.search(r"[34] h", age)]


def test_instants_are_typed_in_the_viewers_zone(page: Page) -> None:
    zone = page.context.new_cdp_session(page)
    zone.send("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Tokyo"})
    page.goto("/runs?from=2026-01-31T09:00")
    begin = page.get_by_label("From your time")
    expect(begin).to_have_value("2026-01-31T18:00")
    begin.fill("2026-02-01T00:30")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**from=2026-01-31T15%3A30")
    expect(begin).to_have_value("2026-02-01T00:30")


@pytest.mark.parametrize("path", PAGES)
def test_every_page_fits_a_phone_and_has_no_serious_barrier(page: Page, path: str) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        answer = page.goto(path)
        assert answer is not None
        assert answer.status == 200
        found = Axe().run(page).response["violations"]
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        assert not serious, [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in serious]
    page.set_viewport_size(PHONE)
    page.wait_for_function(f"document.documentElement.scrollWidth <= {PHONE['width']}")
    page.wait_for_function(FITS, arg=".scroll")
