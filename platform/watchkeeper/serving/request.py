"""A chat request as clients send it: parsed and validated before anything else happens to it.

Follows OpenAI's chat completions. What is wrong is one `Refused` that names the parameter. Knows nothing of stages.
"""

import hashlib
import json
from typing import Any, Final, TypeVar

import msgspec

from watchkeeper.serving.structured import SchemaRefused, Shape, shape_of

ROLES: Final = ("system", "developer", "user", "assistant", "tool")
OURS: Final = ("session", "user", "route", "tags")
MOST_CHOICES: Final = 16
MOST_STOPS: Final = 16

T = TypeVar("T")


class Refused(Exception):
    """A request that ends without an answer: HTTP status, OpenAI's error code, and one line that says what to change."""

    def __init__(self, status: int, code: str, message: str, *, param: str | None = None, retry_after: int | None = None):
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after


def _shape(forwarded: dict[str, Any]) -> Shape | None:
    try:
        return shape_of(forwarded.get("response_format"))
    except SchemaRefused as refused:
        raise _bad(f"response_format.{refused}", "response_format") from None


class Extension(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `watchkeeper` field of a request."""

    session: str | None = None
    user: str | None = None
    route: str = "default"
    tags: dict[str, str] = {}


class Turn(msgspec.Struct, frozen=True):
    """One message of the client's. `text`: its text parts joined. `body`: the message as it came, for the upstream;
    `images`: of the pictures in it, sha256, which are logged. `calls`: the fields that hold calls of an earlier answer."""

    role: str
    text: str
    body: dict[str, Any]
    images: tuple[str, ...] = ()
    calls: dict[str, Any] = {}


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A valid request. `n`: how many answers; `shape`: what they have to be, where JSON was asked for. Parameters that we
    do not read are in `forwarded`, as they came."""

    model: str
    turns: tuple[Turn, ...]
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int = 1
    stops: tuple[str, ...] = ()
    shape: Shape | None = None
    extension: Extension = Extension()
    forwarded: dict[str, Any] = {}


class _Known(msgspec.Struct):
    """Types of the parameters that we read; all others are forwarded unread."""

    model: str
    messages: list[Any]
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    user: str | None = None
    watchkeeper: Extension | None = None


_READ: Final = frozenset(_Known.__struct_fields__)


def parse(body: bytes) -> ChatRequest:
    """Request body → ChatRequest. Raises `Refused` with status 400."""
    plain = _decode(body)
    known = _typed(plain, _Known)
    _check_ranges(known)
    extension = known.watchkeeper or Extension()
    if extension.user is None and known.user is not None:
        extension = msgspec.structs.replace(extension, user=known.user)
    forwarded = {key: value for key, value in plain.items() if key not in _READ}
    return ChatRequest(
        model=known.model,
        turns=tuple(_turn(message, index) for index, message in enumerate(known.messages)),
        stream=bool(known.stream),
        include_usage=bool((known.stream_options or {}).get("include_usage")),
        max_tokens=known.max_completion_tokens if known.max_completion_tokens is not None else known.max_tokens,
        temperature=known.temperature,
        top_p=known.top_p,
        n=known.n or 1,
        stops=_stops(known),
        extension=extension,
        shape=_shape(forwarded),
        forwarded=forwarded,
    )


def needs(request: ChatRequest) -> frozenset[str]:
    """What an upstream must be able to do for this request: of `tools`, `json`, `vision`, `logprobs`, `n`."""
    asked = request.forwarded
    shape = asked.get("response_format")
    found = {
        "tools": bool(asked.get("tools") or asked.get("functions")) or any(turn.calls for turn in request.turns),
        "json": isinstance(shape, dict) and shape.get("type", "text") != "text",
        "vision": any(turn.images for turn in request.turns),
        "logprobs": bool(asked.get("logprobs")),
        "n": request.n > 1,
    }
    return frozenset(name for name, needed in found.items() if needed)


def _stops(known: _Known) -> tuple[str, ...]:
    given = known.stop or ()
    return tuple(stop for stop in ([given] if isinstance(given, str) else given) if stop)


def body_of(body: bytes, kind: type[T]) -> T:
    """Any other request's body → a struct. Raises `Refused` with status 400 that names the field."""
    return _typed(_decode(body), kind)


def _typed(plain: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at ")
        param = place.strip("`").removeprefix("$.") or None
        raise _bad(f"{param or 'the body'}: {message}", param) from None


def _bad(message: str, param: str | None) -> Refused:
    return Refused(400, "invalid_value" if param else "invalid_body", message, param=param)


def _decode(body: bytes) -> dict[str, Any]:
    try:
        plain = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # msgspec refuses escaped lone surrogates, which JSON allows and clients send; the standard library takes them.
        try:
            plain = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise _bad(f"the body is not valid JSON: {error}", None) from None
    except RecursionError:
        raise _bad("the body is nested too deeply", None) from None
    if not isinstance(plain, dict):
        raise _bad("the body must be a JSON object", None)
    return plain


def _check_ranges(known: _Known) -> None:
    limit = known.max_completion_tokens if known.max_completion_tokens is not None else known.max_tokens
    rules = (
        ("messages", bool(known.messages), "must hold at least one message"),
        ("n", known.n is None or 1 <= known.n <= MOST_CHOICES, f"must be between 1 and {MOST_CHOICES}"),
        ("stop", len(_stops(known)) <= MOST_STOPS, f"must be at most {MOST_STOPS} sequences"),
        ("max_tokens", limit is None or limit >= 1, "must be at least 1"),
        ("temperature", known.temperature is None or 0 <= known.temperature <= 2, "must be between 0 and 2"),
        ("top_p", known.top_p is None or 0 < known.top_p <= 1, "must be above 0 and at most 1"),
    )
    for param, good, message in rules:
        if not good:
            raise _bad(f"{param}: {message}", param)


def _turn(message: Any, index: int) -> Turn:
    place = f"messages[{index}]"
    if not isinstance(message, dict):
        raise _bad(f"{place}: must be an object with role and content", place)
    role = message.get("role")
    if role not in ROLES:
        raise _bad(f"{place}.role: must be one of {', '.join(ROLES)}", f"{place}.role")
    content = message.get("content")
    calls = {key: message[key] for key in ("tool_calls", "function_call") if message.get(key)}
    if content is None and role == "assistant":
        return Turn(role, "", message, calls=calls)
    if isinstance(content, str):
        return Turn(role, content, message, calls=calls)
    if not isinstance(content, list):
        raise _bad(f"{place}.content: must be a string or a list of content parts", f"{place}.content")
    texts, images = [], []
    for number, part in enumerate(content):
        where = f"{place}.content[{number}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image_url" and isinstance(part.get("image_url"), dict):
            url = str(part["image_url"].get("url", ""))
            images.append(hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest())
        else:
            raise _bad(f"{where}: must be a part of type text or image_url", where)
    return Turn(role, "\n".join(texts), message, tuple(images), calls)
