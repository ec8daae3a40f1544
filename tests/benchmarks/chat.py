"""The embedded model with four requests at a time, against transformers' `generate` one after the other, same weights."""

import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests
import torch
from servers import free_port, process
from table import Row, alternate, figure
from transformers import AutoModelForCausalLM, AutoTokenizer

from watchkeeper.embedded.weights import CHAT, chat_model
from watchkeeper.settings import Settings

PROMPTS = [f"Tell me {number} things about the weather on a mountain." for number in (2, 3, 4, 5)]
TOKENS = 48


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
            ours, theirs = alternate(lambda: _served(port), lambda: _generated(tokenizer, model), runs=3)
    yield Row(
        f"wall time, {len(PROMPTS)} answers of {TOKENS} tokens, greedy",
        figure(ours, "s"),
        "transformers generate, float32, one at a time",
        figure(theirs, "s"),
    )


def _served(port: int) -> float:
    def ask(prompt: str) -> None:
        body = {
            "model": CHAT.folder,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": TOKENS,
            "temperature": 0,
        }
        requests.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=120).raise_for_status()

    started = time.perf_counter()
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        list(pool.map(ask, PROMPTS))
    return time.perf_counter() - started


def _generated(tokenizer: Any, model: Any) -> float:
    started = time.perf_counter()
    for prompt in PROMPTS:
        turns = [{"role": "user", "content": prompt}]
        tokens = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.inference_mode():
            model.generate(**tokens, max_new_tokens=TOKENS, do_sample=False)
    return time.perf_counter() - started
