"""A request's `model` names a release: that one serves it, with its own prompt, parameters and policies, and is stamped."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import requests

from watchkeeper.release import BUILTIN, FILE_NAME, Grounding, Parameters, Policy, file_of

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]

CHAMPION = msgspec.structs.replace(BUILTIN, name="watchkeeper", version=2, template="Be a champion.")
OTHER = msgspec.structs.replace(
    BUILTIN,
    name="watchkeeper",
    version=11,
    template="Be another.",
    grounded="Read {sources} then answer {prompt}",
    model="second",
    parameters=Parameters(max_tokens=7, temperature=0.5, top_p=0.25),
    grounding=Grounding(k=1, min_score=0.0),
    policies=BUILTIN.policies | {"secrets": Policy(action="block")},
)
SECRET = "The key is AKIAIOSFODNN7EXAMPLE, is it not?"


@pytest.fixture(scope="module")
def gateway(
    module_processes: Callable[..., Any],
    module_port: Callable[[], int],
    module_upstreams: Callable[[], Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("gateway")
    first, second, port = module_upstreams(), module_upstreams(), module_port()
    (folder / "handbook").mkdir()
    (folder / "handbook" / "leave.md").write_text("# Leave\n\nAnnual leave is twenty-eight days a year for everyone.\n")
    data = folder / "data"
    for release in (CHAMPION, OTHER):
        file = file_of(data, release.id)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(msgspec.json.encode(release))
    (data / FILE_NAME).write_bytes(msgspec.json.encode(CHAMPION))
    config = folder / "watchkeeper.toml"
    config.write_text(
        f"""
data = "{data}"
[gateway]
port = {port}
[encoder]
base_url = "http://127.0.0.1:{module_port()}/v1"
[knowledge]
folders = ["{folder / "handbook"}"]
[[upstreams]]
name = "first"
base_url = "{first.url}"
model = "scripted"
weight = 1000000
[[upstreams]]
name = "second"
base_url = "{second.url}"
model = "scripted"
weight = 0.000001
"""
    )
    url = f"http://127.0.0.1:{port}"
    module_processes([sys.executable, "-m", "watchkeeper", "serve", "--config", str(config)], ready=f"{url}/health/live")
    made = SimpleNamespace(url=url, data=data, first=first, second=second)
    deadline = time.monotonic() + 30
    while not ask(made, OTHER.id).json()["watchkeeper"]["sources"] and time.monotonic() < deadline:
        time.sleep(0.1)  # until the handbook is indexed
    return made


def ask(
    gateway: SimpleNamespace, model: str, text: str = "How many days of annual leave?", **more: Any
) -> requests.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    return requests.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=30)


def stamp(response: requests.Response) -> str:
    return response.headers["x-watchkeeper-release"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_named_release_serves_with_all_that_it_is(gateway: SimpleNamespace, stream: bool) -> None:
    response = ask(gateway, OTHER.id, stream=stream)
    assert (response.status_code, stamp(response)) == (200, OTHER.id)
    if not stream:
        assert response.json()["watchkeeper"]["release"] == OTHER.id
    sent = gateway.second.bodies[-1]
    assert (sent["max_tokens"], sent["temperature"], sent["top_p"]) == (7, 0.5, 0.25)
    system, user = sent["messages"]
    assert system["content"] == "Be another."
    assert user["content"].startswith("Read [1] ")
    assert user["content"].endswith("then answer How many days of annual leave?")


def test_who_names_none_or_the_champion_gets_the_champion(gateway: SimpleNamespace) -> None:
    for model in ("watchkeeper", CHAMPION.id, "first"):
        response = ask(gateway, model)
        assert (response.status_code, stamp(response)) == (200, CHAMPION.id)
        assert gateway.first.bodies[-1]["messages"][0]["content"] == "Be a champion."


def test_an_upstreams_name_keeps_the_champions_prompt(gateway: SimpleNamespace) -> None:
    response = ask(gateway, "second")
    assert (response.status_code, stamp(response)) == (200, CHAMPION.id)
    assert gateway.second.bodies[-1]["messages"][0]["content"] == "Be a champion."


@pytest.mark.parametrize("stream", [False, True])
def test_its_own_policy_decides_and_a_refusal_is_stamped_too(gateway: SimpleNamespace, stream: bool) -> None:
    assert ask(gateway, CHAMPION.id, SECRET, stream=stream).status_code == 200
    response = ask(gateway, OTHER.id, SECRET, stream=stream)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "content_filter")
    assert stamp(response) == OTHER.id


@pytest.mark.parametrize("model", ["watchkeeper@3", "other@2", "../release", "watchkeeper@"])
def test_what_nobody_serves_is_404_and_names_what_there_is(gateway: SimpleNamespace, model: str) -> None:
    response = ask(gateway, model)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
    assert "there is watchkeeper, watchkeeper@2, watchkeeper@11, first, second" in response.json()["error"]["message"]
    assert stamp(response) == CHAMPION.id


def test_the_list_of_models_has_the_releases(gateway: SimpleNamespace) -> None:
    listed = requests.get(f"{gateway.url}/v1/models", timeout=10).json()
    assert [model["id"] for model in listed["data"]] == ["watchkeeper", CHAMPION.id, OTHER.id, "first", "second"]


def test_a_release_that_comes_later_is_found(gateway: SimpleNamespace, wait_for: Callable[..., None]) -> None:
    late = msgspec.structs.replace(OTHER, version=12, template="Be late.", policies=BUILTIN.policies)
    assert ask(gateway, late.id).status_code == 404
    file_of(gateway.data, late.id).write_bytes(msgspec.json.encode(late))
    response = ask(gateway, late.id)
    assert (response.status_code, stamp(response)) == (200, late.id)
    file_of(gateway.data, late.id).unlink()
    wait_for(lambda: ask(gateway, late.id).status_code == 404, what="a release that is gone", within_s=5)


def test_a_gateway_that_cannot_read_what_serves_says_so_in_one_line(
    tmp_path: Path, watchkeeper: list[str], run_process: Callable[..., Any]
) -> None:
    (tmp_path / FILE_NAME).write_text("{broken")
    process = run_process([*watchkeeper, "serve", "--data", str(tmp_path)])
    assert process.popen.wait(30) == 2
    (line,) = process.log.read_text().splitlines()
    assert line.startswith(f"watchkeeper: {tmp_path / FILE_NAME}: is no release: ")
