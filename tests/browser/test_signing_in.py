"""Whoever has a key signs in with it; what a key may not do has no button, and a session ends with its key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import opened
from tests.browser.site import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with a run that waits for approval, and from then on with keys."""
    site = Site(tmp_path_factory.mktemp("guarded"))
    site.start()
    run_id = site.submit("refund", {"order": 7, "amount": 80})
    site.until_state(run_id, "waiting")
    site.key = site.command("keys", "create", "boss", "--role", "admin")["key"]
    yield site
    site.stop()


def key_of(site: Site, name: str, role: str) -> tuple[str, str]:
    """A new key, and the id to revoke it by."""
    made = site.command("keys", "create", name, "--role", role)
    return made["key"], made["id"]


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()


def test_a_key_opens_the_page_that_was_asked_for_until_signed_out(page: Page, site: Site) -> None:
    page.goto("/approvals")
    sign_in(page, "ph_nobodys_key")
    expect(page.get_by_role("alert")).to_have_text("This key is unknown, revoked or expired.")

    sign_in(page, key_of(site, "opener", "operator")[0])
    page.wait_for_url("**/approvals")
    expect(page.get_by_role("heading", level=1)).to_have_text("Approvals")
    assert page.evaluate("document.cookie") == ""

    page.get_by_role("button", name="Sign out").click()
    page.goto("/approvals")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_a_viewer_sees_what_waits_and_no_button_that_decides(browser: Browser, site: Site) -> None:
    approval = site.get("/api/v1/approvals")["items"][0]["id"]
    for role, buttons in (("viewer", 0), ("operator", 1)):
        with opened(browser, site) as page:
            page.goto(f"/approvals/{approval}")
            sign_in(page, key_of(site, f"a {role}", role)[0])
            page.wait_for_url(f"**/approvals/{approval}")
            expect(page.get_by_text("The lamp arrived broken.").first).to_be_visible()
            expect(page.get_by_role("button", name="Approve", exact=True)).to_have_count(buttons)


def test_what_another_site_or_a_viewer_posts_is_refused(browser: Browser, site: Site) -> None:
    approval = site.get("/api/v1/approvals")["items"][0]
    posted = """async ([path, form]) =>
        (await fetch(path, {method: "POST", body: new URLSearchParams({decision: "approve", form})})).status"""
    for role in ("viewer", "operator"):
        with opened(browser, site) as page:
            page.goto("/")
            sign_in(page, key_of(site, f"posting {role}", role)[0])
            page.wait_for_url(f"{site.url}/")
            assert page.evaluate(posted, [f"/approvals/{approval['id']}", "forged"]) == 403
    assert site.get(f"/api/v1/approvals/{approval['id']}")["state"] == "pending"


def test_a_session_that_ends_while_a_page_is_open_is_told_and_goes_on_where_it_was(page: Page, site: Site) -> None:
    key, key_id = key_of(site, "leaver", "operator")
    page.goto("/runs")
    sign_in(page, key)
    page.wait_for_url("**/runs")
    site.command("keys", "revoke", key_id)
    expect(page.get_by_label("API key")).to_be_visible()

    sign_in(page, key_of(site, "joiner", "operator")[0])
    page.wait_for_url("**/runs")
