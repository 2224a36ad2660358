"""The text of `/metrics`, held against the client library of Prometheus."""

from __future__ import annotations

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from pilothouse.telemetry.metrics import Sample, Timed, render_metrics

BOUNDS = (0.5, 1.0, 60.0)
LABELS = st.text(st.characters(codec="utf-8"))
VALUES = st.one_of(st.integers(0, 2**53), st.floats(0, 1e12))


def parsed(text: bytes) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if not sample.name.startswith("process_")
    }


@given(st.dictionaries(st.tuples(LABELS, LABELS), VALUES))
def test_whatever_a_label_holds_arrives_as_it_is(figures: dict[tuple[str, str], float]) -> None:
    samples = [Sample(labels, value) for labels, value in figures.items()]

    found = parsed(render_metrics({"agent_tasks_total": samples, "db_pool_size": [Sample((), 3)]}, BOUNDS))

    wanted: dict[tuple[str, ...], float] = {("db_pool_size",): 3.0}
    wanted |= {("agent_tasks_total", *labels): float(value) for labels, value in figures.items()}
    assert found == wanted


@given(
    st.dictionaries(st.sampled_from(["0.25", "0.5", "0.7", "1.0", "60.0", "45.0", "900.0", "inf"]), st.integers(0, 99))
)
def test_a_bucket_counts_everything_up_to_its_bound(counts: dict[str, int]) -> None:
    found = parsed(render_metrics({"agent_task_duration_seconds": [Timed(("a",), counts, 1.5)]}, BOUNDS))

    name = "agent_task_duration_seconds"
    for place, bound in enumerate([*map(str, BOUNDS), "+Inf"]):
        within = sum(count for of, count in counts.items() if bisect_left(BOUNDS, float(of)) <= place)
        assert found[f"{name}_bucket", "a", bound] == within
    assert found[f"{name}_count", "a"] == sum(counts.values())
    assert found[f"{name}_sum", "a"] == 1.5
