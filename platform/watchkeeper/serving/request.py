"""A chat request as clients send it: parsed and validated before anything else happens to it.

Follows OpenAI's chat completions. What is wrong is one `Refused` that names the parameter. Knows nothing of stages.
"""

import hashlib
import json
import re
from typing import Annotated, Any, Final, TypeVar

import msgspec

from watchkeeper.serving.choice import CALLING, SAID_BESIDE
from watchkeeper.serving.shapes import ImagePart, Message, StreamOptions
from watchkeeper.serving.structured import SchemaRefused, Shape, shape_of
from watchkeeper.settings import PRIORITIES

OURS: Final = ("session", "user", "route", "tags", "cache", "priority")
MOST_CHOICES: Final = 16
MOST_STOPS: Final = 16

_KINDS: Final = {"role": "system, developer, user, assistant, tool", "type": "text, image_url"}
_MISSING: Final = re.compile(r"missing required field `(\w+)`")

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
    """The `watchkeeper` field of a request. `cache` false: the model is asked whatever is kept, and its answer is
    not kept. `priority`: None, its tenant's."""

    session: str | None = None
    user: str | None = None
    route: str = "default"
    tags: dict[str, str] = {}
    cache: bool = True
    priority: Annotated[int, msgspec.Meta(ge=0, lt=PRIORITIES)] | None = None


class Turn(msgspec.Struct, frozen=True):
    """One message of the client's. `text`: its text parts joined. `body`: the message as it came, for the upstream;
    `images`: of the pictures in it, sha256, which are logged. `calls`: the fields that say something beside its content:
    calls and thoughts of an earlier answer, a speaker's name."""

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


class ChatBody(msgspec.Struct):
    """The parameters that we read; all others are forwarded unread (`seed`, `logprobs`, `tools`, `reasoning_effort`, …).
    `max_completion_tokens` is the newer name of `max_tokens`; an empty `stop` sequence is none."""

    model: str
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MOST_CHOICES)] | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=MOST_STOPS)] | None = None
    user: str | None = None
    watchkeeper: Extension | None = None


_READ: Final = frozenset(ChatBody.__struct_fields__)


def parse(body: bytes) -> ChatRequest:
    """Request body → ChatRequest. Raises `Refused` with status 400."""
    plain = _decode(body)
    known = _typed(plain, ChatBody)
    extension = known.watchkeeper or Extension()
    if extension.user is None and known.user is not None:
        extension = msgspec.structs.replace(extension, user=known.user)
    forwarded = {key: value for key, value in plain.items() if key not in _READ}
    return ChatRequest(
        model=known.model,
        turns=tuple(map(_turn, known.messages, plain["messages"])),
        stream=bool(known.stream),
        include_usage=bool(known.stream_options and known.stream_options.include_usage),
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
        "tools": bool(asked.get("tools") or asked.get("functions"))
        or any(turn.calls.keys() & CALLING for turn in request.turns),
        "json": isinstance(shape, dict) and shape.get("type", "text") != "text",
        "vision": any(turn.images for turn in request.turns),
        "logprobs": bool(asked.get("logprobs")),
        "n": request.n > 1,
    }
    return frozenset(name for name, needed in found.items() if needed)


def _stops(known: ChatBody) -> tuple[str, ...]:
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
        param = place.strip("`").removeprefix("$").removeprefix(".")
        known = _KINDS.get(param.rpartition(".")[2])
        if known and message.startswith("Invalid value"):
            message += f"; there is {known}"
        if missing := _MISSING.search(message):
            param = f"{param}.{missing[1]}".removeprefix(".")
        raise _bad(f"{param or 'the body'}: {message}", param) from None


def _bad(message: str, param: str | None) -> Refused:
    param = param or None
    return Refused(400, "invalid_value" if param else "invalid_body", message, param=param)


def _decode(body: bytes) -> dict[str, Any]:
    try:
        plain = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # msgspec refuses escaped lone surrogates, which JSON allows and clients send; the standard library takes them.
        try:
            plain = _sound(json.loads(body, parse_constant=_no_number))
        except (ValueError, RecursionError) as error:
            raise _bad(f"the body is not valid JSON: {error}", None) from None
    except RecursionError:
        raise _bad("the body is nested too deeply", None) from None
    if not isinstance(plain, dict):
        raise _bad("the body must be a JSON object", None)
    return plain


def _sound(value: Any, place: tuple[object, ...] = ()) -> Any:
    """The body with U+FFFD for lone surrogates, which can be neither sent nor kept: but for messages' texts, of which
    pre-processing does it and says so."""
    if isinstance(value, str):
        text = len(place) == 3 and (place[0], place[2]) == ("messages", "content")
        return value if text or value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_sound(key): _sound(item, (*place, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_sound(item, (*place, at)) for at, item in enumerate(value)]
    return value


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


def _turn(message: Message, body: dict[str, Any]) -> Turn:
    """`body`: the message as it came."""
    content = message.content
    calls = {key: body[key] for key in SAID_BESIDE if body.get(key)}
    role = str(body["role"])
    if content is None or isinstance(content, str):
        return Turn(role, content or "", body, calls=calls)
    texts = [part.text for part in content if not isinstance(part, ImagePart)]
    urls = [part.image_url.url.encode("utf-8", "surrogatepass") for part in content if isinstance(part, ImagePart)]
    return Turn(role, "\n".join(texts), body, tuple(hashlib.sha256(url).hexdigest() for url in urls), calls)
