"""Whatever leaves the platform holds no secret, however it is written."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.hiding import Hiding

SECRET = 'correct-horse/battery"staple\\ü'
NONE = Hiding(())


@pytest.mark.parametrize(
    "text",
    [
        f"it said {SECRET}!",
        json.dumps({"a": SECRET}),
        json.dumps({"a": SECRET}, ensure_ascii=False),
        f"https://x/?a={quote(SECRET, safe='')}",
        repr(SECRET),
    ],
)
def test_a_known_secret_is_found_however_it_is_written(text: str) -> None:
    shown = Hiding([SECRET]).line(text)

    assert "***" in shown
    assert "horse" not in shown
    assert Hiding([SECRET]).line(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://ann:p%40ss@db/x", "postgresql://ann:***@db/x"),
        ("Authorization: Bearer abc", "Authorization: Bearer ***"),
        ("sent Basic YW5uOnBhc3M=", "sent Basic ***"),
        ("password=hunter2&x=1", "password=***&x=1"),
        ("SMTP_PASSWORD: 'hunter2'", "SMTP_PASSWORD: '***'"),
        ('{"api_key":"abc","n":1}', '{"api_key":"***","n":1}'),
        ("key sk-proj-abcdefghijklmnop", "key ***"),
        ("by ph_5f0c1e2a9b34_abcdefghijkl", "by ***"),
        ("bot 123456789:AAE-abcdefghijklmnopqrstuvwxyz012345", "bot ***"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\ndef\n-----END RSA PRIVATE KEY-----\nx", "***\nx"),
    ],
)
def test_what_looks_like_a_secret_is_one(text: str, shown: str) -> None:
    assert NONE.text(text) == shown
    assert NONE.text(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        '{"input_tokens": 512, "tokens": 7}',
        "run 01a20065-2957-79fd-9c16-18ed9b695283 is queued",
        "no token was given",
        "password=***",
        "http://127.0.0.1:8000/ready",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert NONE.line(text) == text


def test_a_name_that_says_so_hides_its_text_and_nothing_else() -> None:
    value = {"client_secret": "x", "nested": [{"password": "y", "tokens": 3}], "name": "webhook_secret", "token": None}

    assert NONE.value(value) == {
        "client_secret": "***",
        "nested": [{"password": "***", "tokens": 3}],
        "name": "webhook_secret",
        "token": None,
    }


@given(st.text(min_size=6, max_size=40), st.text(max_size=20), st.text(max_size=20))
def test_no_secret_outlives_it(secret: str, before: str, after: str) -> None:
    shown = Hiding([secret]).value({"said": before + secret + after})["said"]

    assert secret not in shown.replace("***", "\0")


def test_a_long_line_takes_no_long_time() -> None:
    assert len(NONE.line("a" * 1_000_000)) == 1_000_000
