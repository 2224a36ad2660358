"""What a tripped switch keeps whom from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.switches import (
    KINDS,
    Scope,
    Switch,
    SwitchMode,
    Target,
    Tripped,
    aborting,
    keeping_back,
    names_of,
    parse_scope,
    stopping,
)
from pilothouse.errors import InvalidInput

TARGET = Target("acme", "triage", "normal", "f1")
OWN = ("global", "tenant:acme", "agent:triage", "lane:normal", "version:f1")
OTHERS = ("tenant:other", "agent:triages", "lane:low", "version:f2", "tool:send")


def tripped(*scopes: str, mode: str = "hold") -> Tripped:
    return {scope: Switch(scope, SwitchMode(mode), "why", 1, "cli:ann", 0) for scope in scopes}


@pytest.mark.parametrize("text", ["global", "tenant:acme", "agent:a:b", "version:0af", "lane:low", "tool:send_email"])
def test_a_scope_is_read_and_written_alike(text: str) -> None:
    assert str(parse_scope(text)) == text


def test_a_name_may_hold_colons() -> None:
    assert parse_scope("agent:a:b") == Scope("agent", "a:b")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("agnt:triage", "did you mean 'agent:triage'?"),
        ("globl", "did you mean 'global'?"),
        ("agent", "did you mean 'agent:NAME'?"),
        ("agent:", "1 to 255 characters"),
        ("tool:a\nb", "1 to 255 characters"),
        ("tool: x", "1 to 255 characters"),
        ("", "write global, tenant:NAME, agent:NAME"),
        ("agent:" + "x" * 256, "1 to 255 characters"),
        ("global:x", "write global"),
    ],
)
def test_what_is_no_scope_is_refused_with_what_would_be(text: str, told: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_scope(text)

    assert told in str(refused.value)
    assert refused.value.fields[0].field == "scope"


@given(st.text(max_size=300))
def test_any_text_is_a_scope_or_refused(text: str) -> None:
    try:
        scope = parse_scope(text)
    except InvalidInput:
        return
    assert scope.kind in {"global", *KINDS}
    assert str(scope) == text


@pytest.mark.parametrize("scope", OWN)
@pytest.mark.parametrize("mode", list(SwitchMode))
def test_a_switch_of_a_run_keeps_it_back_in_every_mode(scope: str, mode: SwitchMode) -> None:
    on = tripped(scope, mode=mode)

    assert [switch.scope for switch in keeping_back(on, TARGET)] == [scope]
    assert (stopping(on, TARGET) is None) == (mode == "drain")
    assert (aborting(on, TARGET) is None) == (mode != "abort")


@pytest.mark.parametrize("scope", OTHERS)
@pytest.mark.parametrize("mode", list(SwitchMode))
def test_a_switch_of_something_else_does_not(scope: str, mode: SwitchMode) -> None:
    on = tripped(scope, mode=mode)

    assert (keeping_back(on, TARGET), stopping(on, TARGET), aborting(on, TARGET)) == ([], None, None)


@pytest.mark.parametrize("mode", list(SwitchMode))
def test_a_switch_of_a_tool_stops_its_calls_in_every_mode_and_nothing_else(mode: SwitchMode) -> None:
    on = tripped("tool:send", mode=mode)

    assert stopping(on, TARGET, "send") is on["tool:send"]
    assert stopping(on, TARGET, "read") is None
    assert aborting(on, TARGET) is None


def test_what_aborts_comes_before_what_holds() -> None:
    on = {**tripped("global"), **tripped("agent:triage", mode="abort"), **tripped("tool:send", mode="abort")}

    assert stopping(on, TARGET, "send") is on["agent:triage"]
    assert [switch.scope for switch in keeping_back(on, TARGET)] == ["global", "agent:triage"]


def test_names_are_those_of_one_kind() -> None:
    assert names_of(tripped("agent:a", "agent:b:c", "tenant:a", "global"), "agent") == {"a", "b:c"}


def test_a_switch_tells_who_and_why() -> None:
    (switch,) = tripped("agent:triage").values()

    assert switch.told() == "switch agent:triage (hold), tripped by cli:ann: why"
