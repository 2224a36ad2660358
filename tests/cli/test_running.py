"""The main paths of the command line, against a platform that is up."""

from __future__ import annotations

import json
import signal
import threading

from tests.cli.conftest import Shell, Terminal, until
from tests.patience import WAIT_SECONDS


def submitted(up: Shell, *arguments: str) -> str:
    return str(up("submit", *arguments, "--json").json["id"])


def state(up: Shell, run_id: str) -> str:
    return str(up("runs", "show", run_id, "--json").json["run"]["state"])


def test_the_starter_project_does_what_its_readme_says(up: Shell) -> None:
    said = up("submit", "hello", '{"name": "Ada"}', "--watch")

    assert said.code == 0
    assert "run.succeeded" in said.out
    assert '"Hello, Ada!"' in said.out
    assert "hello" in up("runs", "list").out


def test_input_comes_from_a_file_or_from_standard_input(up: Shell) -> None:
    up.write("input.json", '{"name": "File"}')

    assert "Hello, File!" in up("submit", "hello", "@input.json", "--watch").out
    assert "Hello, Pipe!" in up("submit", "hello", "-", "--watch", stdin='{"name": "Pipe"}').out


def test_many_runs_come_from_json_lines_and_each_has_its_own_answer(up: Shell) -> None:
    lines = ['{"name": "a"}', '{"name": 1}', "{broken", "", '{"name": "b"}']
    path = up.write("many.jsonl", "\n".join(lines))

    said = up("submit", "hello", "--jsonl", str(path), "--idempotency-key", "batch", "--json")
    again = up("submit", "hello", "--jsonl", str(path), "--idempotency-key", "batch", "--json")

    assert (said.code, said.json["submitted"]) == (1, 2)
    assert [each["line"] for each in said.json["refused"]] == [2, 3]
    assert (again.json["submitted"], again.json["known"]) == (0, 2)


def test_a_failed_run_is_shown_with_its_step_and_can_be_redriven_and_dismissed(up: Shell) -> None:
    watched = up("submit", "broken", "--watch")
    assert watched.code == 1
    assert "ValueError: it cannot be done" in watched.err
    run_id = up("dead", "list", "--json").json[0]["id"]

    shown = up("runs", "show", run_id).out
    assert "in step 'bad step'" in shown
    assert f"pilothouse dead redrive {run_id}" in shown
    assert up("dead", "redrive", run_id).code == 0
    until(lambda: len(up("dead", "list", "--json").json) == 1, "the run to fail again")
    assert up("dead", "dismiss", "--all", "--json").json == {"dismissed": 1}
    assert up("dead", "list", "--json").json == []


def test_a_waiting_run_says_why_and_takes_a_signal(up: Shell) -> None:
    run_id = submitted(up, "waits")
    until(lambda: state(up, run_id) == "waiting", "the run to wait")

    assert "it waits for signal 'go'" in up("runs", "why", run_id).out
    assert "was sent" in up("runs", "signal", run_id, "go", '{"x": 1}').out
    assert "the first one stands" in up("runs", "signal", run_id, "go", "2").out or state(up, run_id) == "succeeded"
    until(lambda: state(up, run_id) == "succeeded", "the run to end")
    assert up("runs", "show", run_id, "--json").json["run"]["output"] == {"x": 1}
    assert "waiting now" in up("runs", "show", run_id).out


def test_a_run_is_cancelled_once(up: Shell) -> None:
    run_id = submitted(up, "waits")
    until(lambda: state(up, run_id) == "waiting", "the run to wait")

    assert "is cancelled" in up("runs", "cancel", run_id, "--reason", "not needed").out
    assert up("submit", "hello", '{"name": "x"}', "--idempotency-key", "k").code == 0
    refused = up("submit", "hello", '{"name": "y"}', "--idempotency-key", "k")
    assert refused.code == 1
    assert "already made run" in refused.err


def test_the_other_nouns_answer(up: Shell) -> None:
    assert "running" in up("workers", "list").out
    assert "hello" in up("agents", "show", "hello").out
    shown, (listed, *_) = up("agents", "show", "hello", "--json").json, up("agents", "list", "--json").json
    assert (shown["health"]["reasons"], listed["name"] in up("agents", "list").out) == ([], True)
    assert {"cost_microusd_today", "oldest_age_seconds"} <= shown.keys() & listed.keys()
    assert "worker.started" in up("audit", "tail", "-n", "1000").out
    assert up("audit", "show", "1", "--json").json["seq"] == 1
    assert "core" in up("db", "status").out
    assert "up to date" in up("db", "migrate").out
    assert "ended runs are kept 30 days" in up("db", "storage").out
    assert up("db", "storage", "--json").json["total_bytes"] > 0
    assert "pilothouse.toml" in up("config", "show").out
    checked = up("db", "check")
    assert (checked.code, "all 19 invariants hold" in checked.out) == (0, True)


def test_unknown_things_are_refused_with_what_to_do(up: Shell) -> None:
    for arguments, told in (
        (("submit", "helo"), "did you mean 'hello'?"),
        (("submit", "hello", '{"nam": "x"}'), "'nam' was unexpected"),
        (("submit", "hello", '{"name": 3}'), "input.name"),
        (("submit", "hello", "{bad"), "is not JSON"),
        (("submit", "hello", "@missing.json"), "missing.json cannot be read"),
        (("submit", "hello", "{}", "--at", "tomorrow"), "--at"),
        (("submit", "hello", '{"name": "x"}', "--lane", "fast"), "lane"),
        (("runs", "show", "nope"), "there is no run nope"),
        (("runs", "cancel", "nope"), "there is no run nope"),
        (("agents", "show", "helo"), "did you mean 'hello'?"),
        (("audit", "show", "999999"), "there is no audit record 999999"),
        (("workers", "drain", "nope"), "there is no worker nope"),
    ):
        said = up(*arguments)
        assert (said.code, told in said.err) == (1, True), (arguments, said.err)
    for arguments, exit_code, code in (
        (("runs", "show", "nope"), 1, "not_found"),
        (("submit", "hello", '{"name": 3}'), 1, "invalid_input"),
        (("runs", "lst"), 2, "usage"),
    ):
        said = up(*arguments, "--json")
        assert (said.code, said.out, json.loads(said.err)["error"]) == (exit_code, "", code)


def test_wrong_usage_exits_with_2(up: Shell) -> None:
    for arguments, told in (
        (("runs", "lst"), 'Did you mean "list"?'),
        (("runs", "show"), "See `pilothouse runs show --help`"),
        (("effects", "resolve", "x"), "--happened or --did-not-happen is missing: Whether the call took place."),
        (("effects", "resolve", "x", "--happened"), "--note is missing: How you know; it goes into the audit."),
        (("runs", "list", "--limit", "0"), "--limit"),
        (("submit", "hello", "--priority", "high"), '"high"'),
        (("submit", "hello", "{}", "--jsonl", "many.jsonl"), "leave out INPUT and --watch"),
        (("dead", "redrive"), "name one run, or choose with"),
        (("dead", "dismiss", "x", "--all"), "name one run, or choose with"),
    ):
        said = up(*arguments)
        assert (said.code, told in said.err, said.err.startswith("error: ")) == (2, True, True), (arguments, said.err)
        assert said.out == ""


def test_a_run_is_watched_line_by_line_where_there_is_no_terminal(up: Shell) -> None:
    run_id = submitted(up, "waits")
    until(lambda: state(up, run_id) == "waiting", "the run to wait")
    up("runs", "cancel", run_id)

    said = up("runs", "watch", run_id)
    rows = [json.loads(line) for line in up("runs", "watch", run_id, "--json").out.splitlines()]

    actions = ["run.submitted", "run.claimed", "run.suspended", "run.cancelled"]
    lines = [line.split(maxsplit=1)[1] for line in said.out.splitlines()]
    assert [line.split()[0] for line in lines if line.startswith("run.")] == actions
    assert "info  waiting now  reason=test" in lines[1:3]
    assert (said.code, "cancelled" in said.err) == (1, True)
    assert [row["action"] for row in rows if "action" in row] == actions
    assert [row["message"] for row in rows if "message" in row] == ["waiting now"]
    assert (rows[-1]["id"], rows[-1]["state"]) == (run_id, "cancelled")


def test_on_a_terminal_watching_shows_what_the_run_does_now(up: Shell) -> None:
    run_id = submitted(up, "waits")

    with Terminal(up, "runs", "watch", run_id) as terminal:
        terminal.until(r"waiting  \d+ s  attempt 1")
        assert up("runs", "signal", run_id, "go", '"done"').code == 0
        terminal.until(r'[\r\n]"done"')

        assert terminal.wait() == 0


def test_ctrl_c_ends_a_watch_with_130_and_leaves_the_run(up: Shell) -> None:
    run_id = submitted(up, "waits")

    with Terminal(up, "runs", "watch", run_id) as terminal:
        terminal.until("attempt 1")
        terminal.press_ctrl_c()

        assert terminal.wait() == 130
        assert "Traceback" not in terminal.seen

    assert state(up, run_id) == "waiting"
    up("runs", "cancel", run_id)


def test_what_happens_now_is_followed(up: Shell) -> None:
    tail = up.start("audit", "tail", "-n", "1", "--follow", "--entity", "hello", "--json")
    events = up.start("events", "tail", "--json", "--action", "run.submitted")
    try:
        told = events.stdout
        assert tail.stdout is not None
        assert told is not None
        assert json.loads(tail.stdout.readline())["entity_id"] == "hello"  # both follow once this one does
        seen: list[str] = []
        reading = threading.Thread(target=lambda: seen.append(told.readline()))
        reading.start()
        until(lambda: bool(submitted(up, "hello", '{"name": "x"}')) and bool(seen), "an event")
        reading.join()
        assert json.loads(seen[0])["action"] == "run.submitted"
    finally:
        for process in (tail, events):
            process.send_signal(signal.SIGINT)
        rest, _ = tail.communicate(timeout=WAIT_SECONDS)
        events.communicate(timeout=WAIT_SECONDS)
    assert (tail.returncode, events.returncode) == (130, 130)
    assert rest == "", "only what concerns the entity is followed"


def test_a_reader_that_goes_away_is_no_error(up: Shell) -> None:
    for arguments in (("audit", "tail", "-n", "5000"), ("runs", "list", "--json")):
        process = up.start(*arguments)
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=WAIT_SECONDS) == 0


def test_a_terminal_that_knows_few_characters_shows_the_others_as_it_can(up: Shell) -> None:
    said = up("db", "check", PYTHONIOENCODING="ascii", PYTHONUTF8="0")

    assert (said.code, "all 19 invariants hold" in said.out) == (0, True), said.err


def test_the_audit_is_verified_and_a_copy_of_it_too(up: Shell) -> None:
    def is_sealed() -> bool:
        return bool(up("audit", "verify", "--json").json["records"])

    until(is_sealed, "the scheduler to seal")
    assert "are as they were written" in up("audit", "verify").out
    assert "lines in audit.jsonl" in up("audit", "export", "--to", "audit.jsonl").out
    assert up("audit", "verify", "--file", "audit.jsonl").code == 0

    text = (up.folder / "audit.jsonl").read_text("utf-8").replace("worker.started", "worker.forged", 1)
    up.write("forged.jsonl", text)
    forged = up("audit", "verify", "--file", "forged.jsonl")
    assert (forged.code, "was changed" in forged.out) == (1, True)
    assert "cannot be read" in up("audit", "verify", "--file", "missing.jsonl").err


def test_a_lineage_is_shown_and_cancelled(up: Shell) -> None:
    run_id = up("submit", "waits", "{}", "--json").json["id"]

    shown = up("runs", "cancel", run_id, "--lineage", "--dry-run")
    assert (shown.code, run_id in shown.out) == (0, True)
    assert "nothing was cancelled: this was a dry run" in shown.out
    assert up("runs", "cancel", run_id, "--dry-run", "--json").json["runs"][0]["id"] == run_id

    done = up("runs", "cancel", run_id, "--lineage", "--json").json
    assert (done["root_id"], done["runs"][0]["id"], done["dry_run"]) == (run_id, run_id, False)
    assert up("runs", "watch", run_id).code == 1
    assert "has ended already" in up("runs", "cancel", run_id, "--lineage").err


def test_what_an_agent_says_is_shown_whole_when_asked_and_never_obeyed(up: Shell) -> None:
    name = "\x1b[2J[/bold]" + "x" * 3000
    run_id = submitted(up, "hello", json.dumps({"name": name}))
    until(lambda: state(up, run_id) == "succeeded", "the run to end")

    cut, whole = up("runs", "show", run_id), up("runs", "show", run_id, "--full")

    assert cut.code == 0, cut.err
    assert ("--full" in cut.out, cut.out.count("x") < 3000, "x" * 100 in cut.out) == (True, True, True)
    assert whole.out.count("x") >= 6000
    assert "where the time went" in cut.out
    assert "\x1b" not in cut.out + whole.out


def test_a_reason_is_no_markup(up: Shell) -> None:
    run_id = submitted(up, "waits")
    until(lambda: state(up, run_id) == "waiting", "the run to wait")

    assert up("runs", "cancel", run_id, "--reason", "[/x] \x1b[31m red").code == 0
    told = up("audit", "tail", "-n", "5")

    assert told.code == 0, told.err
    assert (told.code, "[/x] ␛[31m red" in told.out) == (0, True)


def test_who_watches_a_run_that_waits_sees_why_and_what_to_do(up: Shell) -> None:
    run_id = submitted(up, "waits")

    with Terminal(up, "runs", "watch", run_id, columns=120) as terminal:
        terminal.until("why   it waits for signal 'go'")
        terminal.until(f"next  .*runs signal {run_id} go")
        assert up("runs", "signal", run_id, "go", '"now"').code == 0
        assert terminal.wait() == 0

    assert "where the time went" in terminal.seen


def test_top_prints_one_frame_where_there_is_no_terminal_and_ends_with_q(up: Shell) -> None:
    said, told = up("top"), up("top", "--once", "--json").json

    assert (said.code, "Pilothouse is well" in said.out, "runs/s" in said.out) == (0, True, True)
    assert (told["state"], len(told["workers"]), [lane["lane"] for lane in told["lanes"]]) == (
        "ready", 1, ["critical", "normal", "low"],
    )  # fmt: skip
    with Terminal(up, "top", columns=80) as terminal:
        terminal.until("Pilothouse is well")
        terminal.type("q")

        assert terminal.wait() == 0


def test_runs_of_a_filter_are_shown_cancelled_and_redriven(up: Shell) -> None:
    later = ("--at", "2999-01-01T00:00:00Z", "--json")
    run_id = up("submit", "hello", '{"name": "of-a-filter"}', *later).json["id"]

    assert [row["id"] for row in up("runs", "list", "--text", "OF-A-FILTER", "--json").json] == [run_id]
    shown = up("runs", "cancel", "--agent", "hello", "--text", "of-a-filter", "--dry-run")
    assert (shown.code, run_id in shown.out) == (0, True)
    assert "nothing was changed: this was a dry run" in shown.out
    done = up("runs", "cancel", "--text", "of-a-filter", "--json").json
    assert [line["id"] for line in done["runs"]] == [run_id]
    assert "no run fits" in up("runs", "redrive", "--text", "of-a-filter").out
    for wrong in (("runs", "cancel"), ("runs", "redrive", run_id, "--all")):
        said = up(*wrong)
        assert (said.code, "name one run, or choose with" in said.err) == (2, True)
