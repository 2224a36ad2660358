"""API keys from the command line, and the door that stays shut without one."""

from __future__ import annotations

from tests.cli.conftest import Shell
from tests.patience import WAIT_SECONDS


def test_keys_are_made_listed_and_revoked(shell: Shell) -> None:
    assert shell("db", "migrate").code == 0
    made = shell("keys", "create", "ops", "--role", "admin", "--json").json
    assert made["key"].startswith(f"ph_{made['id']}_")
    shown = shell("keys", "create", "shop", "--tenant", "acme", "--expires", "2999-01-01T00:00:00Z")
    assert "shop (operator), shown only now" in shown.out

    assert [key["state"] for key in shell("keys", "list", "--json").json] == ["active", "active"]
    assert "acme" in shell("keys", "list").out
    assert shell("keys", "revoke", made["id"]).out == f"key {made['id']} is revoked\n"
    assert "was revoked before" in shell("keys", "revoke", made["id"]).err
    assert "there is no key nothing" in shell("keys", "revoke", "nothing").err


def test_what_others_can_reach_is_served_only_once_there_is_a_key(shell: Shell) -> None:
    shell("db", "migrate")

    refused = shell("api", "--host", "0.0.0.0", "--port", "0")
    assert refused.code == 1
    assert "host '0.0.0.0' can be reached from other machines, and there is no API key" in refused.err
    assert "pilothouse keys create" in refused.err

    shell("keys", "create", "ops", "--role", "admin")
    api = shell.start("api", "--host", "0.0.0.0", "--port", "0")
    try:
        assert api.stdout is not None
        assert any("is up at" in line for line in api.stdout), "it says where it is"
    finally:
        api.terminate()
        api.communicate(timeout=WAIT_SECONDS)
