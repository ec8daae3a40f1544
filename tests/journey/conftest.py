"""What journeys share: a real gateway with a real encoder, before an upstream that says what it is told to."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from gateway import Running, wait_until


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
    module_upstreams: Callable[[], Any],
    module_port: Callable[[], int],
    module_processes: Callable[..., Any],
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("gateway")
    script = module_upstreams()
    gateway, encoder = module_port(), module_port()
    knowledge = folder / "knowledge"
    knowledge.mkdir()
    (knowledge / "leave.md").write_text("# Leave\n\nEvery employee has 27 days of annual leave a year.\n")
    config = folder / "watchkeeper.toml"
    config.write_text(
        f"""
data = "{folder / "data"}"
[gateway]
port = {gateway}
[encoder]
port = {encoder}
[knowledge]
folders = ["{knowledge}"]
[guards.denied_topics]
horoscopes = ["horoscope"]
[[upstreams]]
name = "scripted"
base_url = "{script.url}"
model = "scripted"
price = {{ input = 1.0, output = 2.0 }}
"""
    )
    started = []
    for command, ready in (("encoder", encoder), ("serve", gateway)):
        arguments = [sys.executable, "-m", "watchkeeper", command, "--config", str(config)]
        started.append(module_processes(arguments, ready=f"http://127.0.0.1:{ready}/health/ready"))
    url = f"http://127.0.0.1:{gateway}"
    wait_until(lambda: requests.get(f"{url}/health/ready", timeout=5).json()["knowledge"] == "ready", "the knowledge base")
    with contextlib.closing(Running(url, folder / "data", script)) as here:
        yield here
    for process in started:
        process.stop()


@pytest.fixture
def ordinary(running: Running) -> Running:
    """The gateway with an upstream that gives ordinary answers."""
    script = running.script
    script.say = lambda messages: ["You have ", "27 days ", "of annual leave."]
    script.finish_reason = None
    script.choices, script.status, script.cut_after, script.pause_s = None, 200, None, 0.0
    script.bodies.clear()
    return running
