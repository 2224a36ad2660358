"""The commands around models and workflows, as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.patience import WAIT_SECONDS

WORKFLOW = """
name: greeting
input: {name: str}
state: {text: str}
output: text
nodes:
  greet: {model: {prompt: "Greet {{ name }}"}, writes: text}
edges: [{from: START, to: greet}, {from: greet, to: END}]
"""


def pilothouse(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pilothouse", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=WAIT_SECONDS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "workflow.yaml").write_text(WORKFLOW, encoding="utf-8")
    return tmp_path


def test_a_workflow_is_checked_drawn_and_described(folder: Path) -> None:
    checked = pilothouse(folder, "workflow", "check", "workflow.yaml")
    drawn = pilothouse(folder, "workflow", "graph", "workflow.yaml")
    mermaid = pilothouse(folder, "workflow", "graph", "workflow.yaml", "--mermaid")
    schema = pilothouse(folder, "workflow", "schema")

    assert (checked.returncode, checked.stdout) == (0, "workflow.yaml is fine: greeting, 1 nodes\n")
    assert "└─▶ greet" in drawn.stdout
    assert mermaid.stdout.startswith("flowchart TD\n")
    assert json.loads(schema.stdout)["title"] == "Pilothouse workflow"


def test_a_mistake_is_one_line_with_its_place(folder: Path) -> None:
    (folder / "workflow.yaml").write_text(WORKFLOW.replace("prompt", "promt"), encoding="utf-8")

    done = pilothouse(folder, "workflow", "check", "workflow.yaml")

    assert done.returncode == 1
    assert "workflow.yaml:7:19: unknown key 'promt'; did you mean 'prompt'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_of_the_other_project_is_imported(folder: Path) -> None:
    (folder / "foreign.yaml").write_text(
        "flow: {name: x}\nstate: {fields: {q: {type: str, required: true}, a: {type: str, default: ''}}}\n"
        "nodes: [{id: n, prompt: 'Say {state.q}', outputs: [a], extra: 1}]\n"
        "edges: [{from: START, to: n}, {from: n, to: END}]\n",
        encoding="utf-8",
    )

    done = pilothouse(folder, "workflow", "import", "foreign.yaml", "--output", "mine.yaml")

    assert done.returncode == 0
    assert "note: extra of node n was left out" in done.stderr
    assert pilothouse(folder, "workflow", "check", "mine.yaml").returncode == 0


def test_the_fake_provider_answers_in_both_protocols(folder: Path) -> None:
    (folder / "script.yaml").write_text("- when: {contains: hello}\n  say: Hello back\n- fault: server_error\n")
    command = [sys.executable, "-m", "pilothouse", "fake-provider", "--port", "0", "--script", "script.yaml", "--json"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            messages = [{"role": "user", "content": "hello"}]
            with httpx2.Client(base_url=url) as client:
                openai = client.post("/v1/chat/completions", json={"model": "m", "messages": messages})
                claude = client.post("/v1/messages", json={"model": "m", "messages": messages, "max_tokens": 9})
                failed = client.post("/v1/chat/completions", json={"model": "m", "messages": []})
                wrong = client.post("/v1/chat/completions", content=b"{}")
                models = client.get("/v1/models")
        finally:
            process.terminate()

    assert openai.json()["choices"][0]["message"]["content"] == "Hello back"
    assert claude.json()["content"] == [{"type": "text", "text": "Hello back"}]
    assert failed.status_code == 500
    assert (wrong.status_code, "model is null" in wrong.text) == (400, True)
    assert models.json()["data"][0]["id"] == "fake"


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('[routes.fast]\nmodels = ["gpt-5"]', "'gpt-5' is no model; write PROVIDER:MODEL"),
        ("[routes.fast]\nmodels = []", "models is empty"),
        (
            '[routes.fast]\nmodels = ["openai:x"]\nmax_tokens = 3',
            "setting routes.fast.max_tokens = 3 (pilothouse.toml): there is no key 'max_tokens'",
        ),
        ('[prices."x:y"]\ninput_usd = -1\noutput_usd = 1', "input_usd is -1"),
        ("[providers.x]\nrequests_per_minute = 0", "requests_per_minute is 0"),
        ('[secrets.X]\nenviron = "Y"', "environ"),
    ],
)
def test_a_setting_that_does_not_fit_names_it(tmp_path: Path, toml: str, message: str) -> None:
    (tmp_path / "pilothouse.toml").write_text(toml + "\n", encoding="utf-8")

    done = pilothouse(tmp_path, "config", "show")

    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_routes_and_prices_are_shown(tmp_path: Path) -> None:
    (tmp_path / "pilothouse.toml").write_text(
        '[routes.fast]\nmodels = ["openai:gpt-5-mini", "offline:echo"]\n'
        '[prices."acme:*"]\ninput_usd = 1\noutput_usd = 2\n'
    )

    done = pilothouse(tmp_path, "config", "show")

    assert "fast: openai:gpt-5-mini, then offline:echo" in done.stdout
    assert "acme:*: 1 in, 2 out" in done.stdout
