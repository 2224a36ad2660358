"""`keys`: create, list, revoke."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from cyclopts import Parameter

from pilothouse.cli import output
from pilothouse.cli.output import AsJson
from pilothouse.cli.session import principal, run
from pilothouse.clock import from_datetime
from pilothouse.control import keys as verbs
from pilothouse.control.views import view
from pilothouse.domain.keys import KeyRole
from pilothouse.errors import ConfigError


def create(
    name: Annotated[str, Parameter(help="Who will use it; the audit names it.")],
    *,
    role: Annotated[Literal["viewer", "operator", "admin"], Parameter(help="What it may do.")] = "operator",
    tenant: Annotated[str | None, Parameter(help="Only this tenant's runs.")] = None,
    expires: Annotated[datetime | None, Parameter(help="Until when it is good, with a time zone.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key; it is shown once. From the first one on every request needs a key."""
    made = run(
        lambda db: verbs.create_key(
            db, name, KeyRole(role), tenant=tenant, expires_at=_instant(expires), principal=principal()
        )
    )
    if as_json:
        return output.print_json({"id": made.id, "key": made.text})
    output.console().print(f"key {made.id} for {name} ({role}), shown only now:", soft_wrap=True)
    print(made.text)
    return None


def list_keys(*, as_json: AsJson = False) -> None:
    """Every key, how it stands and when it was last used."""
    rows = [view(row) | {"state": verbs.standing(row)} for row in run(verbs.list_keys)]
    if as_json:
        return output.print_json(rows)
    made = output.table("key", ("name", "fold"), "role", "tenant", "state", "created", "last used", "expires")
    for row in rows:
        times = [output.clock_time(row[f"{name}_at"]) for name in ("created", "last_used", "expires")]
        made.add_row(row["id"], row["name"], row["role"], row["tenant"] or "all", row["state"], *times)
    return output.print_table(made, empty="no keys; only this machine is answered", spare=("created", "expires"))


def revoke(key_id: Annotated[str, Parameter(help="The key's id.")], *, as_json: AsJson = False) -> None:
    """Let a key open nothing any more."""
    run(lambda db: verbs.revoke_key(db, key_id, principal=principal()))
    if as_json:
        output.print_json({"id": key_id, "state": "revoked"})
    else:
        output.console().print(f"key {key_id} is revoked", soft_wrap=True)


def _instant(moment: datetime | None) -> int | None:
    try:
        return None if moment is None else from_datetime(moment)
    except ValueError as error:
        raise ConfigError(f"--expires: {error}") from error
