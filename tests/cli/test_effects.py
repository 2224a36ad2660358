"""Effects and incidents from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Shell, until
from tests.patience import WAIT_SECONDS

SOURCE = """
from pilothouse import App, Context, MayHaveHappened
app = App("mail")

@app.tool(effect="irreversible", platform="email")
async def send(to: str) -> str:
    if to == "lost":
        raise MayHaveHappened("the answer was lost")
    return f"sent to {to}"

@app.agent
async def writer(ctx: Context, to: str) -> str:
    return str(await ctx.tool(send, to=to))
"""


@pytest.fixture(scope="module")
def mailing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    shell = Shell(tmp_path_factory.mktemp("project"))
    shell.write("mail.py", SOURCE)
    process = shell.start("up", "mail:app", "--port", "0")
    try:
        until(lambda: "writer" in shell("agents", "list").out, "up")
        yield shell
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == 0, said


def test_an_effect_is_looked_at_and_resolved(mailing: Shell) -> None:
    shell = mailing
    submitted = shell("submit", "writer", '{"to": "lost"}', "--json").json["id"]
    assert shell("runs", "watch", submitted).code == 1

    (listed,) = shell("effects", "list", "--unknown", "--json").json["items"]
    id = listed["id"]
    assert f"`pilothouse effects resolve {id} --happened" in shell("runs", "why", submitted, "--json").json["next"]
    table = shell("effects", "list").out
    assert id in table
    assert "unknown" in table
    shown = shell("effects", "show", id).out
    assert '{"to":"lost"}' in shown
    assert f"pilothouse effects resolve {id} --happened | --did-not-happen" in shown
    assert "is not JSON" in shell("effects", "resolve", id, "--happened", "--result", "{", "--note", "x").err
    assert "no result" in shell("effects", "resolve", id, "--did-not-happen", "--result", "1", "--note", "x").err
    assert shell("effects", "resolve", id, "--note", "x").code == 2

    said = shell("effects", "resolve", id, "--happened", "--result", '"by hand"', "--note", "seen in the outbox")
    assert f"effect {id} took place, says cli:" in said.out
    assert "is not open" in shell("effects", "resolve", id, "--did-not-happen", "--note", "x").err
    assert shell("effects", "list", "--unknown").out == "no effect is of unknown outcome\n"
    timeline = shell("runs", "show", submitted).out
    assert id in timeline
    assert "seen in the outbox" in timeline
    assert shell("runs", "redrive", submitted).code == 0
    assert shell("runs", "watch", submitted).code == 0
    assert shell("runs", "show", submitted, "--json").json["run"]["output"] == "by hand"
    assert "there is no effect none" in shell("effects", "show", "none").err
    assert "is not an instant" in shell("effects", "list", "--since", "yesterday").err


def test_an_incident_is_opened_corrected_exported_and_closed(mailing: Shell) -> None:
    shell = mailing
    for to in ("ada", "grace"):
        shell("submit", "writer", json.dumps({"to": to}), "--watch")
    effects = shell("effects", "list", "--tool", "send", "--json").json["items"]
    bad = next(effect for effect in effects if effect["arguments"] == {"to": "ada"})["id"]

    opened = shell("incident", "open", "--effect", bad, "--reason", "wrong person", "--json").json
    assert {effect["kinship"] for effect in opened["effects"]} == {"original", "version"}
    corrected = shell(
        "incident", "correct", opened["id"], "--effect", bad, "--note", "apologised", "--run", "writer", '{"to": "x"}'
    )
    assert "apologised" in corrected.out
    assert f"is open for effect {bad} already" in shell("incident", "open", "--effect", bad, "--reason", "again").err
    said = shell("incident", "case", opened["id"], "--output", "case.json")
    assert said.out == "the case is in case.json\n"
    case = json.loads((shell.folder / "case.json").read_text("utf-8"))
    assert case["expectation"]["must_not_call"]["arguments"] == {"to": "ada"}
    assert opened["id"] in shell("incident", "list").out
    assert "closed" in shell("incident", "close", opened["id"], "--note", "a new check").out
    assert shell("incident", "list", "--state", "open", "--json").json == []
    assert "wrong person" in shell("incident", "show", opened["id"]).out
