"""Cases as lines of JSON: what goes out comes back the same, a bad line is named, what is personal stays out."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.record import Message
from watchkeeper.serving.redact import Redactor
from watchkeeper_evaluations.dataset import Case, DatasetError, export_jsonl, import_jsonl
from watchkeeper_evaluations.dataset.case import digest

REDACT = Redactor()
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Nd"])).map(lambda text: text + " word")
CASES = st.builds(
    Case,
    messages=st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXTS), max_size=3).flatmap(
        lambda before: TEXTS.map(lambda text: (*before, Message("user", text)))
    ),
    reference=st.none() | TEXTS,
    request_id=st.none() | st.just("ab" * 16),
    session=st.none() | st.just("s-a"),
    tags=st.dictionaries(st.sampled_from(["kind", "team"]), TEXTS),
)


@given(st.lists(CASES, unique_by=lambda case: case.case_id))
def test_what_goes_out_comes_back_with_the_same_digest(cases: list[Case]) -> None:
    redacted = import_jsonl(export_jsonl(cases).encode(), REDACT).cases  # what hypothesis makes up may look like a secret
    back = import_jsonl(export_jsonl(redacted).encode(), REDACT)
    assert digest(back.cases) == digest(redacted)
    assert back.redacted == {}


def test_lines_as_people_write_them() -> None:
    body = b"""\xef\xbb\xbf{"prompt": "When?", "reference": "Now.", "tags": {"kind": "time"}}\r

{"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who?"}], "session": "s"}
"""
    assert import_jsonl(body, REDACT).cases == [
        Case(messages=(Message("user", "When?"),), reference="Now.", tags={"kind": "time"}),
        Case(messages=(Message("system", "Be kind."), Message("user", "Who?")), session="s"),
    ]
    assert import_jsonl(b"", REDACT) == import_jsonl(b"\n \n", REDACT)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "truncated"),
        (b"[]", "Expected `object`"),
        (b"{}", "either `messages` or `prompt` is needed"),
        (b'{"prompt": "a", "messages": []}', "either `messages` or `prompt` is needed"),
        (b'{"prompt": ""}', "the last message is empty"),
        (b'{"prompt": 3}', r"Expected `str \| null`, got `int` - at `\$.prompt`"),
        (b'{"promt": "a"}', "unknown field `promt`"),
        (b'{"prompt": "a", "reference": ""}', "reference is empty"),
        (b'{"prompt": "a", "tags": {"n": 3}}', r"Expected `str`, got `int` - at `\$.tags"),
        (b'{"prompt": "a", "request_id": "tr-1"}', "request_id must be 32 hex digits"),
        (b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}', "must end with one"),
        (b'{"messages": [{"role": "robot", "content": "a"}]}', "role must be one of"),
        (b'{"messages": [{"role": "user", "content": [{"type": "text"}]}]}', r"Expected `str`, got `array`"),
        (b'{"messages": [{"role": "user", "content": "a", "name": "x"}]}', "unknown field `name`"),
        (b'{"prompt": "\xff"}', "can't decode byte"),
    ],
)
def test_a_bad_line_is_named_by_its_number(line: bytes, said: str) -> None:
    with pytest.raises(DatasetError, match=f"line 3: .*{said}.*; nothing was written"):
        import_jsonl(b'{"prompt": "fine"}\n\n' + line + b"\n", REDACT)


def test_personal_data_is_taken_out_of_every_field() -> None:
    mail, phone = "jane.roe@example.org", "+44 20 7946 0958"
    line = {
        "messages": [
            {"role": "system", "content": f"Write to {mail}."},
            {"role": "user", "content": f"Call me on {phone}."},
        ],
        "reference": f"I write to {mail}.",
        "session": mail,
        "tags": {mail: "x", "who": mail},
    }
    read = import_jsonl(json.dumps(line).encode(), REDACT)
    [case] = read.cases
    assert mail not in repr(case)
    assert "7946" not in repr(case)
    assert case.messages == (Message("system", "Write to [EMAIL]."), Message("user", "Call me on [PHONE]."))
    assert (case.session, case.tags) == (REDACT.name(mail), {"[EMAIL]": "x", "who": "[EMAIL]"})
    assert read.redacted == {"EMAIL": 4, "PHONE": 1}
