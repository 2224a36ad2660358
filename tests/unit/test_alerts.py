"""Alerts as pure functions: an episode's way through its states, damping, silences, digests, settings of rules."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.config import load_settings
from pilothouse.control.alert_readings import CONFIDENCE
from pilothouse.control.runbooks import runbooks
from pilothouse.domain.alert_rules import RULES, WINDOW_SECONDS, queue_advice, rule_named
from pilothouse.domain.alerts import (
    AlertRule,
    AlertState,
    Episode,
    Matcher,
    Severity,
    advance,
    keep_seconds,
    room,
)
from pilothouse.domain.autonomy import lower_bound
from pilothouse.errors import ConfigError

SECOND = 1_000_000
RULE = AlertRule("queue-age", Severity.WARNING, "", 100.0, "seconds", "stuck-queue", for_seconds=60, keep_seconds=300)
BELOW = AlertRule("disk-low", Severity.CRITICAL, "", 0.1, "share", "disk", for_seconds=0, fires_below=True)
VALUES = st.one_of(st.none(), st.floats(0, 200))


def watch(rule: AlertRule, values: Sequence[float | None], *, step: float = 10.0) -> list[Episode | None]:
    """The episode after each look; one that is over makes room for the next."""
    seen, live = list[Episode | None](), None
    flaps = list[int]()
    for number, value in enumerate(values):
        now = int(number * step * SECOND) + SECOND
        recent = sum(1 for at in flaps if now - at <= 3600 * SECOND)
        after = advance(rule, live, value, now, flaps=recent)
        if after is not None and after.state is AlertState.RESOLVED:
            flaps.append(now)
        live = None if after is None or after.state is AlertState.RESOLVED else after
        seen.append(after)
    return seen


def states(seen: list[Episode | None]) -> list[str]:
    return ["" if each is None else str(each.state) for each in seen]


def test_a_condition_fires_once_it_has_held_long_enough() -> None:
    assert states(watch(RULE, [120.0] * 8)) == ["pending"] * 6 + ["firing"] * 2
    assert states(watch(BELOW, [0.5, 0.1])) == ["", "firing"]


def first_alarm(random: Random, failing: float, *, days: int) -> int | None:
    """The minute in which an agent is told of that ends a run every ten seconds, of which a share fails."""
    window, per_minute = WINDOW_SECONDS // 10, 6
    failed = [0, *accumulate(random.random() < failing for _ in range(days * 24 * 60 * per_minute))]
    looks = range(per_minute, len(failed), per_minute)
    bounds = [bound(failed[at] - failed[max(0, at - window)], min(at, window)) for at in looks]
    seen = states(watch(rule_named("failure-rate") or RULE, bounds, step=60.0))
    return seen.index("firing") if "firing" in seen else None


@cache
def bound(failed: int, total: int) -> float:
    return lower_bound(failed, total, confidence=CONFIDENCE)


def test_a_rate_well_below_its_threshold_raises_no_false_alarm_and_one_well_beyond_is_told_soon() -> None:
    random = Random(17)

    assert [first_alarm(random, 0.1, days=7) for _ in range(3)] == [None] * 3, "each look is a chance to be wrong"
    late = [first_alarm(random, 0.4, days=1) for _ in range(10)]

    assert all(minute is not None and minute <= 60 for minute in late), late


def test_a_pending_condition_that_goes_leaves_nothing() -> None:
    assert states(watch(RULE, [120.0] * 5 + [99.0] + [120.0] * 6)) == ["pending"] * 5 + [""] + ["pending"] * 6


def test_what_fires_ends_only_when_it_is_clear_by_a_margin_for_long_enough() -> None:
    seen = states(watch(RULE, [120.0] * 7 + [95.0] * 50 + [89.0] * 31))

    assert seen[6:86] == ["firing"] * 80
    assert seen[86] == "resolved"


def test_a_subject_that_is_gone_is_clear() -> None:
    assert states(watch(RULE, [120.0] * 7 + [None] * 30))[-1] == "resolved"


def test_a_pending_condition_that_nobody_looked_at_begins_anew() -> None:
    pending = Episode(AlertState.PENDING, 0, 0)

    after = advance(RULE, pending, 120.0, 3600 * SECOND)

    assert after == Episode(AlertState.PENDING, 3600 * SECOND, 3600 * SECOND)


def test_a_subject_that_comes_back_is_held_for_longer_each_time() -> None:
    assert [keep_seconds(RULE, flaps) for flaps in range(6)] == [300, 600, 1200, 2400, 3600, 3600]
    assert keep_seconds(AlertRule("x", Severity.INFO, "", 1, "", "", keep_seconds=7200), 3) == 7200


@given(st.lists(VALUES, max_size=400))
def test_every_way_through_the_states_is_one_that_there_is(values: list[float | None]) -> None:
    before, seen = "", watch(RULE, values)
    for value, episode in zip(values, seen, strict=True):
        after = "" if episode is None else str(episode.state)
        allowed = {
            "": {"", "pending"},
            "pending": {"", "pending", "firing"},
            "firing": {"firing", "resolved"},
            "resolved": {"", "pending"},
        }
        assert after in allowed[before]
        if episode is not None and episode.state is AlertState.FIRING:
            assert episode.fired_at is not None
            assert episode.fired_at - episode.since >= RULE.for_seconds * SECOND
        if after in ("pending",) or (after == "firing" and before == "pending"):
            assert value is not None
            assert value >= RULE.threshold
        before = after


@given(st.data())
def test_flapping_is_damped_to_four_episodes_an_hour(data: st.DataObject) -> None:
    """However a value jumps for six hours, no hour has more than five starts: the first, and four that were kept."""
    rule = AlertRule("x", Severity.WARNING, "", 100.0, "", "", for_seconds=0, keep_seconds=300)
    lengths = data.draw(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=20, max_size=60))
    values = [value for high, low in lengths for value in [150.0] * high + [0.0] * low][:2160]

    starts = [each.fired_at for each in watch(rule, values) if each is not None and each.fired_at is not None]
    starts = sorted(set(starts))

    for start in starts:
        assert sum(1 for each in starts if start <= each < start + 3600 * SECOND) <= 5


@given(st.integers(0, 30), st.integers(0, 300), st.integers(1, 20))
def test_a_channel_never_gets_more_than_its_limit(sent: int, held: int, limit: int) -> None:
    alone, has_digest = room(sent, held, limit)

    assert 0 <= alone <= held
    assert alone + has_digest <= max(0, limit - sent)
    if held and sent < limit:
        assert alone == held or has_digest, "nothing is left behind while there is room"


def test_a_silence_covers_what_all_its_patterns_match() -> None:
    assert Matcher("budget-*", "*", "refund*").covers("budget-burn", "agent:refunds/x", "refunds")
    assert not Matcher("budget-*", "*", "refund*").covers("budget-burn", "global/x", "")
    assert not Matcher("budget-*").covers("queue-age", "", "")


def test_the_scale_matrix_is_given_as_advice() -> None:
    told = [queue_advice(depth) for depth in (0, 99, 100, 499, 500, 1000, 1001)]

    assert told == [
        "no more workers are needed",
        "no more workers are needed",
        "watch it",
        "watch it",
        "add 1 or 2 workers",
        "add 1 or 2 workers",
        "add 3 or more workers",
    ]


def test_every_rule_can_fire_and_names_what_it_needs() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.measures.endswith(".")
        assert rule.unit
        assert rule.runbook in runbooks(), f"{rule.name} sends people to a runbook that is not there"
        assert rule.is_met(rule.threshold)


def test_settings_change_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pilothouse.toml").write_text(
        '[alerts.queue-age]\nthreshold = 30\nseverity = "critical"\nfor_seconds = 0\n'
        "[alerts.disk-low]\nenabled = false\n"
    )

    rules = load_settings().alert_rules

    changed = rule_named("queue-age", rules)
    assert changed is not None
    assert (changed.threshold, changed.severity, changed.for_seconds) == (30.0, Severity.CRITICAL, 0.0)
    off = rule_named("disk-low", rules)
    assert off is not None
    assert not off.is_enabled
    assert rule_named("breaker-open", rules) == rule_named("breaker-open")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[alerts.que-age]\nthreshold = 1", "there is no rule 'que-age'; did you mean 'queue-age'?"),
        ("[alerts.queue-age]\ntreshold = 1", "there is no key 'treshold'; did you mean 'threshold'?"),
        ('[alerts.queue-age]\nseverity = "high"', "'info', 'warning' or 'critical'"),
        ("[alerts.queue-age]\nthreshold = nan", "threshold is nan; it must be a number"),
        ("[alerts.queue-age]\nfor_seconds = -1", "for_seconds is -1; it must be 0 or more"),
        ('alert_channels = "pigeon:x"', "alert_channels has 'pigeon:x'; write email:ADDRESS"),
        ('alert_channels = "email:a@example.com"', "alert_channels names an email address, which needs smtp_url"),
    ],
)
def test_a_mistake_in_a_rule_is_told_with_the_fix(
    text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pilothouse.toml").write_text(text)

    with pytest.raises(ConfigError) as error:
        load_settings()

    assert told in str(error.value)


def test_channels_are_those_of_approvals_unless_given() -> None:
    both = load_settings(approval_channels="webhook:http://a", alert_channels="webhook:http://b")

    assert load_settings(approval_channels="webhook:http://a").told_channels == ("webhook:http://a",)
    assert both.told_channels == ("webhook:http://b",)
    assert both.every_channel == ("webhook:http://a", "webhook:http://b")
    assert load_settings(approval_channels="webhook:http://a", alert_channels="").told_channels == ()
