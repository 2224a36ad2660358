"""`webhook` and `telegram`: messages to people and to other systems."""

from __future__ import annotations

from typing import Annotated, Any

from pilothouse.domain.effects import Effect
from pilothouse.engine.tools import Secret, Tool, ToolOptions, make_tool
from pilothouse.errors import ToolError
from pilothouse.tools.sending import refuse_failed, refuse_too_many

TELEGRAM = "https://api.telegram.org"
ANSWER_SHOWN = 300


def webhook(url: str, *, name: str = "webhook", is_idempotent: bool = False) -> Tool:
    """A tool that posts JSON to one address, with the key of the effect as `Idempotency-Key`.

    `is_idempotent` says that whoever is there looks at that key, so that a call may be sent again after a crash.
    """

    async def post(data: dict[str, Any], effect_key: str) -> Any:
        """Posts JSON data and returns the status of the answer."""
        return {"status": await _post(url, data, {"Idempotency-Key": effect_key})}

    return make_tool(post, name, ToolOptions(effect=Effect.WRITE, platform="webhook", idempotent=is_idempotent))


def telegram(*, chat_id: str, token_secret: str, name: str = "telegram", base_url: str = TELEGRAM) -> Tool:
    """A tool that sends text to one chat; `token_secret` names the secret that holds the bot's token."""

    async def send(text: str, token: str) -> Any:
        """Sends a message to the chat."""
        return {"status": await _post(f"{base_url}/bot{token}/sendMessage", {"chat_id": chat_id, "text": text}, {})}

    send.__annotations__["token"] = Annotated[str, Secret(token_secret)]
    return make_tool(send, name, ToolOptions(effect=Effect.IRREVERSIBLE, platform="telegram"))


async def _post(url: str, data: dict[str, Any], headers: dict[str, str]) -> int:
    import httpx2

    async with httpx2.AsyncClient(timeout=None) as client:
        try:
            answer = await client.post(url, json=data, headers=headers)
        except httpx2.HTTPError as error:
            refuse_failed(error, "the message was not taken", changes_the_world=True)
    refuse_too_many(answer, "the message was not taken")
    if answer.is_error:
        raise ToolError(f"the message was not taken: {answer.status_code} {answer.text[:ANSWER_SHOWN]}")
    return answer.status_code
