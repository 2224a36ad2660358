"""Policies are pure: what the built-in rules and those of the settings say, and that verdicts form a lattice."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.config import load_settings
from pilothouse.control.policy_cases import read_cases, run_cases
from pilothouse.domain.approvals import Memo, missing_of
from pilothouse.domain.notices import Link, body, parse_channels, read_link, recipient_of, sign_link
from pilothouse.domain.policies import (
    ALLOWED,
    ON_DEADLINE,
    REVIEWERS,
    STRICTNESS,
    Decision,
    Facts,
    Proposal,
    Reason,
    Rule,
    Rulebook,
    Thresholds,
    Verdict,
    join,
    parse_days,
)
from pilothouse.errors import ConfigError

reasons = st.builds(Reason, st.sampled_from("abc"), st.sampled_from(Decision), st.sampled_from(["x", "y"]))
verdicts = st.builds(
    Verdict,
    st.sampled_from(Decision),
    st.lists(reasons, max_size=3).map(lambda found: join(Verdict(Decision.ALLOW, tuple(found)), ALLOWED).reasons),
    st.integers(1, 3),
    st.sampled_from(REVIEWERS),
    st.none() | st.sampled_from([1.0, 2.0]),
    st.sampled_from(ON_DEADLINE),
)


@given(verdicts, verdicts, verdicts)
def test_verdicts_form_a_lattice(one: Verdict, two: Verdict, three: Verdict) -> None:
    both = join(one, two)

    assert both == join(two, one)
    assert join(both, three) == join(one, join(two, three))
    assert join(one, one) == one == join(one, ALLOWED)
    assert STRICTNESS[both.decision] == max(STRICTNESS[one.decision], STRICTNESS[two.decision])
    assert set(both.reasons) == {*one.reasons, *two.reasons}
    assert both.quorum >= max(one.quorum, two.quorum)


rules = st.builds(
    Rule,
    then=st.sampled_from(Decision),
    tool=st.sampled_from([None, "pay", "p*"]),
    amount_over_usd=st.sampled_from([None, 5.0, 50.0]),
    risk_at_least=st.sampled_from([None, 1, 3]),
    first_time=st.sampled_from([None, True]),
    quorum=st.integers(1, 3),
)
proposals = st.builds(
    Proposal,
    agent=st.just("a"),
    action=st.sampled_from(["pay", "look"]),
    amount_usd=st.floats(0, 100),
    risk=st.integers(0, 4),
    people_affected=st.integers(0, 200),
)


@given(st.dictionaries(st.sampled_from("abcde"), rules), st.sampled_from("xyz"), rules, proposals, st.booleans())
def test_one_more_rule_never_makes_a_verdict_milder(
    book: dict[str, Rule], name: str, more: Rule, proposal: Proposal, is_first_time: bool
) -> None:
    facts = Facts(is_first_time=is_first_time)

    before = Rulebook(rules=book).verdict(proposal, facts)
    after = Rulebook(rules={**book, name: more}).verdict(proposal, facts)

    assert STRICTNESS[after.decision] >= STRICTNESS[before.decision]
    assert set(before.reasons) <= set(after.reasons)
    assert after.quorum >= before.quorum
    assert after.version != before.version


@given(proposals, st.floats(0, 100), st.integers(0, 4))
def test_more_at_stake_is_never_asked_less(proposal: Proposal, amount: float, risk: int) -> None:
    book, less = Rulebook(), Proposal("a", proposal.action, amount_usd=amount, risk=risk)
    more = Proposal("a", proposal.action, amount_usd=amount + proposal.amount_usd, risk=max(risk, proposal.risk))

    milder, stricter = (book.verdict(each, Facts()).decision for each in (less, more))
    assert STRICTNESS[stricter] >= STRICTNESS[milder]


@pytest.mark.parametrize(
    ("changes", "facts", "spoke"),
    [
        ({}, {}, []),
        ({"amount_usd": 10}, {}, []),
        ({"amount_usd": 10.01}, {}, ["amount"]),
        ({"risk": 1}, {}, []),
        ({"risk": 2}, {}, ["risk"]),
        ({"people_affected": 100}, {}, []),
        ({"people_affected": 101}, {}, ["people"]),
        ({"billing": "recurring"}, {}, ["recurring"]),
        ({"billing": "one_time"}, {}, []),
        ({}, {"confidence": 0.9}, []),
        ({}, {"confidence": 0.89}, ["confidence"]),
        ({}, {"is_first_time": True}, []),
    ],
)
def test_the_built_in_rules(changes: dict[str, Any], facts: dict[str, Any], spoke: list[str]) -> None:
    verdict = Rulebook().verdict(Proposal("a", "pay", **changes), Facts(**facts))

    assert [reason.rule for reason in verdict.reasons] == spoke
    assert verdict.decision is (Decision.ASK if spoke else Decision.ALLOW)


@pytest.mark.parametrize(("risk", "quorum", "reviewer"), [(2, 1, "operator"), (3, 1, "admin"), (4, 2, "operator")])
def test_tiers(risk: int, quorum: int, reviewer: str) -> None:
    verdict = Rulebook().verdict(Proposal("a", "pay", risk=risk), Facts())

    assert (verdict.quorum, verdict.reviewer) == (quorum, reviewer)


def test_a_denied_class_of_data_is_denied() -> None:
    book = Rulebook(Thresholds(denied_data_classes=("health",)))

    assert book.verdict(Proposal("a", "pay", data_class="health", risk=4), Facts()).decision is Decision.DENY
    assert book.verdict(Proposal("a", "pay", data_class="pii"), Facts()).decision is Decision.ALLOW


def at(text: str) -> Facts:
    return Facts(now=datetime.fromisoformat(text).replace(tzinfo=UTC))


@pytest.mark.parametrize(
    ("rule", "instant", "speaks"),
    [
        ({"outside_hours": "08:00-18:00"}, "2026-03-02T07:59", True),
        ({"outside_hours": "08:00-18:00"}, "2026-03-02T08:00", False),
        ({"outside_hours": "08:00-18:00"}, "2026-03-02T18:00", True),
        ({"outside_hours": "22:00-06:00"}, "2026-03-02T23:00", False),
        ({"outside_hours": "22:00-06:00"}, "2026-03-02T12:00", True),
        ({"outside_hours": "08:00-18:00", "timezone": "Asia/Tokyo"}, "2026-03-02T00:00", False),
        ({"outside_hours": "08:00-18:00", "timezone": "Europe/Paris"}, "2026-03-29T06:30", False),  # summer time is on
        ({"outside_hours": "08:00-18:00", "timezone": "Europe/Paris"}, "2026-03-28T06:30", True),
        ({"days": "mon-fri"}, "2026-03-07T12:00", True),
        ({"days": "mon-fri", "outside_hours": "08:00-18:00"}, "2026-03-06T12:00", False),
    ],
)
def test_hours(rule: dict[str, Any], instant: str, speaks: bool) -> None:
    verdict = Rulebook(rules={"hours": Rule(then=Decision.ASK, **rule)}).verdict(Proposal("a", "pay"), at(instant))

    assert bool(verdict.reasons) == speaks


def test_days_may_go_round_the_week() -> None:
    assert parse_days("sat-mon") == {5, 6, 0}
    assert parse_days("mon,wed") == {0, 2}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("amuont_over_usd = 1", "there is no key 'amuont_over_usd'; did you mean 'amount_over_usd'?"),
        ('outside_hours = "8 to 6"', "write a span such as 08:00-18:00"),
        ('timezone = "Paris"', "write an IANA name"),
        ("risk_at_least = 9", "risk_at_least is 9"),
        ("quorum = 0", "quorum is 0"),
        ("deadline_hours = 0", "must be more than 0"),
        ('days = "someday"', "write days such as"),
        ('reviewer = "boss"', "reviewer"),
    ],
)
def test_a_rule_that_makes_no_sense_is_an_error_that_names_it(
    line: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pilothouse.toml").write_text(f'[policies.mine]\nthen = "ask"\n{line}\n')

    with pytest.raises(ConfigError, match=r"policies\.mine") as raised:
        load_settings()
    assert told in str(raised.value)


def test_cases_of_a_file_are_held_against_the_rules(tmp_path: Path) -> None:
    file = tmp_path / "cases.yaml"
    file.write_text(
        """
cases:
  - {name: small, proposal: {tool: pay, amount: 5}, verdict: allow}
  - {name: wrong, proposal: {tool: pay, amount: 50}, verdict: allow}
  - {name: two, proposal: {tool: pay, risk: 4}, verdict: ask, quorum: 2, rules: [risk]}
  - {name: night, proposal: {tool: pay}, facts: {now: "2026-03-02T03:00:00"}, verdict: deny}
"""
    )
    book = Rulebook(rules={"night": Rule(then=Decision.DENY, outside_hours="08:00-18:00")})

    outcomes = run_cases(book, read_cases(file))

    assert [each.name for each in outcomes if not each.holds] == ["small", "wrong", "two"]
    assert "expected allow, got deny" in outcomes[0].problems[0]


def test_a_case_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "cases.toml"
    file.write_text('[[cases]]\nname = "x"\nproposal = {tool = "pay", amuont_usd = 5}\nverdict = "allow"\n')

    with pytest.raises(ConfigError, match=r"case 1 \(x\), proposal: there is no key 'amuont_usd'; did you mean"):
        read_cases(file)


# --- memos and links ---------------------------------------------------------------------------


@given(st.integers(2, 4), st.sampled_from(["title", "recommendation"]))
def test_what_is_asked_of_people_is_complete(risk: int, missing: str) -> None:
    whole = {"title": "t", "recommendation": "r", "reasoning": "because", "arguments": {}, "risk": risk}

    assert missing_of(Memo(**whole)) == []  # type: ignore[arg-type]
    assert missing_of(Memo(**(whole | {missing: " "})))[0].startswith(missing)  # type: ignore[arg-type]


@given(st.text(), st.sampled_from(["approve", "reject", "revise"]), st.text(max_size=50), st.integers(1, 2**40))
def test_a_link_reads_as_it_was_signed_until_it_expires(id: str, choice: Any, recipient: str, expires_at: int) -> None:
    link = Link(id, choice, recipient, expires_at)
    token = sign_link("secret", link)

    assert read_link("secret", token, now=expires_at - 1) == link
    assert read_link("secret", token, now=expires_at) is None
    assert read_link("other", token, now=0) is None


@given(st.text(), st.integers(0, 200))
def test_no_other_token_is_a_link(noise: str, place: int) -> None:
    token = sign_link("secret", Link("id", "approve", "email:a@b", 10))
    changed = token[:place] + noise + token[place + 1 :]

    if changed != token:
        assert read_link("secret", changed, now=0) is None
    assert read_link("secret", noise, now=0) is None


def test_channels() -> None:
    assert parse_channels(" email:a@b.c, telegram:-42 ,webhook:https://x/y?z=1 ") == (
        "email:a@b.c",
        "telegram:-42",
        "webhook:https://x/y?z=1",
    )
    assert recipient_of("webhook:https://hooks.example/T0/secret").startswith("webhook:")
    assert "secret" not in recipient_of("webhook:https://hooks.example/T0/secret")
    for wrong in ("email:nobody", "fax:1", "webhook:ftp://x", "telegram:"):
        with pytest.raises(ValueError, match="approval_channels has"):
            parse_channels(wrong)


APPROVAL: dict[str, Any] = {
    "title": "t",
    "agent": "a",
    "action": "x",
    "run_id": "r",
    "cost_usd": 5.0,
    "billing": "none",
    "risk_assessment": "tier 2",
    "confidence": None,
    "recommendation": "r" * 5000,
    "reasoning": "",
    "alternatives": [],
    "arguments": {},
    "quorum": 1,
    "reviewer": "operator",
    "deadline_at": None,
    "on_deadline": "wait",
}


def test_a_message_that_is_too_long_keeps_its_links() -> None:
    text = body(APPROVAL, "requested", {"approve": "https://a/b"}, limit=1000)

    assert len(text) <= 1000
    assert text.endswith("Approve: https://a/b")


def test_a_message_says_what_there_is_to_decide_on_in_plain_words() -> None:
    memo = APPROVAL | {
        "recommendation": "go",
        "billing": "recurring",
        "confidence": 0.625,
        "alternatives": ["wait"],
        "deadline_at": "2026-03-02T12:30:00.000001Z",
        "on_deadline": "escalate",
    }

    assert body(memo, "requested", {"decide": "https://a/b"}).splitlines() == [
        "Approval wanted: t",
        "",
        "Agent a, x, run r.",
        "Cost: 5.00 USD, again and again.",
        "Risk: tier 2",
        "Confidence: 0.62, as the agent states it.",
        "",
        "Recommendation: go",
        "",
        "Alternatives:",
        "- wait",
        "",
        "Arguments:",
        "{}",
        "",
        "Deadline: 2026-03-02 12:30 UTC; after that senior reviewers are asked.",
        "",
        "Decide: https://a/b",
    ]
    assert "Nobody decided before its deadline, 2026-03-02 12:30 UTC." in body(memo, "escalated", {})
