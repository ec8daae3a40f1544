"""A chat model ready to answer: weights, tokenizer, chat template and limits, from a folder or a hub.

On a CPU it computes in float32 unless told otherwise: bfloat16 takes half the memory, answers a little differently, and
crawls on processors that lack its instructions. On a GPU in bfloat16, compiled. Knows nothing of HTTP or of who asks.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, Self

import msgspec
import torch
from jinja2 import TemplateError

from watchkeeper.embedded import hub
from watchkeeper.embedded.attention import agrees, compile_passes
from watchkeeper.embedded.packing import pack

LONGEST_CONTEXT: Final = 8192
"""Tokens. What a hub model may claim beyond it takes more memory than a machine without accelerator should give."""

logger = logging.getLogger(__name__)


class Checkpoint:
    """`ends`: the tokens that end an answer; `context`: tokens of prompt and answer together."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.ends = frozenset(_ends(model, tokenizer))
        self.context = _context(model.config.get_text_config())
        self._tokenizer = tokenizer
        special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        self._special = re.compile("|".join(re.escape(token) for token in special) or r"(?!)")

    def prompt(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        """(role, text) of each message → the tokens of a prompt that asks for an answer.

        What stands for a control token in a text is taken apart, so that no message can pass for another one. Raises
        `ValueError` where the model's template refuses the conversation.
        """
        turns = [{"role": role, "content": self._special.sub(_taken_apart, text)} for role, text in messages]
        try:
            text = self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        except TemplateError as error:
            raise ValueError(str(error)) from error
        tokens: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids
        return tokens

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens → text, control tokens left out."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def _taken_apart(found: re.Match[str]) -> str:
    return f"{found[0][0]} {found[0][1:]}"


class Placement(msgspec.Struct, frozen=True):
    """Where a model computes, in which numbers, and whether its passes are compiled first."""

    device: str
    dtype: str
    compiled: bool

    @classmethod
    def of(cls, device: str, dtype: str, gpu: bool) -> Self:
        """What the settings come to on a machine with or without a GPU. Raises `ModelRejected` where one is asked for that
        is not there."""
        if device == "cuda" and not gpu:
            raise hub.ModelRejected('model.device is "cuda", and torch finds no GPU here: use "auto" or "cpu"')
        on_gpu = gpu and device != "cpu"
        fitting = "bfloat16" if on_gpu else "float32"
        return cls("cuda" if on_gpu else "cpu", fitting if dtype == "auto" else dtype, on_gpu)


def load(source: str, device: str = "auto", dtype: str = "auto") -> Checkpoint:
    """The model at `source`: a folder, or a name on a hub. Raises `ModelRejected` where it cannot be loaded or served."""
    placement = Placement.of(device, dtype, torch.cuda.is_available())
    transformers = hub.transformers()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        numbers = getattr(torch, placement.dtype)
        model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=numbers).eval().to(placement.device)
    except (OSError, ValueError, ImportError) as error:
        raise hub.rejected(source, error) from error
    if tokenizer.chat_template is None:
        raise hub.ModelRejected(f"model {source!r} has no chat template: it completes texts, but does not answer")
    if placement.device == "cpu":
        pack(model)
    if not _decodable(model):
        raise hub.ModelRejected(f"model {source!r} is of a kind ({model.config.model_type}) that this server cannot decode")
    if placement.compiled:
        compile_passes(model)
    logger.info("%s computes on %s in %s", source, placement.device, placement.dtype)
    return Checkpoint(model, tokenizer)


def _decodable(model: Any) -> bool:
    """Whether the model can attend through `advance`, as it does from now on."""
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ["full_attention"])
    try:
        return kinds <= {"full_attention", "sliding_attention"} and agrees(model)
    except Exception:  # models that are built otherwise fail in ways of their own
        logger.info("the decoding check failed", exc_info=True)
        return False


def _ends(model: Any, tokenizer: Any) -> Iterator[int]:
    """The tokenizer's end token and all that the model's own settings name (one, or several)."""
    named = model.generation_config.eos_token_id
    yield from named if isinstance(named, list) else [] if named is None else [named]
    if tokenizer.eos_token_id is not None:
        yield tokenizer.eos_token_id


def _context(config: Any) -> int:
    """Where some layers see a window only, longer contexts would need another mask for those; none are taken."""
    limits = [LONGEST_CONTEXT, config.max_position_embeddings, getattr(config, "sliding_window", None)]
    return min(int(limit) for limit in limits if limit)
