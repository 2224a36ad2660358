"""`diagnose` leaves one archive with everything in it but secrets, whatever does not work."""

from __future__ import annotations

import json
import resource
import signal
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Shell
from tests.patience import WAIT_SECONDS

PLANTED = {
    "OPENAI_API_KEY": "planted-openai-one",
    "SMTP_PASSWORD": "planted-smtp-two",
    "MY_CRM": "planted-tool-three",
    "PROVIDER_VARIABLE": "planted-provider-four",
    "REDIS_URL": "redis://ann:planted-redis-five@127.0.0.1:1/0",
    "AWS_SECRET_ACCESS_KEY": "planted-aws-six",
    "PILOTHOUSE_SESSION_SECRET": "planted-session-seven",
}
TOP = """
webhook_secret = "planted-webhook-eight"
log_destination = "stderr, file:worker.log"
otlp_headers = "x-one=planted-header-fourteen, x-two=planted-header-fifteen"
"""
TABLES = """
[secrets.crm]
env = "MY_CRM"

[providers.own]
base_url = "https://ann:planted-base-nine@models.example.com/v1"
keys = ["PROVIDER_VARIABLE"]
"""


def files_of(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        found = {each.name.partition("/")[2]: archive.extractfile(each) for each in archive}
        return {name: file.read().decode() for name, file in found.items() if file}


def planted_log() -> str:
    lines: list[Any] = [{"message": f"asked with {value}", "n": 1} for value in PLANTED.values()]
    lines += [{"authorization": "Bearer planted-header-ten"}, {"message": "GET /?api_key=planted-query-eleven"}]
    lines += ["planted-header-fourteen", "planted-header-fifteen"]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    return text + "plain planted-webhook-eight, postgresql://ann:planted-url-twelve@db/x\nand what is no secret\n"


def test_nothing_that_was_planted_is_in_the_archive(up: Shell, tmp_path: Path) -> None:
    said = up("submit", "broken", '{"nobody": "planted-input-thirteen"}', "--watch")
    up("submit", "hello", '{"name": "planted-input-thirteen"}', "--watch")
    toml = (up.folder / "pilothouse.toml").read_text("utf-8")
    up.write("worker.log", planted_log())
    up.write("other.log", planted_log())
    up.write("pilothouse.toml", TOP + toml + TABLES)
    try:
        said = up("diagnose", "--to", str(tmp_path), "--log", "other.log", "--json", **PLANTED)
    finally:
        up.write("pilothouse.toml", toml)

    assert said.code == 0, said.err
    (path,) = tmp_path.iterdir()
    assert said.json["file"] == str(path)
    assert path.stat().st_mode & 0o777 == 0o600
    files = files_of(path)
    told = "\n".join(files.values()) + said.out + said.err
    assert [line for line in told.splitlines() if "planted-" in line] == []
    assert {"settings.json", "logs/1-worker.log", "logs/2-other.log", "checks.json", "contents.json"} <= files.keys()
    assert "and what is no secret" in files["logs/1-worker.log"]
    assert {each["name"] for each in said.json["contents"]} == files.keys() - {"contents.json"}
    assert [each["name"] for each in said.json["problems"]] == []
    assert json.loads(files["overview.json"])["lanes"]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite:///gone.db", "there is no database"),
        ("postgresql://ann:planted-pg@127.0.0.1:1/x", "cannot be reached"),
        ("nonsense://planted", "cannot be reached"),
    ],
)
def test_without_a_database_the_rest_is_there_and_it_says_so(shell: Shell, url: str, told: str) -> None:
    said = shell("diagnose", "--to", "x.tar.gz", DATABASE_URL=url)

    files = files_of(shell.folder / "x.tar.gz")
    assert (said.code, told in said.out, told in files["contents.json"]) == (0, True, True), said
    assert {"README.txt", "versions.json", "settings.json", "contents.json"} <= files.keys()
    assert "planted-pg" not in said.out + "".join(files.values())


def test_with_settings_that_are_wrong_it_says_what_is(shell: Shell) -> None:
    shell.write("pilothouse.toml", 'port = "many"\n' + TOP + TABLES)
    shell.write("other.log", planted_log())

    said = shell("diagnose", "--to", "x.tar.gz", "--log", "other.log", "--json", **PLANTED)

    assert said.code == 0
    assert {each["name"] for each in said.json["problems"]} >= {"settings.json", "database"}
    assert any("port" in each["problem"] for each in said.json["problems"])
    assert "planted-" not in said.out + "".join(files_of(shell.folder / "x.tar.gz").values())


def test_an_interrupt_leaves_no_half_archive(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://ann@127.0.0.1:{silent.getsockname()[1]}/x"
        process = shell.start("diagnose", "--to", "x.tar.gz", DATABASE_URL=url)
        silent.settimeout(WAIT_SECONDS)
        with silent.accept()[0]:
            assert (shell.folder / "x.tar.gz.part").exists()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=WAIT_SECONDS)

    assert process.returncode == 130
    assert list(shell.folder.iterdir()) == []


def test_a_full_disk_leaves_no_half_archive(shell: Shell) -> None:
    shell.write("big.log", "".join(f"{n * 7919 % 1_000_003} {n}\n" for n in range(50_000)))

    done = subprocess.run(
        [sys.executable, "-m", "pilothouse", "diagnose", "--to", "x.tar.gz", "--log", "big.log"],
        cwd=shell.folder,
        env=shell.environment({}),
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )

    assert (done.returncode, "x.tar.gz cannot be written" in done.stderr) == (1, True), done.stderr
    assert [each.name for each in shell.folder.iterdir()] == ["big.log"]


def test_a_folder_that_is_not_there_is_named(shell: Shell) -> None:
    said = shell("diagnose", "--to", "nowhere/x.tar.gz")

    assert (said.code, "nowhere/x.tar.gz cannot be written: No such file or directory" in said.err) == (1, True)
