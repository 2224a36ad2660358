"""How a record of the audit looks, as one line."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from pilothouse.cli import output


def print_record(row: dict[str, Any], *, as_json: bool) -> None:
    """A record as users see it; its `agent` is shown where it has one."""
    if as_json:
        return output.print_json(row)
    change = f"{row['before'] or ''} → {row['after']}" if row["after"] else ""
    attempt = f".{row['attempt']}" if row["attempt"] else ""
    reason = f"  {row['reason']}" if row["reason"] else ""
    agent = f" ({row['agent']})" if row.get("agent") not in (None, row["entity_id"]) else ""
    style = output.STATE_STYLES.get(row["after"] or "", "")
    out = output.console()
    return out.print(
        Text.assemble(
            (f"{row['seq']:>7}  {output.clock_time(row['at'])}", "dim"),
            "  ",
            (f"{row['action']:<20}", style),
            f" {row['entity']} {row['entity_id']}{attempt}{agent}  {change}  ",
            (row["principal"], "dim"),
            reason,
        ),
        soft_wrap=True,
    )
