"""What the demo shows: a live view while it runs, and the closing table."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from pilothouse.control.checks import Verdict
    from pilothouse.examples.demo import Figures

STATES = (("succeeded", "green"), ("running", "cyan"), ("queued", "yellow"), ("failed", "red"))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at the platform: runs by state, attempts that each worker holds (None: no live lease), what was lost."""

    runs: dict[str, int]
    held: dict[str, int | None]
    lost: int
    recovered: int

    @property
    def done(self) -> int:
        return self.runs.get("succeeded", 0) + self.runs.get("failed", 0)


class DemoView:
    """The live display; on something that is no terminal it prints a line per event instead."""

    def __init__(self, console: Console, total: int, source: Path, folder: Path) -> None:
        self.total = total
        self._console = console
        self._source = source
        self._folder = folder
        self._events: list[Text] = []
        self._last: Snapshot | None = None
        self._killed: str | None = None
        self._started = time.monotonic()
        self._live = Live(console=console, refresh_per_second=8, transient=False)

    def __enter__(self) -> Self:
        title = Text.assemble(("Pilothouse demo", "bold"), f"  the code steward audits {self._source}")
        self._console.print(title, soft_wrap=True)
        place = f"API, scheduler and two workers on one SQLite file in {self._folder}\n"
        self._console.print(place, style="dim", soft_wrap=True)
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        before, self._last = self._last, snapshot
        if snapshot.lost > (before.lost if before else 0):
            self._tell(f"its lease ran out: {snapshot.lost} attempts are lost, their runs are queued again", "yellow")
        if before is not None and snapshot.recovered > before.recovered:
            self._tell(
                f"{snapshot.recovered} of the runs it lost went on from their checkpoints and succeeded", "green"
            )
        if self._console.is_terminal:
            self._live.update(self._render(snapshot))

    def tell_killed(self, name: str, held: int) -> None:
        self._killed = name
        self._tell(f"SIGKILL to {name}, which holds {held} attempts", "bold red")

    def keep(self, url: str) -> None:
        self._live.stop()
        self._console.print(f"\nThe platform is up at [bold]{url}[/bold] — Ctrl-C stops it.")

    def _tell(self, message: str, style: str) -> None:
        line = Text(f"{time.monotonic() - self._started:6.1f} s  {message}", style=style)
        self._events.append(line)
        if not self._console.is_terminal:
            self._console.print(line)

    def _render(self, snapshot: Snapshot) -> RenderableType:
        head = Table.grid(padding=(0, 2))
        head.add_row(ProgressBar(self.total, snapshot.done, width=44), f"{snapshot.done} of {self.total} files")
        counts = Text("  ").join(Text(f"{state} {snapshot.runs.get(state, 0)}", style=style) for state, style in STATES)
        held = Text("  ").join(self._worker(name, count) for name, count in snapshot.held.items())
        return Group(head, counts, held, *self._events)

    def _worker(self, name: str, held: int | None) -> Text:
        if name == self._killed:
            return Text(f"{name} killed", style="red")
        return Text(f"{name} holds {held or 0}", style="dim" if held is None else "")

    def close(self, figures: Figures, verdicts: list[Verdict]) -> None:
        """The invariants and the closing table."""
        self._console.print()
        for verdict in verdicts:
            mark = "[green]✓[/green]" if verdict.holds else "[red]✗[/red]"
            self._console.print(f"{mark} {verdict.name} [dim]({verdict.checked} checked)[/dim]", highlight=False)
        self._console.print(Panel(_closing_table(figures), title="What happened", title_align="left", expand=False))
        self._console.print(f"report: [bold]{figures.report}[/bold]", soft_wrap=True)
        for problem in figures.problems:
            self._console.print(f"[red]✗ {problem}; the logs are in {self._folder}[/red]")


def _closing_table(figures: Figures) -> Table:
    table = Table.grid(padding=(0, 3))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", style="bold", no_wrap=True)
    rows: tuple[tuple[str, object], ...] = (
        ("files audited", figures.files),
        ("runs", figures.runs),
        ("attempts", figures.attempts),
        ("attempts lost with the worker", figures.lost_attempts),
        ("runs recovered after a loss", figures.recovered_runs),
        ("steps executed", figures.steps_executed),
        ("steps answered from checkpoints", figures.steps_from_checkpoints),
        ("steps repeated, in flight at the kill", figures.steps_in_flight_when_killed),
        ("steps executed twice", figures.steps_executed_twice),
        (
            "invariants that hold",
            f"{figures.invariants_checked - figures.invariants_broken} of {figures.invariants_checked}",
        ),
        ("elapsed", f"{figures.seconds:.1f} s"),
        ("runs per second", f"{figures.runs_per_second:.1f}"),
    )
    for name, value in rows:
        table.add_row(name, str(value))
    return table
