"""Reports, parts that add up, and providers' exports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.costs import CostLine, Figure, compare, is_same, share_of, spread
from pilothouse.domain.exports import read_export

OPENAI_COSTS = """\
start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,line_item,project_id
1790467200,1790553600,2026-09-27T00:00:00+00:00,2026-09-28T00:00:00+00:00,,,,
1790553600,1790640000,2026-09-28T00:00:00+00:00,2026-09-29T00:00:00+00:00,0.003836,usd,"gpt-5-mini-2025-08-07, input",p
1790553600,1790640000,2026-09-28T00:00:00+00:00,2026-09-29T00:00:00+00:00,0.01,usd,"gpt-5-mini-2025-08-07, output",p
"""
OPENAI_USAGE = """\
start_time,end_time,start_time_iso,end_time_iso,project_id,num_model_requests,model,input_tokens,output_tokens,input_cached_tokens
1761523800,1761523860,2025-10-27T00:10:00+00:00,2025-10-27T00:11:00+00:00,p,3,gpt-5-mini-2025-08-07,4212,1673,0
1761523860,1761523920,2025-10-27T00:11:00+00:00,2025-10-27T00:12:00+00:00,p,3,gpt-5-mini-2025-08-07,5904,1419,0
"""
ANTHROPIC_COSTS = """\
usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,list_price_usd,cost_type
2026-08-04,Claude Haiku 4.5,Default,k,message,≤ 200k,input_no_cache,0.05,0.05,token
2026-08-04,Claude Haiku 4.5,Default,k,message,≤ 200k,output,0.02,0.02,token
"""
ANTHROPIC_BESIDE = ANTHROPIC_COSTS + "2026-08-04,,Default,k,web_search,,,0.01,0.01,web_search\n"
ANTHROPIC_SHORT = """\
usage_date_utc,model_version,api_key,workspace,usage_type,context_window,usage_input_tokens_no_cache,usage_output_tokens
2026-08-04,claude-haiku-4-5-20251001,k,Default,standard,≤ 200k,100,50
"""
ANTHROPIC_TOKENS = """\
usage_date_utc,model_version,api_key,workspace,usage_type,context_window,usage_input_tokens_no_cache,\
usage_input_tokens_cache_write_5m,usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens
2026-08-04,claude-haiku-4-5-20251001,k,Default,message,≤ 200k,100,1,2,3,50
"""


@pytest.mark.parametrize(
    ("text", "provider", "place", "figure"),
    [
        (OPENAI_COSTS, "openai", ("2026-09-28", "gpt-5-mini-2025-08-07"), Figure(13_836, None)),
        (OPENAI_USAGE, "openai", ("2025-10-27", "gpt-5-mini-2025-08-07"), Figure(None, 13_208)),
        (ANTHROPIC_COSTS, "anthropic", ("2026-08-04", "Claude Haiku 4.5"), Figure(70_000, None)),
        (ANTHROPIC_TOKENS, "anthropic", ("2026-08-04", "claude-haiku-4-5-20251001"), Figure(None, 156)),
        (ANTHROPIC_SHORT, "anthropic", ("2026-08-04", "claude-haiku-4-5-20251001"), Figure(None, 150)),
        ("\ufeffDay,x\n", None, None, None),
    ],
)
def test_the_exports_of_providers_are_read(
    text: str, provider: str | None, place: tuple[str, str] | None, figure: Figure | None
) -> None:
    if place is None:
        with pytest.raises(ValueError, match="no column for the day; it has Day, x: name it with --map day=COLUMN"):
            read_export(text, {})
        return
    export = read_export(text, {})

    assert (export.provider, dict(export.figures)) == (provider, {place: figure})


def test_what_belongs_to_no_model_is_not_all_models_together() -> None:
    theirs = read_export(ANTHROPIC_BESIDE, {}).figures
    ours = {("2026-08-04", "anthropic:claude-haiku-4-5"): Figure(60_000, 10)}

    rows = compare(ours, theirs, {}, "anthropic")

    assert [(row.model, row.names, row.difference_microusd) for row in rows] == [
        ("Claude Haiku 4.5", ("anthropic:claude-haiku-4-5",), 10_000),
        ("no model", (), None),
    ]


def test_columns_are_named_where_they_are_not_known() -> None:
    export = read_export("when,what,spent\n2026-11-01,m,1.25\n", {"day": "when", "model": "what", "cost": "spent"})

    assert dict(export.figures) == {("2026-11-01", "m"): Figure(1_250_000, None)}


@pytest.mark.parametrize(
    ("text", "mapping", "message"),
    [
        ("day,cost\n2026-11-01,x\n", {}, "line 2: column cost holds 'x', which is no number"),
        ("day,cost\n2026-11-01,nan\n", {}, "line 2: column cost holds 'nan', which is no number"),
        ("day,cost\n2026-11-01,1e999999\n", {}, "which is no number, or too large"),
        ("day,cost\nyesterday,1\n", {}, "line 2: 'yesterday' is no day; write it as 2026-11-21"),
        ("day,cost\n2026-11-01,1\n", {"costs": "cost"}, "there is no field 'costs' to map"),
        ("day,cost\n2026-11-01,1\n", {"cost": "usd"}, "the file has no column 'usd' for cost; it has day, cost"),
        ("day,model\n2026-11-01,m\n", {}, "no column for a cost or tokens"),
        ("", {}, "no column for the day; it has none"),
        ("day,amount_value,amount_currency\n2026-11-01,1,eur\n", {}, "the amount is in eur, not in dollars"),
    ],
)
def test_a_file_that_does_not_fit_says_where(text: str, mapping: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_export(text, mapping)


@given(st.text(max_size=300))
def test_any_file_is_read_or_refused(text: str) -> None:
    try:
        read_export(text, {})
    except ValueError:
        return


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("openai:gpt-5-mini", "gpt-5-mini-2025-08-07", True),
        ("openai:gpt-5", "gpt-5-mini-2025-08-07", False),
        ("anthropic:claude-haiku-4-5", "Claude Haiku 4.5", True),
        ("anthropic:claude-haiku-4-5", "claude-haiku-4-5-20251001", True),
        ("anthropic:claude-haiku-4-5-20251001", "Claude Haiku 4.5", True),
        ("anthropic:claude-sonnet-4-5", "Claude Haiku 4.5", False),
        ("openai:gpt-5", "", True),
    ],
)
def test_models_are_known_by_the_names_of_exports(ours: str, theirs: str, same: bool) -> None:
    assert is_same(ours, theirs) is same


def test_rows_of_both_sides_are_put_side_by_side() -> None:
    ours = {("d", "openai:a"): Figure(10, 1), ("d", "openai:b"): Figure(5, 1), ("d", "anthropic:c"): Figure(7, 1)}
    theirs = {("d", "a"): Figure(12, None), ("d", "x"): Figure(3, None)}

    rows = compare(ours, theirs, {("d", "openai:a"): 4}, "openai")

    assert [(row.model, row.names, row.difference_microusd, row.held_microusd) for row in rows] == [
        ("a", ("openai:a",), 2, 4),
        ("openai:b", ("openai:b",), None, 0),
        ("x", (), None, 0),
    ]
    (total,) = compare(ours, {("d", ""): Figure(20, None)}, {}, "openai")
    assert (total.names, total.ours.microusd, total.difference_microusd) == (("openai:a", "openai:b"), 15, 5)


@given(st.integers(-(10**15), 10**15), st.lists(st.integers(0, 10**12), min_size=1, max_size=30))
def test_parts_add_up_and_follow_the_weights(amount: int, weights: list[int]) -> None:
    parts = spread(amount, weights)

    assert sum(parts) == amount
    total = sum(weights)
    for part, weight in zip(parts, weights, strict=True):
        if total:
            assert abs(part - amount * weight / total) <= 1 + abs(amount) / 10**14
        if 0 < -amount <= total:
            assert weight + part >= 0, "nobody gets back more than they paid"


def line(microusd: int, *, known: int, succeeded: int) -> CostLine:
    return CostLine("x", 1, 1, 0, microusd, 0, 3, 2, succeeded, known)


def test_a_successful_run_bears_the_cost_of_the_others_that_are_known() -> None:
    lines = [line(300, known=200, succeeded=2), line(100, known=100, succeeded=0)]

    assert [each.microusd_per_success for each in lines] == [100, None]
    assert [share_of(each, lines) for each in lines] == [0.75, 0.25]
    assert share_of(line(0, known=0, succeeded=0), [line(0, known=0, succeeded=0)]) == 0.0
