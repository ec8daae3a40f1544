"""Several gateway workers as real processes: one is killed and replaced, all end with who started them, all refuse when the
spool is full."""

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from watchkeeper.record import decode
from watchkeeper.telemetry.adoption import adopt
from watchkeeper.telemetry.segment import segments

pytestmark = pytest.mark.servers


def ask(url: str, size: int = 10) -> requests.Response:
    body = {"model": "watchkeeper", "messages": [{"role": "user", "content": "word " * size}]}
    return requests.post(f"{url}/v1/chat/completions", json=body, timeout=30)


def children(pid: int) -> set[int]:
    """The workers among the children of `serve` (multiprocessing starts one more that holds its semaphores)."""
    listed = subprocess.run(["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return {int(line.split()[0]) for line in listed.splitlines() if "spawn_main" in line}


@pytest.fixture
def serving(
    tmp_path: Path,
    upstreams: Callable[[], Any],
    run_process: Callable[..., Any],
    free_port: Callable[[], int],
    watchkeeper: list[str],
) -> Callable[[], tuple[Any, str]]:
    upstream, port = upstreams(), free_port()
    file = tmp_path / "watchkeeper.toml"
    off = "\n".join(f"{stage} = false" for stage in ("preprocess", "embed", "ground", "guard_in", "check", "guard_out"))
    file.write_text(
        f'data = "{tmp_path / "data"}"\n[gateway]\nport = {port}\nworkers = 2\nmax_spool_bytes = 16_000_000\n'
        f'[stages]\n{off}\n[[upstreams]]\nname = "scripted"\nbase_url = "{upstream.url}"\nmodel = "scripted"\n'
        "context = 1_000_000\n"
    )
    url = f"http://127.0.0.1:{port}"
    return lambda: (run_process([*watchkeeper, "serve", "--config", str(file)], ready=f"{url}/health/live"), url)


def test_a_killed_worker_is_replaced_and_none_outlives_who_started_it(
    tmp_path: Path, serving: Callable[[], tuple[Any, str]], wait_for: Callable[..., None]
) -> None:
    process, url = serving()
    wait_for(lambda: len(children(process.popen.pid)) == 2, what="two workers")
    assert ask(url).status_code == 200
    before = children(process.popen.pid)
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(children(process.popen.pid) - {victim}) == 2, what="another worker")
    answered = {ask(url).headers["x-request-id"] for _ in range(20)}
    left = children(process.popen.pid)
    process.kill()  # the parent alone
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left), what="the end of the workers")
    _, url = serving()  # the port is free again
    assert ask(url).status_code == 200
    folder = tmp_path / "data" / "spool"
    assert {path.name for path in folder.iterdir()} <= {"gateway-0", "gateway-1"}, "names are used again"
    found = {row.request_id for segment in segments(folder).segments for row in segment.rows(0)}
    assert answered <= found


def test_a_full_spool_refuses_with_a_time_to_come_back_and_loses_nothing(
    tmp_path: Path, serving: Callable[[], tuple[Any, str]]
) -> None:
    process, url = serving()
    answered: set[str] = set()
    refused: list[requests.Response] = []
    for _ in range(400):
        response = ask(url, 30_000)
        if response.status_code == 200:
            answered.add(response.headers["x-request-id"])
        else:
            refused.append(response)
            if len(refused) == 10:
                break
    assert len(answered) > 10
    assert len(refused) == 10
    for response in refused:
        assert (response.status_code, response.json()["error"]["code"]) == (503, "spool_full")
        assert int(response.headers["retry-after"]) > 0
        assert "max_spool_bytes" in response.json()["error"]["message"]
    assert requests.get(f"{url}/health/live", timeout=5).status_code == 200
    bodies = [requests.get(f"{url}/metrics", timeout=5).text for _ in range(20)]
    sizes = {float(match[1]) for body in bodies for match in re.finditer(r"^watchkeeper_spool_bytes (\S+)$", body, re.M)}
    assert sizes
    assert max(sizes) <= 16_000_000
    assert any(re.search(r"^watchkeeper_spool_full 1\.0$", body, re.M) for body in bodies)
    ready = [requests.get(f"{url}/health/ready", timeout=10) for _ in range(10)]
    assert any(response.status_code == 503 and response.json()["status"] == "spool_full" for response in ready)
    process.stop()
    folder = tmp_path / "data" / "spool"
    for worker in folder.iterdir():
        adopt(worker)
    records = [decode(row.body) for segment in segments(folder).segments for row in segment.rows(0)]
    accepted = {name for segment in segments(folder).segments for name in segment.ids()[0]}
    assert {record.request_id for record in records if record.status == 200} == answered
    assert accepted == {record.request_id for record in records}, "nothing that was accepted was dropped"
