"""How well names are linked, on labelled prompts: to the right name, and rather to none than to a wrong one."""

from pathlib import Path

import msgspec

from watchkeeper.serving.entities import Catalogue

FOLDER = Path(__file__).parent / "named"
LEAST_PRECISION, LEAST_RECALL = 0.97, 0.9


class Prompt(msgspec.Struct, frozen=True):
    text: str
    names: list[str]


def test_linking_is_precise_and_finds_most() -> None:
    catalogue = Catalogue.build([], (FOLDER / "entities.txt").read_text().splitlines())
    prompts = [msgspec.json.decode(line, type=Prompt) for line in (FOLDER / "prompts.jsonl").read_bytes().splitlines()]
    assert len(prompts) >= 60
    linked = [(prompt, set(catalogue.link(prompt.text))) for prompt in prompts]
    right = sum(len(names & set(prompt.names)) for prompt, names in linked)
    precision = right / sum(len(names) for _, names in linked)
    recall = right / sum(len(prompt.names) for prompt in prompts)
    wrong = [(prompt.text, prompt.names, sorted(names)) for prompt, names in linked if names != set(prompt.names)]
    assert precision >= LEAST_PRECISION, wrong
    assert recall >= LEAST_RECALL, wrong
