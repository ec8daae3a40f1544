"""LiteLLM's proxy as a peer, in a virtual environment of its own: one worker, a key, no guards.

The environment is made once, in the folder that BENCH_PEERS names (else under the system's temporary folder).
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from servers import free_port, process

PINS: Final = Path(__file__).with_name("litellm.txt")
PEERS: Final = "BENCH_PEERS"
KEY: Final = "sk-bench"
INSTALL_S: Final = 900


class PeerMissing(Exception):
    """It cannot be installed here; the message says why, in one line."""


def environment() -> Path:
    """The folder of its programs, made where it is not there yet. Raises `PeerMissing`."""
    place = Path(os.environ.get(PEERS) or Path(tempfile.gettempdir()) / "watchkeeper-bench") / "litellm"
    done = place / "installed.txt"
    if done.is_file() and done.read_text() == PINS.read_text():
        return place / "bin"
    print("installing LiteLLM's proxy as a peer ...", file=sys.stderr)
    try:
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True, capture_output=True, timeout=120)
        install = [str(place / "bin/python"), "-m", "pip", "install", "--quiet", "--requirement", str(PINS)]
        subprocess.run(install, check=True, capture_output=True, timeout=INSTALL_S)
    except (subprocess.SubprocessError, OSError) as error:
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().splitlines()
        raise PeerMissing(f"LiteLLM cannot be installed in {place}: {said[-1] if said else error}") from error
    done.write_text(PINS.read_text())
    return place / "bin"


@contextlib.contextmanager
def proxy(folder: Path, programs: Path, upstream: str, mlflow: str | None) -> Iterator[tuple[str, int]]:
    """A proxy before `upstream` (ends in /v1), logging to the MLflow server at `mlflow` or nowhere. Yields URL and process
    id; the key is `KEY`."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = {
        "model_list": [
            {
                "model_name": "watchkeeper",
                "litellm_params": {"model": "openai/instant", "api_base": upstream, "api_key": "none"},
            }
        ],
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"success_callback": ["mlflow"]} if mlflow else {},
    }
    file = folder / "litellm.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "MLFLOW_DISABLE_TELEMETRY": "true"}
    env |= (
        {"PYTHONPATH": "", "MLFLOW_TRACKING_URI": mlflow, "MLFLOW_EXPERIMENT_NAME": "litellm"}
        if mlflow
        else {"PYTHONPATH": ""}
    )
    command = [str(programs / "litellm"), "--config", str(file), "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with process([*command, "--num_workers", "1"], f"{url}/health/liveliness", folder / "litellm.log", env) as pid:
        yield url, pid
