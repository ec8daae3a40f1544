"""The palette can be read: contrast, and distance for eyes that do not tell red from green."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from watchkeeper.record import ACTIONS
from watchkeeper_dashboards import theme

SCHEMES = pytest.mark.parametrize("palette", [theme.LIGHT, theme.DARK], ids=["light", "dark"])

# Machado, Oliveira and Fernandes 2009, severity 1: how linear RGB looks to these eyes.
EYES = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour: str) -> NDArray[np.float64]:
    channels = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio."""
    weights = np.array([0.2126, 0.7152, 0.0722])
    darker, lighter = sorted(float(linear(colour) @ weights) for colour in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


def lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    )
    xyz = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.95047, 1, 1.08883])
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


@SCHEMES
@pytest.mark.parametrize("ground", ["page", "card"])
def test_words_reach_4_5_to_1(palette: theme.Palette, ground: str) -> None:
    for token in ("text", "dim", "accent"):
        assert contrast(palette[token], palette[ground]) >= 4.5, token
    assert contrast(palette["text"], palette["accent-soft"]) >= 4.5
    assert contrast(palette["accent"], palette["accent-soft"]) >= 4.5
    assert contrast(palette["text"], palette["block-soft"]) >= 4.5


@SCHEMES
def test_tones_of_changes_are_readable_words(palette: theme.Palette) -> None:
    for token in ("block", "green"):
        assert contrast(palette[token], palette["card"]) >= 4.5, token


@SCHEMES
def test_marks_reach_3_to_1_on_a_card(palette: theme.Palette) -> None:
    marks = ("blue", "orange", "green", "purple", "sky", "mute", *ACTIONS)
    weak = {token: contrast(palette[token], palette["card"]) for token in marks}
    assert {token: ratio for token, ratio in weak.items() if ratio < 3} == {}


@SCHEMES
@pytest.mark.parametrize("eyes", list(EYES))
@pytest.mark.parametrize(
    "together", [("flag", "redact", "block", "unknown"), ("blue", "orange", "dim"), ("sky", "blue", "green")], ids=" ".join
)
def test_colours_of_one_chart_differ_for_all_eyes(palette: theme.Palette, eyes: str, together: tuple[str, ...]) -> None:
    seen = {token: lab(np.array(EYES[eyes]) @ linear(palette[token])) for token in together}
    for one, other in itertools.combinations(together, 2):
        assert np.linalg.norm(seen[one] - seen[other]) >= 11, (one, other)


def mixed(colour: str, ground: str, share: float) -> str:
    """CSS `color-mix(in srgb, colour share, ground)`."""
    pairs = [(int(colour[at : at + 2], 16), int(ground[at : at + 2], 16)) for at in (1, 3, 5)]
    return "#" + "".join(f"{round(over * share + under * (1 - share)):02x}" for over, under in pairs)


@SCHEMES
def test_words_can_be_read_on_every_tinted_ground(palette: theme.Palette) -> None:
    """Notices with their command, what differs between two answers, an open dialog's hints, chosen rows."""
    grounds = [palette["block-soft"], palette["accent-soft"], mixed(palette["green"], palette["card"], 0.09)]
    for ground in grounds:
        assert contrast(palette["text"], ground) >= 4.5
        assert contrast(palette["dim"], ground) >= 4.5
    for token, share in (("block", 0.16), ("green", 0.18)):
        assert contrast(palette["text"], mixed(palette[token], palette["card"], share)) >= 4.5


@SCHEMES
@pytest.mark.parametrize("tone", ["pass", "flag", "block", "unknown"])
def test_the_shape_of_a_verdict_stands_out_on_its_window(palette: theme.Palette, tone: str) -> None:
    style = (Path(theme.__file__).parent / "assets" / "style.css").read_text(encoding="utf-8")
    tint = re.search(r"\.wk-window \{[^}]*background: color-mix\(in srgb, var\(--tone\) (\d+)%", style)
    assert tint is not None
    assert contrast(palette[tone], mixed(palette[tone], palette["card"], int(tint[1]) / 100)) >= 3


def test_both_schemes_have_the_same_tokens() -> None:
    assert theme.LIGHT.keys() == theme.DARK.keys()


def test_neighbours_in_a_stack_differ_without_colour() -> None:
    patterns = [theme.PATTERNS[action] for action in ("flag", "redact", "block", "unknown")]
    assert len(set(patterns)) == len(patterns)


def test_css_sets_every_token_for_both_schemes() -> None:
    css = theme.css()
    for token in theme.LIGHT:
        assert f"--wk-{token}:{theme.LIGHT[token]};" in css
        assert f"--wk-{token}:{theme.DARK[token]};" in css
