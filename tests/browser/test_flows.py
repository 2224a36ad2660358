"""What people do in the dashboard, from the first click to what it came to."""

from __future__ import annotations

import json
import re

from playwright.sync_api import Page, expect

from tests.browser.site import Site, until

MARKUP = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
RIGHT_TO_LEFT = "مرحبا بالعالم \u202e gpj.exe"
BINARY = "".join(map(chr, range(1, 32))) + "\u0085\ufffe\u2028"


def test_a_run_is_submitted_from_the_form_and_watched_to_its_end(page: Page, site: Site) -> None:
    page.goto("/submit?agent=triage")
    page.get_by_label("sender").fill("ada@example.com")
    page.get_by_label("text").fill("The lamp arrived broken.")
    page.get_by_label("urgent").check()
    page.get_by_label("language").select_option("fr")
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url(re.compile(r"/runs/[0-9a-f-]{36}"))

    expect(page.locator("main")).to_contain_text("succeeded")
    run = site.get(f"/api/v1/runs/{page.url.rsplit('/', 1)[1].split('?')[0]}")
    assert run["input"] == {
        "sender": "ada@example.com",
        "text": "The lamp arrived broken.",
        "urgent": True,
        "language": "fr",
        "orders": 1,
    }
    for name in ("look_up", "draft"):
        expect(page.locator("main").get_by_text(name).first).to_be_visible()


def test_a_question_is_approved_with_an_edit_and_the_run_goes_on_with_it(page: Page, site: Site) -> None:
    run_id = site.submit("refund", {"order": 7, "amount": 80})
    page.goto("/approvals")
    page.get_by_role("link", name=re.compile("refund")).first.click()
    arguments = page.get_by_label("Arguments")
    expect(arguments).to_have_value(re.compile('"amount_usd": 80'))
    arguments.fill(json.dumps({"order": 7, "amount_usd": 45.5}))
    page.get_by_label("Note").fill("Half of it.")
    page.get_by_role("button", name="Approve", exact=True).click()

    expect(page.locator("main")).to_contain_text("Approved")
    site.until_state(run_id, "succeeded")
    assert site.get(f"/api/v1/runs/{run_id}")["output"] == "paid 45.5"


def test_a_switch_is_tripped_and_reset(page: Page, site: Site) -> None:
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto("/switches")
    page.get_by_label("Scope").fill("agent:talks")
    page.get_by_label("Why").fill("it talks too much")
    page.get_by_role("button", name="Trip", exact=True).click()
    switch = page.get_by_role("region", name="Switch agent:talks")
    expect(switch).to_contain_text("it talks too much")
    run_id = site.submit("talks", {"size": 3})
    until(lambda: "agent:talks" in json.dumps(site.get(f"/api/v1/runs/{run_id}/why")), "the run to be held")

    switch.get_by_role("button", name="Reset").click()
    expect(page.locator("main")).to_contain_text("Nothing is stopped")
    site.until_state(run_id, "succeeded")


def test_a_dead_letter_is_redriven(page: Page, site: Site) -> None:
    run_id = site.submit("broken", {"text": "no lamps"})
    site.until_state(run_id, "failed")
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto("/dead")
    expect(page.locator("main")).to_contain_text("the warehouse said no: no lamps")
    page.goto(f"/runs/{run_id}")
    page.get_by_role("button", name="Redrive").first.click()
    until(lambda: len(site.get(f"/api/v1/runs/{run_id}/timeline")["attempts"]) == 2, "a second attempt")


def test_runs_are_filtered_and_paged(page: Page, site: Site) -> None:
    for _ in range(60):
        site.submit("talks", {"size": 1})
    site.submit("broken", {"text": "a needle"})
    page.goto("/runs")
    page.get_by_label("Agent").select_option("talks")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**agent=talks**")
    rows = page.locator("table.runs tbody tr")
    first = rows.first.get_attribute("id")
    expect(page.locator("table.runs .name", has_not_text="talks")).to_have_count(0)
    page.get_by_role("link", name="Older runs").click()
    expect(rows.first).not_to_have_attribute("id", first or "")

    page.goto("/runs")
    page.get_by_label("Text in the input or error").fill("needle")
    page.get_by_role("button", name="Show").click()
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("broken")


def test_what_users_wrote_is_text_and_nothing_else(page: Page, site: Site) -> None:
    for text in (MARKUP, RIGHT_TO_LEFT, BINARY):
        run_id = site.submit("broken", {"text": text})
        site.until_state(run_id, "failed")
        page.goto(f"/runs/{run_id}")
        expect(page.locator("main")).to_contain_text("RuntimeError")
        expect(page).not_to_have_title("taken")
        assert page.locator("main img").count() == 0


def test_an_output_of_two_megabytes_is_shown_in_part_and_whole_on_demand(page: Page, site: Site) -> None:
    run_id = site.submit("talks", {"size": 2_000_000})
    site.until_state(run_id, "succeeded")
    page.goto(f"/runs/{run_id}")
    assert len(page.content()) < 300_000
    expect(page.locator("main")).to_contain_text(re.compile("2,000,00[02]"))


def test_a_run_that_is_deleted_while_it_is_open_says_so(page: Page, site: Site) -> None:
    run_id = site.submit("talks", {"size": 3}, tenant="leaver")
    site.until_state(run_id, "succeeded")
    page.goto(f"/runs/{run_id}")
    expect(page.locator("main")).to_contain_text("succeeded")
    site.command("tenants", "erase", "leaver", "--yes")
    site.submit("talks", {"size": 4})
    expect(page.locator("main")).to_contain_text(re.compile("no run"))
