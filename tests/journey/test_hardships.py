"""What goes wrong around a gateway: each time a clear answer, a record that says so, and the next request is served."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import openai
import pytest
import requests
from gateway import Running, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.models]

ROOM: Final = 400
"""KiB of the disk on which the sessions lie: less than a few dozen of them need."""


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """`folder` on a disk of its own while the block runs; False where none can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}k", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory,
    module_upstreams: Callable[[], Any],
    module_port: Callable[[], int],
    module_processes: Callable[..., Any],
) -> Iterator[tuple[Running, bool]]:
    """A gateway whose index on disk is damaged, whose sessions lie on a disk that is soon full, and one of whose upstreams
    is dead; and whether that disk could be had."""
    folder = tmp_path_factory.mktemp("hardships")
    data, knowledge = folder / "data", folder / "knowledge"
    script = module_upstreams()
    script.say = lambda messages: ["You have 27 days of annual leave."]
    gateway, encoder = module_port(), module_port()
    knowledge.mkdir()
    (knowledge / "leave.md").write_text("# Leave\n\nEvery employee has 27 days of annual leave a year.\n")
    config = folder / "watchkeeper.toml"
    config.write_text(
        f"""
data = "{data}"
[gateway]
port = {gateway}
[encoder]
port = {encoder}
[knowledge]
folders = ["{knowledge}"]
[[tenants]]
name = "default"
usd_per_day = 2.0
[[upstreams]]
name = "scripted"
base_url = "{script.url}"
model = "scripted"
context = 2000
[[upstreams]]
name = "dear"
base_url = "{script.url}"
model = "scripted"
weight = 0.000001
price = {{ input = 1000.0, output = 1000.0 }}
[[upstreams]]
name = "dead"
base_url = "http://127.0.0.1:{module_port()}/v1"
model = "scripted"
weight = 0.000001
"""
    )

    def start(command: str, port: int) -> Any:
        arguments = [sys.executable, "-m", "watchkeeper", command, "--config", str(config)]
        return module_processes(arguments, ready=f"http://127.0.0.1:{port}/health/ready")

    def ready() -> bool:
        said: dict[str, Any] = requests.get(f"http://127.0.0.1:{gateway}/health/ready", timeout=5).json()
        return bool(said["knowledge"] == "ready")

    start("encoder", encoder)
    first = start("serve", gateway)
    wait_until(ready, "an index on disk")
    first.stop()  # what a killed process leaves would do as well
    kept = [file for file in (data / "knowledge").rglob("*") if file.is_file()]
    assert kept
    for file in kept:
        file.write_bytes(b"\x00damaged" * 40)
    with small_disk(folder / "small") as mounted:
        for name in ("sessions.sqlite", "sessions.sqlite-wal", "sessions.sqlite-shm"):
            (data / name).unlink(missing_ok=True)
        if mounted:
            (data / "sessions.sqlite").symlink_to(folder / "small" / "sessions.sqlite")
        serving = start("serve", gateway)
        wait_until(ready, "the index made anew")
        with contextlib.closing(Running(f"http://127.0.0.1:{gateway}", data, script)) as here:
            yield here, mounted
        serving.stop()


def ask(running: Running, text: str, model: str = "watchkeeper", **extra: Any) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    return running.client.chat.completions.with_raw_response.create(model=model, messages=messages, extra_body=extra)


def well(running: Running) -> None:
    """The next request is served, and grounded."""
    answer = ask(running, "How many days of annual leave do I have?")
    record = running.record(answer.headers["x-request-id"])
    assert (record.status, record.error) == (200, None)
    assert [source.id for source in record.sources] == ["leave.md#1"]


def refused(running: Running, status: int, code: str, text: str, model: str = "watchkeeper") -> Any:
    """Asks for what is refused in OpenAI's shape; its record says the same."""
    with pytest.raises(openai.APIStatusError) as caught:
        ask(running, text, model)
    error = caught.value
    assert (error.status_code, error.code) == (status, code)
    assert error.message
    record = running.record(error.response.headers["x-request-id"])
    assert (record.status, record.error) == (status, code)
    return error


def test_a_damaged_index_on_disk_is_made_anew(house: tuple[Running, bool]) -> None:
    well(house[0])


def test_a_dead_upstream(house: tuple[Running, bool]) -> None:
    refused(house[0], 502, "upstream_unavailable", "Hello?", model="dead")
    well(house[0])


def test_a_prompt_beyond_the_context_window(house: tuple[Running, bool]) -> None:
    refused(house[0], 400, "context_length_exceeded", "leave and more leave " * 4_000, model="scripted")
    well(house[0])


def test_a_session_store_that_is_full(house: tuple[Running, bool], capsys: pytest.CaptureFixture[str]) -> None:
    running, mounted = house
    if not mounted:
        with capsys.disabled():
            print("\nno disk can be mounted here: A FULL SESSION STORE IS NOT TESTED")
        return
    told: list[str | None] = []
    for number in range(100):
        answer = ask(running, f"Note {number}: " + "leave " * 800, watchkeeper={"session": f"s{number}"})
        record = running.record(answer.headers["x-request-id"])
        assert (record.status, record.error) == (200, None)
        ground = next(stage for stage in record.stages if stage.name == "ground")
        told.append(str(ground.attributes.get("not_stored", "")))
        if told[-1]:
            break
    assert told[0] == "", "the store was full from the beginning"
    assert told[-1] == "sessions_full"
    well(running)


def test_a_budget_that_is_spent(house: tuple[Running, bool]) -> None:
    running, _ = house
    for _ in range(200):
        try:
            ask(running, "How many days of leave do I have in a year?", model="dear")
        except openai.RateLimitError:
            break
    error = refused(running, 429, "insufficient_quota", "How many days of leave do I have in a year?", model="dear")
    assert int(error.response.headers["retry-after"]) > 0
    assert requests.get(f"{running.url}/health/ready", timeout=5).status_code == 200
