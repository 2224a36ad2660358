"""The documentation is true: its snippets run, its links lead somewhere, its names exist, its words are ours."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import pilothouse
from pilothouse.cli.main import COMMANDS, TREE, VERB_UNLESS_NAMED
from pilothouse.config import Settings, environment_names

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
SNIPPET = re.compile(r"<!-- runs(?:: (?P<file>\S+))? -->\n```python\n(?P<code>.*?)```", re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)#\s]+)(?:#[^)]*)?\)")
SOURCES = [path for kind in ("py", "html", "md") for path in sorted((ROOT / "src").rglob(f"*.{kind}"))]
COMMAND = re.compile(r"(?:^|[`\"'])pilothouse (?P<noun>[a-z][a-z-]+)(?: (?P<verb>[a-z][a-z-]+))?", re.MULTILINE)
"""A command where it stands as one: at the beginning of a line, or in quotes."""
VARIABLE = re.compile(r"\b(PILOTHOUSE_[A-Z_]+|[A-Z]+_URL)\b")
FOREIGN_WORDS = re.compile(r"\b(jobs?|tasks?|executions?)\b", re.IGNORECASE)
ALLOWED_AROUND = re.compile(r"task group|asyncio|AGENT_TASK|CONCURRENT_TASKS|TaskGroup", re.IGNORECASE)
RULES = {"reference", "CONTRIBUTING.md"}
"""Pages that quote names of others, or the words to avoid."""
NOT_SETTINGS = {"PILOTHOUSE_DEBUG", "PILOTHOUSE_TEST_POSTGRES_URL"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


SNIPPETS = [
    pytest.param(
        match["code"], match["file"], id=f"{name_of(page)}:{page.read_text('utf-8')[: match.start()].count(chr(10))}"
    )
    for page in PAGES
    for match in SNIPPET.finditer(page.read_text("utf-8"))
]


@pytest.mark.parametrize(("code", "file"), SNIPPETS)
def test_a_snippet_runs(code: str, file: str | None, tmp_path: Path) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(code, encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-W", "error", script], capture_output=True, text=True, check=False, cwd=tmp_path
    )

    assert done.returncode == 0, done.stderr
    if file is not None:
        assert normal(code) in normal((ROOT / file).read_text("utf-8")), f"{file} must hold the snippet"


def normal(code: str) -> str:
    """Code without what a formatter decides."""
    return re.sub(r"\s+", " ", re.sub(r"\n{2,}", "\n", code.replace("  #", " #"))).strip()


async def test_the_readmes_example_does_what_it_says() -> None:
    from pilothouse.testing import TestPlatform

    namespace = runpy.run_path(str(ROOT / "examples" / "hello" / "agents.py"))

    async with TestPlatform(namespace["app"]) as platform:
        run_id = await platform.submit("greet", {"name": "Ada"})
        await platform.run_until_idle()
        await platform.signal(run_id, "approved", "Grace")
        await platform.run_until_idle()

        assert (await platform.get(run_id))["output"] == "HELLO, ADA (approved by Grace)"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [match["target"] for match in LINK.finditer(page.read_text("utf-8"))]

    broken = [target for target in targets if "://" not in target and not (page.parent / target).exists()]

    assert not broken


def test_every_command_that_is_told_exists() -> None:
    told = [
        (name_of(path), *found) for path in (*PAGES, *SOURCES) for found in COMMAND.findall(path.read_text("utf-8"))
    ]

    unknown = [(where, noun, verb) for where, noun, verb in told if not is_command(noun, verb)]

    assert len(told) > 300
    assert not unknown


def is_command(noun: str, verb: str) -> bool:
    """Without a verb it is the noun alone, or one that the sentence puts in."""
    if noun in COMMANDS:
        return True
    return noun in TREE and (not verb or noun in VERB_UNLESS_NAMED or verb in TREE[noun][1])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_settings_exist(page: Path) -> None:
    variables = {variable for name in Settings.model_fields for variable in environment_names(name)} | NOT_SETTINGS

    unknown = {variable for variable in VARIABLE.findall(page.read_text("utf-8")) if variable not in variables}

    assert not unknown


@pytest.mark.parametrize("page", [page for page in PAGES if not {page.parent.name, page.name} & RULES], ids=name_of)
def test_only_our_words_are_used(page: Path) -> None:
    lines = [line for line in page.read_text("utf-8").splitlines() if not ALLOWED_AROUND.search(line)]

    found = [line for line in lines if FOREIGN_WORDS.search(line)]

    assert not found, "say run, attempt or step"


def test_the_generated_reference_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_the_changelog_knows_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")

    assert "[Unreleased]" in text or pilothouse.__version__ in text


def test_pictures_are_well_formed() -> None:
    for picture in (ROOT / "docs" / "images").glob("*.svg"):
        assert ElementTree.parse(picture).getroot().tag.endswith("svg")
