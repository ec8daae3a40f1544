"""The shapes that travel over HTTP: a request's messages as they are parsed, and answers as they are written. What
`GET /openapi.json` publishes is made of these types.

Whatever else a client puts into a message is taken and passed on. Knows nothing of what becomes of any of it.
"""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec


class TextPart(msgspec.Struct, tag_field="type", tag="text"):
    text: str


class ImageUrl(msgspec.Struct):
    """`url`: where the picture is, or the picture itself as a `data:` URL."""

    url: str


class ImagePart(msgspec.Struct, tag_field="type", tag="image_url"):
    image_url: ImageUrl


Content = str | list[TextPart | ImagePart]


class SystemMessage(msgspec.Struct, tag_field="role", tag="system"):
    content: Content


class DeveloperMessage(msgspec.Struct, tag_field="role", tag="developer"):
    content: Content


class UserMessage(msgspec.Struct, tag_field="role", tag="user"):
    content: Content


class AssistantMessage(msgspec.Struct, tag_field="role", tag="assistant"):
    """An earlier answer; one that only calls has no content."""

    content: Content | None = None
    tool_calls: list[dict[str, Any]] | None = None
    function_call: dict[str, Any] | None = None


class ToolMessage(msgspec.Struct, tag_field="role", tag="tool"):
    """What a call came to."""

    content: Content


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class EmbeddingsBody(msgspec.Struct):
    """`input`: texts; lists of token numbers are refused, whose tokenizer nobody here knows."""

    input: str | Annotated[list[str | int | list[int]], msgspec.Meta(min_length=1, max_length=2048)]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    user: str | None = None


class Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerSource(TypedDict):
    id: str
    title: str


class AnswerMessage(TypedDict):
    role: Literal["assistant"]
    content: str | None
    tool_calls: NotRequired[list[dict[str, Any]]]
    function_call: NotRequired[dict[str, Any]]
    refusal: NotRequired[str]
    reasoning_content: NotRequired[str]
    reasoning: NotRequired[str]


class TokenLogprobs(TypedDict):
    """As the upstream gave them, for the tokens of the content that left as it came."""

    content: list[dict[str, Any]]


class AnswerChoice(TypedDict):
    index: int
    message: AnswerMessage
    logprobs: TokenLogprobs | None
    finish_reason: str


class JsonNote(TypedDict):
    """Whether the answer is the JSON that was asked for, how it became so, and what is wrong with it."""

    valid: bool
    how: Literal["valid", "mended", "repaired", "invalid"]
    error: str | None


class Cited(TypedDict):
    """A sentence of the content, [start, end) in characters, and the ids of the passages that carry it."""

    start: int
    end: int
    sources: list[str]


class About(TypedDict):
    """What an answer rests on and what the guards said of it. `left_out`: what of the conversation did not fit;
    `no_hit`: nothing was found, and that is the answer; `below_min_support`: what was done about too little support;
    `category`, `rule`, `exposed_chars`: of an answer that was cut."""

    request_id: str
    release: str
    action: str
    support: float | None
    sources: list[AnswerSource]
    entities: list[str]
    left_out: dict[str, int]
    citations: NotRequired[list[Cited]]
    no_hit: NotRequired[Literal["said"]]
    below_min_support: NotRequired[Literal["annotated", "refused"]]
    logprobs: NotRequired[str]
    json: NotRequired[JsonNote]
    category: NotRequired[str]
    rule: NotRequired[str]
    exposed_chars: NotRequired[int]


class Completion(TypedDict):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[AnswerChoice]
    usage: Usage
    watchkeeper: About


class ChunkChoice(TypedDict):
    index: int
    delta: dict[str, Any]
    logprobs: TokenLogprobs | None
    finish_reason: str | None


class Chunk(TypedDict):
    """One event of a stream; `usage` in the last, where it was asked for, which has no choices."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: NotRequired[Usage]
    watchkeeper: NotRequired[About]


class Event(TypedDict):
    """One event of a stream. `data`: a `Chunk` in JSON, an `ErrorBody` where the answer broke off; `[DONE]` in the last."""

    data: str


class EmbeddingRow(TypedDict):
    """`embedding`: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(TypedDict):
    prompt_tokens: int
    total_tokens: int


class Embeddings(TypedDict):
    object: Literal["list"]
    data: list[EmbeddingRow]
    model: str
    usage: EmbeddingsUsage


class FeedbackTaken(TypedDict):
    id: str
    request_id: str


class Live(TypedDict):
    status: Literal["ok"]


class Ready(TypedDict):
    """`encoder`: ok or away; `knowledge`: ready, indexing or none."""

    status: Literal["ready", "spool_full"]
    release: str
    encoder: str
    knowledge: str
    spool: NotRequired[str]
