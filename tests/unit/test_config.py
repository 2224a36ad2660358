"""Settings: where each comes from, which source wins, and what is told about a wrong one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pilothouse.config import Settings, describe_settings, environment_names, load_settings, mask
from pilothouse.errors import ConfigError

FILE = "pilothouse.toml"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no setting in the environment."""
    monkeypatch.chdir(tmp_path)
    names = {variable for name in Settings.model_fields for variable in environment_names(name)}
    for variable in names & {each.upper() for each in os.environ}:
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def shown(name: str, **overrides: Any) -> tuple[str, str]:
    return next((each.value, each.source) for each in describe_settings(**overrides) if each.name == name)


def test_everything_has_a_default() -> None:
    settings = load_settings()

    assert settings.database_url == "sqlite:///./pilothouse.db"
    assert settings.lease_us == 15_000_000
    assert (dict(settings.slots.reserved), settings.slots.shared) == ({"critical": 4, "normal": 8, "low": 2}, 4)
    assert {each.source for each in describe_settings()} == {"default"}


@pytest.mark.parametrize("variable", environment_names("database_url"))
def test_a_source_beats_those_below_it(folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    (folder / FILE).write_text('database_url = "sqlite:///file.db"\n')
    assert shown("database_url") == ("sqlite:///file.db", FILE)

    monkeypatch.setenv(variable, "sqlite:///environment.db")

    assert shown("database_url") == ("sqlite:///environment.db", variable)
    assert shown("database_url", database_url="sqlite:///given.db") == ("sqlite:///given.db", "command line")


def test_among_the_names_of_one_setting_the_first_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    names = environment_names("database_url")
    assert names == ["DATABASE_URL", "POSTGRES_URL", "PILOTHOUSE_DATABASE_URL"]

    for variable in reversed(names):
        monkeypatch.setenv(variable, f"sqlite:///{variable}.db")

        assert shown("database_url") == (f"sqlite:///{variable}.db", variable)


@pytest.mark.parametrize(
    "name", [name for name in Settings.model_fields if name.upper() not in environment_names(name)]
)
def test_a_bare_name_belongs_to_somebody_else(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name.upper(), "nonsense")

    assert shown(name)[1] == "default"


def test_a_share_is_written_as_people_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / FILE).write_text('cache_at = "30 %"\n')
    monkeypatch.setenv("DEGRADE_TO_SMALL_MODEL_AT", "15%")

    settings = load_settings()

    assert (settings.degrade_at, settings.cache_at) == (0.15, 0.3)


def test_nothing_is_unlimited_by_omission() -> None:
    limits = {(limit.scope, limit.period, limit.unit) for limit in load_settings().limits}

    assert limits >= {
        *(("run:*", "run", unit) for unit in ("microusd", "tokens", "calls", "seconds")),
        *(("global", period, "microusd") for period in ("day", "month")),
        ("user:*", "day", "tokens"),
        ("tenant:*", "day", "actions"),
    }


def test_an_override_of_none_is_no_override() -> None:
    assert shown("port", port=None) == ("8000", "default")


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("prot = 1\n", "there is no setting 'prot'; did you mean 'port'?"),
        ("maxTokensPerTask = 1\n", "there is no setting 'maxTokensPerTask'; did you mean 'max_run_tokens'?"),
        (
            'degrade_at = "a lot%"\n',
            "setting degrade_at = 'a lot%' (pilothouse.toml): write a share such as 0.2 or 20%",
        ),
        ('cache_at = "120%"\n', "setting cache_at = 1.2 (pilothouse.toml): Input should be less than or equal to 1"),
        ("zzzzzz = 1\n", "`pilothouse config show` lists the settings"),
        ("[pilothouse]\nport = 1\n", "there is no setting 'pilothouse'"),
        ('DATABASE_URL = "x"\n', "there is no setting 'DATABASE_URL'"),
        ("port = \n", "pilothouse.toml cannot be read"),
        ('port = "many"\n', "setting port = 'many' (pilothouse.toml)"),
        ("port = 70000\n", "setting port = 70000 (pilothouse.toml)"),
        ('log_level = "loud"\n', "setting log_level = 'loud' (pilothouse.toml)"),
        ('lanes = "fast=1"\n', "'fast=1' is not LANE=SLOTS"),
        ("lease_seconds = 5\n", "lease_seconds is 5, but a lease must last at least two renewals of 3 s"),
        ("audit_retention_days = 7\n", "audit_retention_days is 7, but the audit must outlast the runs"),
        ("retention_days = 0\naudit_retention_days = 900\n", "retention_days is 0 (0: for ever)"),
        (
            'log_destination = "syslog"\n',
            "log_destination = 'syslog' (pilothouse.toml): use stderr, stdout, file:PATH or",
        ),
        ("max_concurrent_runs = 3\n", "max_concurrent_runs is 3, but the lanes reserve 14"),
    ],
)
def test_a_wrong_file_is_told(folder: Path, file: str, told: str) -> None:
    (folder / FILE).write_text(file)

    with pytest.raises(ConfigError) as refused:
        load_settings()

    assert told in str(refused.value)


def test_a_wrong_value_is_told_with_the_source_that_set_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / FILE).write_text("port = 1\n")
    monkeypatch.setenv("PILOTHOUSE_PORT", "tcp://10.0.0.1:80")
    with pytest.raises(ConfigError, match=r"setting port = 'tcp://10\.0\.0\.1:80' \(PILOTHOUSE_PORT\)"):
        load_settings()
    with pytest.raises(ConfigError, match=r"setting port = 70000 \(command line\)"):
        load_settings(port=70000)


def test_an_empty_database_url_is_refused_instead_of_falling_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")

    with pytest.raises(ConfigError, match=r"setting database_url = '' \(DATABASE_URL\)"):
        load_settings()


def test_all_slots_together_leave_the_rest_to_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_MAX_CONCURRENT_TASKS", "20")

    assert (load_settings().slots.total, load_settings().slots.shared) == (20, 6)


@pytest.mark.parametrize(
    ("renew", "lease", "microseconds"), [(3, None, 15_000_000), (9, None, 27_000_000), (3, 6, 6_000_000)]
)
def test_a_lease_outlasts_its_renewals(renew: float, lease: float | None, microseconds: int) -> None:
    assert load_settings(renew_interval_seconds=renew, lease_seconds=lease).lease_us == microseconds


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().port = 1


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql://me:a/b:c@d@host/db", "postgresql://me:***@host/db"),
        ("postgresql://:secret@host/db", "postgresql://:***@host/db"),
        ("postgresql://me:secret@[broken/db", "postgresql://me:***@[broken/db"),
        ("postgresql://host/db?user=me&password=secret&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
        ("sqlite:///./pilothouse.db", "sqlite:///./pilothouse.db"),
        (None, ""),
    ],
)
def test_passwords_are_masked(url: str | None, masked: str) -> None:
    assert mask(url) == masked


def test_masked_values_are_what_config_show_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:secret@host/db")
    monkeypatch.setenv("DIRECT_URL", "postgresql://me:secret@direct/db")

    assert not [each for each in describe_settings() if "secret" in each.value]


@pytest.mark.parametrize(
    ("caps", "told"),
    [
        ('"email" = 1', "'email' is no scope; write global, agent:NAME, platform:NAME"),
        ('"run:*" = 1', "the limit of run:* is per run, not per day"),
        ('"tool:send" = -1', "the amount is -1; it must be 0 or more"),
        ('"tenant:*" = 1', "the cap of every tenant is max_actions_per_day"),
    ],
)
def test_an_action_cap_that_cannot_be_is_named(folder: Path, caps: str, told: str) -> None:
    (folder / FILE).write_text(f"[action_caps]\n{caps}\n")

    with pytest.raises(ConfigError) as refused:
        load_settings()

    assert told in str(refused.value)


def test_action_caps_come_from_the_file(folder: Path) -> None:
    (folder / FILE).write_text('[action_caps]\n"platform:email" = 100\n"agent:*" = 5\n')

    caps = {limit.scope: limit.amount for limit in load_settings().limits if limit.unit == "actions"}

    assert caps == {"tenant:*": 1000, "platform:email": 100, "agent:*": 5}
