"""What stands where something was taken out, and the key behind it: made once, by whoever comes first."""

import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from watchkeeper.serving.guards import pii, secrets
from watchkeeper.serving.labels import KEY_FILE, LABEL, Labels, RedactionKeyBroken, labels
from watchkeeper.serving.redact import Redactor
from watchkeeper.settings import Redaction, Settings

KEY = b"k" * 32


def of(data: Path, **policy: str) -> Labels:
    return labels(Settings(data=data, redaction=Redaction.model_validate(policy)))


def test_the_settings_know_every_category_that_is_looked_for() -> None:
    found = {pattern.category for family in (*secrets.FAMILIES, *pii.FAMILIES) for pattern in family.patterns}
    assert found == {name for name in Redaction.model_fields if name.isupper()}
    assert all(LABEL.fullmatch(f"[{name}]") for name in found)


def test_each_category_has_its_own_style_or_the_one_for_all() -> None:
    redact = Redactor(Labels("keep", {"EMAIL": "hash", "CARD": "mask"}, [KEY]))
    clean, counts = redact("a@b.io paid with 4111 1111 1111 1111, call 415-555-2671")
    assert clean == f"{Labels('hash', {}, [KEY]).text('EMAIL', 'a@b.io')} paid with [CARD], call 415-555-2671"
    assert counts == {"EMAIL": 1, "CARD": 1}


def test_what_is_kept_hides_nothing_that_is_not() -> None:
    redact = Redactor(Labels("mask", {"PASSWORD": "keep"}))
    assert redact("password = 'a.b@example.com'")[0] == "password = '[EMAIL]'"
    assert redact("password = 'hunter2x'")[0] == "password = 'hunter2x'"


@pytest.mark.parametrize(
    ("category", "one", "other"),
    [
        ("EMAIL", "Jane@Example.com", "jane@example.com"),
        ("PHONE", "415-555-2671", "415 555 2671"),
        ("CARD", "4111 1111 1111 1111", "4111111111111111"),
        ("IBAN", "de89 3704 0044 0532 0130 00", "DE89370400440532013000"),
    ],
)
def test_two_spellings_of_the_same_have_the_same_hash(category: str, one: str, other: str) -> None:
    with_key = Labels("hash", {}, [KEY])
    assert with_key.text(category, one) == with_key.text(category, other)
    assert LABEL.fullmatch(with_key.text(category, one))


def test_secrets_that_differ_in_case_are_two_and_so_are_values_of_two_categories() -> None:
    with_key = Labels("hash", {}, [KEY])
    assert with_key.text("PASSWORD", "Hunter2x") != with_key.text("PASSWORD", "hunter2x")
    assert with_key.text("PASSWORD", "12345678")[-17:] != with_key.text("PHONE", "12345678")[-17:]


def test_the_key_is_made_once_and_is_its_owners(tmp_path: Path) -> None:
    first = of(tmp_path / "data", default="hash")
    assert stat.S_IMODE((tmp_path / "data" / KEY_FILE).stat().st_mode) == 0o600
    assert of(tmp_path / "data").keys == first.keys
    assert of(tmp_path / "other").keys != first.keys
    assert [path.name for path in (tmp_path / "data").iterdir()] == [KEY_FILE]


def test_those_who_start_together_make_one_key(tmp_path: Path) -> None:
    together = threading.Barrier(8)

    def start() -> tuple[bytes, ...]:
        together.wait()
        return of(tmp_path / "data").keys

    with ThreadPoolExecutor(8) as pool:
        made = [pool.submit(start) for _ in range(8)]
    assert len({one.result() for one in made}) == 1


def test_the_key_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDACTION_KEY", "s" * 40)
    assert of(tmp_path, key_env="REDACTION_KEY").keys == (b"s" * 40,)
    assert not (tmp_path / KEY_FILE).exists()


@pytest.mark.parametrize("content", ["", "\n", "short", "k" * 32 + "\nshort\n"])
def test_a_key_that_is_none_is_an_error_that_names_its_place(
    tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / KEY_FILE).write_text(content)
    with pytest.raises(RedactionKeyBroken, match=KEY_FILE):
        of(tmp_path)
    monkeypatch.setenv("REDACTION_KEY", content)
    with pytest.raises(RedactionKeyBroken, match="REDACTION_KEY"):
        of(tmp_path, key_env="REDACTION_KEY")


def test_a_key_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where a folder should be")
    with pytest.raises(RedactionKeyBroken, match="cannot be read or made") as broken:
        of(tmp_path / "data")
    assert "\n" not in str(broken.value)


def test_after_a_rotation_what_was_hashed_before_is_still_known_by_name(tmp_path: Path) -> None:
    before = Redactor(of(tmp_path)).name("jane@example.com")
    file = tmp_path / KEY_FILE
    file.write_text("n" * 64 + "\n" + file.read_text())
    now = Redactor(of(tmp_path))
    assert now.name("jane@example.com") != before
    assert now.names("jane@example.com") == (now.name("jane@example.com"), before, "jane@example.com")
    assert now.names("u-17") == ("u-17",)
