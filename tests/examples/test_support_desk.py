"""The support desk: its three ways come to the same, on the script and on a provider that speaks the real protocol."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pilothouse.llm.script import load_script
from tests.llm.conftest import Serving, provider, start_provider

__all__ = ["provider", "start_provider"]

DESK = Path(__file__).parents[2] / "examples" / "support_desk"
LARGE_REFUNDS = 6
NO_KEYS = {"OPENAI_API_KEY", "OPENAI_BASE_URL"}


def run_desk(*command: str, **environment: str) -> str:
    seen = {name: text for name, text in os.environ.items() if name not in NO_KEYS}
    done = subprocess.run(
        [sys.executable, *(command or ["run.py"])],
        cwd=DESK,
        env={**seen, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_there_are_messages_of_many_kinds() -> None:
    messages = [json.loads(line) for line in (DESK / "messages.jsonl").read_text(encoding="utf-8").splitlines()]

    assert len(messages) >= 60
    assert len({message["expect"]["kind"] for message in messages}) >= 10
    assert {"en", "de", "fr", "es", "ja"} <= {message["expect"]["language"] for message in messages}
    assert max(len(message["text"]) for message in messages) > 10_000


def test_its_policies_say_what_their_cases_expect() -> None:
    assert "all cases hold" in run_desk("-m", "pilothouse", "policy", "test", "cases.toml")


@pytest.mark.slow
def test_three_ways_come_to_the_same_on_the_script() -> None:
    told = run_desk()

    assert told.count("65 of 65 kinds as expected, 56 replies, 11 refunds") == 3
    assert "the three came to the same" in told
    approvals = [int(found) for found in re.findall(r"(\d+) approvals", told)]
    assert len(approvals) == 3
    assert min(approvals) >= LARGE_REFUNDS, "each of the three asks about what is over 50 dollars"


@pytest.mark.slow
def test_they_do_so_on_a_provider_and_are_priced(provider: Serving) -> None:
    provider.responder = load_script(DESK / "script.yaml")

    told = run_desk(OPENAI_BASE_URL=f"{provider.url}/v1", OPENAI_API_KEY="any")

    assert told.count("65 of 65 kinds as expected, 56 replies, 11 refunds") == 3
    assert "the three came to the same" in told
    assert "$0.0000" not in told
    assert provider.requests > 500
