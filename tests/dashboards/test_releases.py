"""Releases: what serves and why, what each gate said, and that nothing is done without a reason."""

from typing import Any

import msgspec
import pytest

from watchkeeper.lake.experiments import gates
from watchkeeper.release import Release
from watchkeeper_dashboards import actions, release_log
from watchkeeper_dashboards.pages import releases


def look(reader: Any, search: str = "") -> Any:
    return reader.fire("releases-body.children", releases_url_search=search)["response"]["releases-body"]["children"]


def test_what_serves_is_shown_since_when_and_why(house: Any, reader_of: Any, read: Any) -> None:
    words = read(look(reader_of(house))[0])
    assert words[0] == "watchkeeper@2 serves"
    assert words[words.index("Since (UTC)") + 1] == "10 Jan 2026 16:37:30"
    assert words[words.index("Put there by") + 1] == "ada"
    assert words[words.index("Reason") + 1] == "answers got worse"
    assert "Roll back" in words


def test_each_release_has_its_gate_and_what_became_of_it(house: Any, reader_of: Any, read: Any, links: Any) -> None:
    table = look(reader_of(house))[1]
    words = read(table)
    names = [word for word in words if word.startswith("watchkeeper@")]
    assert names == ["watchkeeper@3", "watchkeeper@2", "watchkeeper@1"]
    assert "against watchkeeper@1" in words
    assert words.count("no gate yet") == 2
    assert words.count("Promote") == 2
    assert "/experiments/experiment-20260110-1600?comparison=comparison-2" in links(table)
    assert "/releases?promote=watchkeeper%403" in links(table)
    assert "/releases?promote=watchkeeper%402" not in links(table)


def test_the_gate_of_a_release_is_the_one_that_a_promotion_would_ask(house: Any) -> None:
    """The newest experiment's against what serves, though another was made later, or over older answers."""
    log = [{"release": "w@2", "digest": "2", "event": "registered"}]
    (newest, *_) = gates(house.lake)
    late, asked, old = (
        msgspec.structs.replace(newest, comparison_id=name, base_digest=base, candidate_digest="2")
        for name, base in (("late", "0"), ("asked", "1"), ("old", "1"))
    )
    shown = [release_log.versions(log, [late, asked, old], serving)[0].gate for serving in ("1", "9")]
    assert shown == [asked, late]


def test_the_log_marks_what_was_put_there_without_a_gate(house: Any, reader_of: Any, read: Any) -> None:
    words = read(look(reader_of(house))[2])
    assert words.count("override") == 2
    assert words[words.index("it is urgent") - 4 : words.index("it is urgent")] == [
        "promoted", "override", "watchkeeper@3", "watchkeeper@2",
    ]  # fmt: skip


def test_before_anything_was_registered(make_house: Any, reader_of: Any, read: Any, links: Any) -> None:
    body = look(reader_of(make_house([])))
    assert len(body) == 2
    assert read(body[0])[0] == "builtin@0 serves"
    assert "before the log begins" in read(body[0])
    assert any("watchkeeper release register better.toml" in word for word in read(body[1]))
    assert links(body) == []


def test_a_file_that_lags_behind_the_log_is_said_so(make_house: Any, traffic: Any, reader_of: Any, read: Any) -> None:
    house = make_house(traffic(5, 5))
    (house.settings.data / "release.json").write_bytes(
        msgspec.json.encode(Release(name="watchkeeper", version=1, model="x"))
    )
    words = " ".join(read(look(reader_of(house))[0]))
    assert "watchkeeper@1 serves" in words
    assert "watchkeeper@2 was put into service 10 Jan 16:37:30 UTC, the file of the data folder still has another" in words


def test_the_dialog_says_what_will_happen(house: Any, reader_of: Any, read: Any) -> None:
    reader = reader_of(house)
    asked = reader.fire("releases-question.children", releases_url_search="?promote=watchkeeper@3")["response"]
    assert asked["releases-dialog"]["title"] == "Promote watchkeeper@3"
    assert "takes the place of watchkeeper@2" in asked["releases-question"]["children"]
    back = reader.fire("releases-question.children", releases_url_search="?rollback=1")["response"]
    assert back["releases-do"]["children"] == "Roll back"
    assert back["releases-override-place"]["style"] == {"display": "none"}


@pytest.mark.parametrize(
    ("search", "reason", "override", "typed"),
    [
        ("?promote=w@3", " better ", "", "watchkeeper release promote w@3 --reason better"),
        ("?promote=w@3", "better", "urgent", "watchkeeper release promote w@3 --reason better --override urgent"),
        ("?range=6h&rollback=1", "worse", "ignored", "watchkeeper release rollback --reason worse"),
        ("?promote=w@3", "  ", "urgent", None),
        ("?range=6h", "better", None, None),
    ],
)
def test_what_is_asked_becomes_one_command(search: str, reason: str, override: str | None, typed: str | None) -> None:
    command = releases.commanded(search, reason, override)
    assert (command.shown if command else None) == typed


def test_nothing_is_run_without_a_reason(house: Any, reader_of: Any, read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "run", pytest.fail)
    answer = reader_of(house).fire("releases-said.children", releases_do_n_clicks=1, releases_url_search="?rollback=1")
    assert read(answer["response"]["releases-said"]["children"]) == ["Say why."]


def test_the_commands_own_words_are_shown() -> None:
    refused = str(releases.said(actions.Outcome("watchkeeper release promote w@3", 1, {"changed": False}, "no gate has")))
    assert "no gate has" in refused
    assert "wk-done" not in refused
    done = str(releases.said(actions.Outcome("x", 0, {"release": "w@3", "changed": True, "untold": ["the lake is away"]})))
    assert "wk-done" in done
    assert "the lake is away" in done
    same = str(releases.said(actions.Outcome("x", 0, {"release": "w@3", "changed": False, "untold": []})))
    assert "serves already" in same


def test_where_others_can_reach_the_app_there_are_no_buttons(house: Any, reader_of: Any, read: Any, links: Any) -> None:
    from watchkeeper.settings import Dashboard

    settings = house.settings.model_copy(update={"dashboard": Dashboard(host="0.0.0.0")})
    body = look(reader_of(type(house)(house.lake, settings, house.records)))
    assert not [address for address in links(body) if "promote" in address or "rollback" in address]
    assert any("Actions are off" in word for word in read(body))


def test_versions_are_in_the_order_of_their_numbers() -> None:
    log = [{"release": f"w@{number}", "digest": str(number), "event": "registered"} for number in (9, 10, 2)]
    assert [version.release for version in release_log.versions(log, [], "10")] == ["w@10", "w@9", "w@2"]
