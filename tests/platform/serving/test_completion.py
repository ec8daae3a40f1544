"""What clients get is always JSON, whatever a text holds."""

import msgspec

from watchkeeper.serving.completion import plain_json


def test_lone_surrogates_become_replacement_characters() -> None:
    body = {"text": "half \ud83d of a pair", "list": ["\udc00", "whole 😀"], "number": 1}
    assert msgspec.json.decode(plain_json(body).body) == {
        "text": "half ? of a pair",
        "list": ["?", "whole 😀"],
        "number": 1,
    }
