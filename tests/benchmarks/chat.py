"""The embedded model behind HTTP, with 1, 4, 8 and 16 clients, against transformers' `generate` one answer after the other:
same weights, same precision, tokens a second."""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

# Before torch is loaded, as the server does it: threads that spin would make the peer many times slower on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import requests
import torch
from servers import free_port, process
from table import Row, alternate, figure
from transformers import AutoModelForCausalLM, AutoTokenizer

from watchkeeper.embedded.weights import CHAT, chat_model
from watchkeeper.settings import Settings

CLIENTS: Final = (1, 4, 8, 16)
TOKENS: Final = 32
RUNS: Final = 3
Turns = list[dict[str, str]]


class Server:
    """`watchkeeper model` on a port."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/v1/chat/completions"

    def answer(self, turns: Turns) -> int:
        """Asks; how many tokens were generated."""
        body = {"model": CHAT.folder, "messages": turns, "max_tokens": TOKENS, "temperature": 0}
        response = requests.post(self._url, json=body, timeout=600)
        response.raise_for_status()
        return int(response.json()["usage"]["completion_tokens"])


def rows() -> Iterator[Row]:
    source = chat_model(Settings().models)
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        config = folder / "watchkeeper.toml"
        config.write_text(f'data = "{folder}"\n[model]\nport = {port}\n')
        command = [sys.executable, "-m", "watchkeeper", "model", "--config", str(config)]
        with process(command, f"http://127.0.0.1:{port}/health/ready", folder / "model.log"):
            server = Server(port)
            for clients in CLIENTS:
                yield _throughput(server, tokenizer, model, clients)


def _throughput(server: Server, tokenizer: Any, model: Any, clients: int) -> Row:
    # Other prompts in each run: none has been read before.
    runs = iter(range(1000))

    def prompts() -> list[Turns]:
        run = next(runs)
        return [[{"role": "user", "content": f"{run}: Tell me {n} things about the weather."}] for n in range(clients)]

    def together() -> float:
        started = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            told = sum(pool.map(server.answer, prompts()))
        return told / (time.perf_counter() - started)

    def alone() -> float:
        # A few suffice: one after the other each takes as long.
        few = prompts()[:2]
        started = time.perf_counter()
        told = sum(_generate(tokenizer, model, turns) for turns in few)
        return told / (time.perf_counter() - started)

    ours, theirs = alternate(together, alone, runs=RUNS)
    return Row(
        f"{clients} answers at a time of {TOKENS} tokens, greedy",
        figure(ours, "tokens/s"),
        "transformers generate, float32, one at a time",
        figure(theirs, "tokens/s"),
        less_is_better=False,
    )


def _generate(tokenizer: Any, model: Any, turns: Turns) -> int:
    tokens = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        answered = model.generate(**tokens, max_new_tokens=TOKENS, do_sample=False)
    return int(answered.shape[1] - tokens["input_ids"].shape[1])
