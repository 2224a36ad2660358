"""The pages of runbooks: a list, and each as text with commands to copy."""

from __future__ import annotations

import re
from html import unescape

import httpx2

from pilothouse.control import runbooks
from pilothouse.web.pages.runbooks import rendered
from tests.web.browsing import text_of


async def test_every_runbook_is_listed_and_shown_with_its_commands(api: httpx2.AsyncClient) -> None:
    listed = await api.get("/runbooks")
    for runbook in runbooks.runbooks().values():
        assert f'href="/runbooks/{runbook.name}"' in listed.text
        page = await api.get(f"/runbooks/{runbook.name}")
        told = text_of(page)
        assert all(step.title.replace("`", "") in told for step in runbook.steps), runbook.name
        copied = {unescape(each) for each in re.findall(r'data-copy="([^"]*)"', page.text)}
        assert {f"pilothouse {line}" for step in runbook.steps for line in step.commands} <= copied
        assert not re.search(r"<[^>]+ style=", page.text)


async def test_a_runbook_that_is_not_there_is_told(api: httpx2.AsyncClient) -> None:
    answer = await api.get("/runbooks/nothing")

    assert answer.status_code == 404
    assert "pilothouse runbook list" in answer.text


def test_html_in_a_runbook_stays_text() -> None:
    shown = rendered("# A\n\n<script>alert(1)</script> [x](javascript:alert(1))\n\n```sh\npilothouse <b>\n```\n")

    assert "<script>" not in shown
    assert "href" not in shown
    assert "<code>pilothouse &lt;b&gt;</code>" in shown
