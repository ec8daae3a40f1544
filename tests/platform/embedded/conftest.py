"""A chat model of a few thousand random weights, and servers on free ports."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette

# Before torch is loaded: threads that spin while they wait make these tests many times slower beside other work.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

Serving = Callable[[Starlette], AbstractContextManager[str]]


def make_tokenizer() -> Any:
    """One token a byte, and ChatML's marks."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(marks + letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=marks[2], pad_token=marks[0], bos_token=marks[1])
    fast.chat_template = TEMPLATE
    return fast


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `save_pretrained` leaves it: a Llama with random weights and a context of 512 tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny-chat")
    tokenizer = make_tokenizer()
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        # Larger than usual: with the usual ones a random model repeats one token for ever.
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def packaged() -> Path:
    """The models folder that `make install` fills."""
    from watchkeeper.embedded import weights
    from watchkeeper.settings import load

    models = load().models
    try:
        weights.chat_model(models)
        weights.encoder_model(models)
    except weights.WeightsMissing as error:
        pytest.fail(f"run `make install` first: {error}")
    return models


@pytest.fixture(scope="session")
def serving() -> Serving:
    """Serves an application on a free port while the context lasts; gives its base URL, `/v1` included."""

    @contextmanager
    def serve(app: Starlette) -> Iterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            started = threading.Event()

            class Signalling(uvicorn.Server):
                async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                    await super().startup(sockets)
                    started.set()

            server = Signalling(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()
            assert started.wait(30)
            try:
                yield f"http://127.0.0.1:{port}/v1"
            finally:
                server.should_exit = True
                thread.join()

    return serve
