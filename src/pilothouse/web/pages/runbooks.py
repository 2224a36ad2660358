"""Runbooks: what to do when something is wrong, with commands to copy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from html import escape

from fastapi import APIRouter, Request, Response
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

from pilothouse.control import runbooks
from pilothouse.web.pages.showing import PageRoute, show

router = APIRouter(include_in_schema=False, route_class=PageRoute)

GRAVEST_FIRST = ("critical", "warning", "info")
SHELL = """<span class="shell"><code>{0}</code>\
<button class="quiet copy" type="button" data-copy="{0}" aria-label="Copy the command">copy</button></span>"""
"""A command as the macro `shell` shows it."""


@router.get("/runbooks")
async def list_page(request: Request) -> Response:
    found = [runbooks.summary(each) for each in runbooks.runbooks().values()]
    return show(request, "runbooks.html", runbooks=sorted(found, key=_urgency))


@router.get("/runbooks/{name}")
async def show_page(name: str, request: Request) -> Response:
    runbook = runbooks.find_runbook(name)
    return show(request, "runbook.html", runbook=runbooks.summary(runbook), body=rendered(runbook.body))


def _urgency(runbook: dict[str, str]) -> tuple[int, str]:
    known = runbook["severity"] in GRAVEST_FIRST
    return GRAVEST_FIRST.index(runbook["severity"]) if known else len(GRAVEST_FIRST), runbook["title"]


@cache
def rendered(body: str) -> str:
    """Markdown as HTML; what is HTML in it stays text."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.add_render_rule("fence", _commands)
    return str(markdown.render(body))


def _commands(_renderer: RendererHTML, tokens: Sequence[Token], place: int, options: OptionsDict, env: EnvType) -> str:
    """The lines of a block of commands, each with a button that copies it."""
    lines = tokens[place].content.strip().splitlines()
    return f'<p class="commands">{"".join(SHELL.format(escape(line)) for line in lines if line)}</p>'
