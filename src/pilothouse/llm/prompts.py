"""What goes to a model and what comes back, in Pydantic AI's messages, which every framework's can be turned into."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from pilothouse.control.calls import ModelCall
from pilothouse.domain.lanes import Lane

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models import Model, ModelRequestParameters
    from pydantic_ai.settings import ModelSettings


MARKS = 16
"""Tokens, at most, that a provider puts around each message, part and tool."""

FORMS = 1024
"""Tokens, at most, of what a provider itself says to a model about tools and forms, where there are any."""

FRAME = 1024
"""Bytes, at most, that Pydantic AI writes around what it asks a model to do again, and says once of how it does so."""

IMAGE_TOKENS = 50_000
"""More than any provider is known to count for one image; OpenAI's gpt-4o-mini comes close, with up to 48,169."""

USUAL_BYTES = 6_000
"""An image or a file counts about like so much text. It is no bound."""

MEDIA = frozenset({"binary", "image-url", "audio-url", "document-url", "video-url", "uploaded-file"})
UNSAID = frozenset({"timestamp", "timestamps", "metadata", "part_kind", "kind"})

_JSON_SHARE = 2
"""A schema may be told in a language of the provider's own, which has at most about twice as many marks."""


@dataclass(frozen=True, slots=True)
class Asker:
    """For whom a model is asked. `calls_before` counts the run's questions before this one, `step` is its key."""

    run_id: str
    agent: str
    tenant: str
    lane: Lane
    calls_before: int = 0
    step: str = ""
    attempt: int = 1
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """`route` is a route's name, or a model as `provider:name` (None: the default route). `cache_seconds` beats the
    route's (None: its own). With `on_piece` the answer's text is streamed to it. `own_model` is asked itself, in the
    place of the route's models. `may_go_out` is awaited before each request to a provider; what it raises ends the
    question, of which no request is under way then.
    """

    route: str | None
    messages: Sequence[ModelMessage]
    parameters: ModelRequestParameters
    asker: Asker
    settings: ModelSettings = field(default_factory=dict)  # type: ignore[assignment]  # a TypedDict without keys
    cache_seconds: float | None = None
    on_piece: PieceListener | None = None
    own_model: Model | None = None
    may_go_out: Callable[[], Awaitable[None]] | None = None

    @property
    def has_pieces(self) -> bool:
        """Whether somebody has heard a part of the answer."""
        return self.on_piece is not None and self.on_piece.has_heard


class PieceListener(Protocol):
    """Hears the pieces of a streamed text."""

    @property
    def has_heard(self) -> bool: ...

    def __call__(self, text: str, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer, and every call that was made or passed over on the way to it."""

    response: ModelResponse
    calls: tuple[ModelCall, ...]

    def after(self, passed: tuple[ModelCall, ...]) -> Answer:
        """With what was passed over before."""
        return replace(self, calls=(*passed, *self.calls)) if passed else self


def estimate_tokens(messages: Sequence[ModelMessage]) -> int:
    """About how many tokens messages take: a token per four bytes of text, which errs on the high side for prose."""
    return sum(_bytes_of(part) for message in messages for part in message.parts) // 4 + 4 * len(messages)


def most_tokens(prompt: Prompt, unsized: int) -> int:
    """How many tokens go in at most: no tokenizer makes more of a text than it has bytes.

    What is no text has no bound that could be seen here. An image counts as the most that any provider takes for one.
    Sound, films and documents, and what a provider's own tools look up, count together as `unsized` tokens, the most
    that the route lets in; they may turn out to be more, which is told as an overrun.
    """
    said, tools = prompt.parameters, [*prompt.parameters.function_tools, *prompt.parameters.output_tools]
    parts = [part for message in prompt.messages for part in message.parts]
    contents = [_said_of(part) for part in parts]
    contents += [getattr(message, "instructions", None) for message in prompt.messages]
    contents += [part.content for part in said.instruction_parts or ()]
    media = [medium for content in contents for medium in _media_in(content)]
    images = sum(_is_image(medium) for medium in media)
    forms = [[each.name, each.description, each.parameters_json_schema, each.return_schema] for each in tools]
    if said.output_object is not None:
        forms.append([said.output_object.name, said.output_object.description, said.output_object.json_schema])
    counted = sum(map(_json_bytes, contents)) + sum(map(_frame_bytes, parts))
    counted += _JSON_SHARE * sum(map(_json_bytes, forms)) + len((said.prompted_output_template or "").encode())
    counted += MARKS * (len(parts) + len(prompt.messages) + len(tools) + 1) + (FORMS if forms else 0)
    has_unsized = len(media) > images or bool(said.native_tools)
    return counted + IMAGE_TOKENS * images + (unsized if has_unsized else 0)


def _said_of(part: Any) -> Any:
    """Everything of a part that may go to the model."""
    return {name: value for name, value in vars(part).items() if name not in UNSAID and value is not None}


def _frame_bytes(part: Any) -> int:
    """What is asked for again is told in more words than were kept, and its errors with an indent."""
    from pydantic_core import to_json

    if getattr(part, "outcome", "") != "retried" and not part.part_kind.startswith("retry"):
        return 0
    return FRAME + len(to_json(part.content, fallback=str, inf_nan_mode="strings", indent=2))


def _media_in(content: Any) -> Iterator[Any]:
    match content:
        case dict():
            for item in content.values():
                yield from _media_in(item)
        case list() | tuple():
            for item in content:
                yield from _media_in(item)
        case _ if _is_medium(content):
            yield content


def _is_medium(content: Any) -> bool:
    return getattr(content, "kind", None) in MEDIA


def _is_image(medium: Any) -> bool:
    if medium.kind == "image-url":
        return True
    return medium.kind in ("binary", "uploaded-file") and str(medium.media_type).startswith("image/")


def _json_bytes(content: Any) -> int:
    """How long it is as JSON, which holds every text of it, and all signs around them; without images and the like."""
    from pydantic_core import to_json

    match content:
        case None:
            return 0
        case dict() if any(_media_in(content)):
            return sum(_json_bytes(key) + _json_bytes(value) + 2 for key, value in content.items()) + 2
        case list() | tuple() if any(_media_in(content)):
            return sum(_json_bytes(item) + 1 for item in content) + 2
        case _ if _is_medium(content):
            return 0
        case _:
            return len(to_json(content, fallback=str, inf_nan_mode="strings", bytes_mode="base64"))


def _bytes_of(part: Any) -> int:
    content = getattr(part, "content", None)
    if content is None:
        content = getattr(part, "args", None)
    return _size(content)


def _size(content: Any) -> int:
    match content:
        case None:
            return 0
        case str():
            return len(content) if content.isascii() else len(content.encode())
        case dict():
            return sum(_size(key) + _size(value) for key, value in content.items())
        case list() | tuple():
            return sum(_size(item) for item in content)
        case bytes():
            return len(content)
        case _ if _is_medium(content):
            return USUAL_BYTES
        case _:
            return len(str(content))
