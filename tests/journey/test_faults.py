"""Processes are killed in mid-traffic and started again: nothing a client got an answer to is lost, nothing is doubled."""

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from watchkeeper.settings import load
from watchkeeper.tracking import server_command

pytestmark = pytest.mark.servers

REQUESTS = 240
CLIENTS = 6


def config(folder: Path, upstream: str, gateway: int, mlflow: int) -> Path:
    file = folder / "watchkeeper.toml"
    file.write_text(
        f"""
data = "{folder / "data"}"
[gateway]
port = {gateway}
[mlflow]
uri = "http://127.0.0.1:{mlflow}"
[stages]
embed = false
ground = false
guard_in = false
guard_out = false
[[upstreams]]
name = "scripted"
base_url = "{upstream}"
model = "scripted"
"""
    )
    return file


async def traffic(url: str, on_answer: Callable[[int], None]) -> list[str]:
    """Sends everything; a client counts only what it got an answer to. A refusal (the gateway is away) is tried again."""
    ids: list[str] = []
    left = iter(range(REQUESTS))

    async def client(session: aiohttp.ClientSession) -> None:
        for number in left:
            body = {
                "model": "watchkeeper",
                "messages": [{"role": "user", "content": f"{number} {uuid.uuid4()}"}],
                "stream": number % 3 == 0,
            }
            while True:
                try:
                    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                        await response.read()
                        assert response.status == 200
                        ids.append(response.headers["x-request-id"])
                        break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)
            on_answer(len(ids))

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(client(session) for _ in range(CLIENTS)))
    return ids


def test_kills_in_mid_traffic_end_with_a_clean_ledger(
    tmp_path: Path,
    upstreams: Callable[[], Any],
    run_process: Callable[..., Any],
    free_port: Callable[[], int],
    watchkeeper: list[str],
    wait_for: Callable[..., None],
) -> None:
    upstream = upstreams()
    upstream.pause_s = 0.01
    gateway_port, mlflow_port = free_port(), free_port()
    file = config(tmp_path, upstream.url, gateway_port, mlflow_port)
    settings = load(file)
    url = f"http://127.0.0.1:{gateway_port}"
    command, env = server_command(settings, settings.data)

    def start_mlflow() -> Any:
        return run_process(command, ready=f"{settings.mlflow.uri}/health", env=env)

    def start_shipper() -> Any:
        return run_process([*watchkeeper, "ship", "--config", str(file)])

    def start_gateway() -> Any:
        return run_process([*watchkeeper, "serve", "--config", str(file)], ready=f"{url}/health/live")

    running = {"mlflow": start_mlflow(), "shipper": start_shipper(), "gateway": start_gateway()}

    def fault(answered: int) -> None:
        if answered in (40, 140):
            running["shipper"].kill()
            running["shipper"] = start_shipper()
        elif answered == 80:
            running["mlflow"].kill_all()
        elif answered == 180:
            running["mlflow"] = start_mlflow()
        elif answered == 110:
            running["gateway"].kill()
            running["gateway"] = start_gateway()

    ids = asyncio.run(traffic(url, fault))
    assert len(set(ids)) == REQUESTS

    def ledger() -> dict[str, Any]:
        asked = [sys.executable, "-m", "watchkeeper", "verify", "--json", "--config", str(file)]
        shown = subprocess.run(asked, capture_output=True, text=True, timeout=120)
        document: dict[str, Any] = json.loads(shown.stdout)
        return document

    wait_for(lambda: ledger()["ok"], what="a clean ledger")
    final = ledger()
    # What was in flight when the gateway was killed is served and has a record too, though no client has its answer.
    assert REQUESTS <= final["served"] <= REQUESTS + CLIENTS
    assert final["served"] == final["spooled"] == final["mlflow"] == final["lake"]
    assert final["missing"] == {"mlflow": [], "lake": []}
    assert answered_in_lake(settings.lake_uri) >= set(ids)


def answered_in_lake(uri: str) -> set[str]:
    """The ids in the lake, read with DuckDB from its files; none may be there twice."""
    import duckdb
    from deltalake import DeltaTable

    files = DeltaTable(f"{uri}/interactions").file_uris()
    rows = duckdb.connect().execute("SELECT request_id FROM read_parquet(?)", [files]).fetchall()
    assert len(rows) == len({row[0] for row in rows})
    return {row[0] for row in rows}
