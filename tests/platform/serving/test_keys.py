"""API keys: made once, kept as hashes, followed while a gateway runs, and never a way in by taking the file away."""

import hashlib
import json
import os
import stat
import threading
from pathlib import Path

import pytest

from watchkeeper.serving import keys
from watchkeeper.serving.guard import Subject
from watchkeeper.serving.guards.secrets import Secrets
from watchkeeper.serving.keys import ANYBODY, Keys, KeysBroken, KeyUnknown
from watchkeeper.serving.request import Refused


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def bearer(text: str) -> bytes:
    return f"Bearer {text}".encode()


def refused(known: Keys, authorization: bytes | None) -> Refused:
    with pytest.raises(Refused) as caught:
        known.caller(authorization)
    return caught.value


def test_without_a_file_everybody_is_the_default_tenant(tmp_path: Path) -> None:
    known = Keys(tmp_path / "keys.json")
    for header in (None, b"Bearer sk-whatever", b"\xff"):
        assert known.caller(header) == ANYBODY
    assert ANYBODY.tenant == "default"


def test_a_key_is_its_tenants_and_nothing_else_is_one(tmp_path: Path) -> None:
    made, text = keys.add(tmp_path / "keys.json", "acme")
    known = Keys(tmp_path / "keys.json")
    caller = known.caller(bearer(text))
    assert (caller.tenant, caller.key, caller.operator) == ("acme", made.id, False)
    assert known.caller(b"bearer  " + text.encode()).tenant == "acme"
    last = "A" if text[-1] != "A" else "B"
    wrong = [None, b"", b"Bearer", text.encode(), b"Basic " + text.encode(), bearer(text[:-1]), bearer(text[:-1] + last)]
    wrong += [
        bearer(text + "x"),
        bearer(text + " x"),
        bearer(text.upper()),
        bearer(f"wk_{'a' * 12}_{text[16:]}"),
        b"\xff\xfe",
    ]
    for header in wrong:
        assert refused(known, header).status == 401
        assert text[16:] not in refused(known, header).message


def test_the_file_holds_hashes_only_and_is_its_owners(tmp_path: Path) -> None:
    file = tmp_path / "data" / "keys.json"
    _, text = keys.add(file, "acme", note="the shop")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert text not in file.read_text()
    assert text[16:] not in file.read_text()
    (kept,) = json.loads(file.read_text())["keys"]
    assert kept["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert kept["note"] == "the shop"


def test_an_expired_and_a_revoked_key_are_answered_as_an_unknown_one(tmp_path: Path) -> None:
    file, wall = tmp_path / "keys.json", Clock()
    _, text = keys.add(file, "acme", expires_at=2_000.0)
    made, other = keys.add(file, "acme")
    known = Keys(file, wall=wall)
    assert known.caller(bearer(text)).tenant == "acme"
    wall.now = 2_000.0
    keys.revoke(file, made.id, 1.0)
    later = Keys(file, wall=wall)
    said = {refused(later, bearer(one)).message for one in (text, other, f"wk_{'a' * 12}_{text[16:]}")}
    assert len(said) == 1


def test_changes_are_followed_within_a_second(tmp_path: Path) -> None:
    file, clock = tmp_path / "keys.json", Clock()
    known = Keys(file, clock=clock)
    made, text = keys.add(file, "acme")
    clock.now += 1
    assert known.caller(bearer(text)).tenant == "acme"
    refused(known, None)
    keys.revoke(file, made.id, 5.0)
    assert known.caller(bearer(text)).tenant == "acme", "it looks once a second"
    clock.now += 1
    refused(known, bearer(text))


@pytest.mark.parametrize("how", ["gone", "broken", "empty", "a folder"])
def test_nobody_gets_in_by_spoiling_the_file(tmp_path: Path, how: str) -> None:
    file, clock = tmp_path / "keys.json", Clock()
    _, text = keys.add(file, "acme")
    known = Keys(file, clock=clock)
    file.unlink()
    if how == "broken":
        file.write_text('{"keys": [')
    elif how == "empty":
        file.write_text("")
    elif how == "a folder":
        file.mkdir()
    clock.now += 1
    refused(known, None)
    assert known.caller(bearer(text)).tenant == "acme"


def test_a_file_without_keys_lets_nobody_in(tmp_path: Path) -> None:
    file, clock = tmp_path / "keys.json", Clock()
    _, text = keys.add(file, "acme")
    known = Keys(file, clock=clock)
    file.write_text('{"keys": []}')
    clock.now += 1
    refused(known, bearer(text))
    refused(Keys(file), None)


def test_what_is_no_file_of_keys_stops_a_start(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    for text in ("{", '{"keys": [{"id": "a"}]}', '{"kees": []}'):
        file.write_text(text)
        with pytest.raises(KeysBroken, match=r"keys\.json"):
            Keys(file)
    with pytest.raises(KeysBroken, match=r"gateway\.keys_file"):
        Keys(tmp_path / "nowhere.json", wanted=True)


def test_revoking_what_is_not_there_says_so_and_twice_is_once(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    made, _ = keys.add(file, "acme")
    with pytest.raises(KeyUnknown, match="nothing"):
        keys.revoke(file, "nothing", 1.0)
    assert keys.revoke(file, made.id, 1.0).revoked_at == 1.0
    assert keys.revoke(file, made.id, 2.0).revoked_at == 1.0


@pytest.mark.parametrize("tenant", ["", "a b", "ä", "a/b", "-a", "a" * 65, "a\n"])
def test_a_tenant_that_cannot_be_one_is_refused(tmp_path: Path, tenant: str) -> None:
    with pytest.raises(ValueError, match="tenant"):
        keys.add(tmp_path / "keys.json", tenant)


def test_keys_made_at_the_same_time_are_all_there(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    threads = [threading.Thread(target=keys.add, args=(file, f"tenant{number}")) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = keys.read(file) or ()
    assert {key.tenant for key in found} == {f"tenant{number}" for number in range(12)}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("keys.json.") and path.suffix != ".lock"] == []


def test_a_key_in_a_prompt_is_taken_for_the_secret_that_it_is(tmp_path: Path) -> None:
    _, text = keys.add(tmp_path / "keys.json", "acme")
    subject = Subject(target="prompt", text=f"is {text} mine?", scan=f"is {text} mine?")
    assert [finding.rule for finding in Secrets().inspect(subject)] == ["watchkeeper"]


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeysBroken, match="cannot be written"):
        keys.add(tmp_path / "file" / "keys.json", "acme")
    assert os.listdir(tmp_path) == ["file"]
