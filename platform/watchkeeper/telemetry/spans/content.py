"""What conversations look like in other people's attributes → messages and texts.

Every shape that a provider's API, an SDK or a convention has for "a message" is read here, once for all dialects; what is
of no known shape is no text, rather than a wrong one. Values come as JSON in a string or as it is.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from watchkeeper.record import Message

MOST_MESSAGES: Final = 500
DEEPEST: Final = 4

ASKED: Final = ("question", "query", "user_input", "user_message", "input", "inputs", "prompt", "message", "text")
ANSWERED: Final = ("answer", "response", "output", "outputs", "result", "completion", "text", "content")
"""Names under which applications keep what a user asked, and what they answer; the first that holds a text counts."""

_ROLES: Final = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}
"""LangChain's types of messages."""
_TEXT: Final = frozenset({"text", "input_text", "output_text", "refusal"})
_CALL: Final = frozenset({"tool_call", "tool_use", "function_call"})
_RESULT: Final = frozenset({"tool_call_response", "tool_result", "function_call_output"})


def plain(value: Any) -> Any:
    """The value, decoded where it is a string that holds JSON."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "[", '"'):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            return value
    return value


def parts_in(value: Any) -> Any:
    """The parts of a message's content where the value is a string that holds them; else the value as it is."""
    decoded = plain(value)
    whole = isinstance(decoded, list) and decoded and all(isinstance(one, Mapping) and "type" in one for one in decoded)
    return decoded if whole else value


def text_of(content: Any) -> str:
    """The content of a message as one text: its parts joined, images as their hash, calls of tools; no reasoning."""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list):
        return ""
    return "\n".join(filter(None, (_part(part) for part in content)))


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        return ""
    kind = _type(part)
    if kind in _CALL:
        return _call(part.get("name"), part.get("arguments", part.get("input")))
    if kind in _RESULT:
        found = part.get("response", part.get("result", part.get("content", part.get("output"))))
        return found if isinstance(found, str) else _json(found)
    if kind in ("image_url", "input_image", "image"):
        return f"[image sha256:{hashlib.sha256(_json(part).encode('utf-8', 'replace')).hexdigest()}]"
    if kind in _TEXT or kind is None:
        found = part.get("text", part.get("content", part.get("refusal")))
        return found if isinstance(found, str) else ""
    return ""


def _type(value: Mapping[str, Any]) -> str | None:
    """What a message or a part of one says that it is; None: nothing."""
    kind = value.get("type")
    return None if kind is None else str(kind)


def _call(name: Any, arguments: Any) -> str:
    return f"[{name}({arguments if isinstance(arguments, str) else _json(arguments)})]"


def message(value: Any) -> Message | None:
    """One message of whatever provider; None: it is none."""
    if not isinstance(value, Mapping):
        return None
    inner = value.get("message")
    if isinstance(inner, Mapping):
        return message(inner)
    if _type(value) in _RESULT | _CALL:  # OpenAI's Responses have them between messages
        return Message("tool" if _type(value) in _RESULT else "assistant", _part(value))
    role = value.get("role", _ROLES.get(str(value.get("type"))))
    content = value.get("parts", value.get("content"))
    if not isinstance(role, str) or (content is None and "tool_calls" not in value):
        return None
    texts = [text_of(content)]
    calls = value.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        called = call.get("function", call) if isinstance(call, Mapping) else {}
        if isinstance(called, Mapping):
            texts.append(_call(called.get("name"), called.get("arguments", called.get("args"))))
    return Message(role, "\n".join(filter(None, texts)))


def messages(value: Any) -> list[Message]:
    """A conversation: a list of messages, an object that holds one, or a single message; else none."""
    value = plain(value)
    if isinstance(value, Mapping):
        system = value.get("system", value.get("instructions"))
        before = [Message("system", text_of(system))] if text_of(system) else []
        for name in ("messages", "input", "contents"):
            if isinstance(value.get(name), list):
                return before + messages(value[name])
        if isinstance(value.get("input"), str) and "model" in value:
            return [*before, Message("user", value["input"])]
        one = message(value)
        return [one] if one else []
    if not isinstance(value, list):
        return []
    if len(value) == 1 and isinstance(value[0], list):  # LangChain batches
        return messages(value[0])
    return [found for found in map(message, value[-MOST_MESSAGES:]) if found is not None]


def last(conversation: list[Message], role: str) -> str:
    """The text of the newest message of a role."""
    return next((one.content for one in reversed(conversation) if one.role == role and one.content), "")


def asked(value: Any, depth: int = 0) -> str:
    """What was asked, of whatever went into something; empty where no text is known to be it."""
    value = plain(value)
    if isinstance(value, str) or depth > DEEPEST:
        return value if isinstance(value, str) else ""
    turn = last(messages(value), "user")
    if turn or not isinstance(value, Mapping):
        return turn
    for name in (*ASKED, "kwargs"):
        if name in value and (found := asked(value[name], depth + 1)):
            return found
    return ""


def answered(value: Any, depth: int = 0) -> tuple[str, str | None]:
    """What was answered, of whatever came out of something, and why it ended; empty where no text is known to be it."""
    value = plain(value)
    if isinstance(value, str) or depth > DEEPEST:
        return (value if isinstance(value, str) else ""), None
    if isinstance(value, list):
        spoken = messages(value)
        ends = [one["finish_reason"] for one in value if isinstance(one, Mapping) and _is_text(one.get("finish_reason"))]
        if spoken or not value:
            return last(spoken, "assistant"), (ends[-1] if ends else None)
        return answered(value[0], depth + 1) if len(value) == 1 else ("", None)
    if not isinstance(value, Mapping):
        return "", None
    end = value.get("finish_reason", value.get("stop_reason"))
    found, inner = _answer(value, depth)
    return found, end if _is_text(end) else inner


def _answer(value: Mapping[str, Any], depth: int) -> tuple[str, str | None]:
    for name in ("choices", "candidates", "generations"):
        choices = value.get(name)
        if isinstance(choices, list) and choices:
            choice = choices[0]
            while isinstance(choice, list) and choice:
                choice = choice[0]
            return answered(choice, depth + 1)
    one = message(value)
    if one is not None:
        return _without_calls(value, one), None
    spoken = [found for found in messages(value.get("messages")) if found.role == "assistant"]
    if spoken:
        return spoken[-1].content, None
    for name in ANSWERED:
        if name in value and (found := answered(value[name], depth + 1))[0]:
            return found
    return "", None


def _without_calls(value: Mapping[str, Any], whole: Message) -> str:
    """An answer's own text: what tools are called with is none of it."""
    inner = value.get("message", value)
    if not isinstance(inner, Mapping) or not inner.get("tool_calls"):
        return whole.content
    return text_of(inner.get("parts", inner.get("content")))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
