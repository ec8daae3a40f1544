"""Colours and type: the palette of both schemes, as CSS custom properties and as Mantine's theme.

A figure or a style names a token (`$blue`, `var(--wk-blue)`), never a colour; which scheme is shown is the browser's
business. The palette is the one source: the contrast and colour-blindness tests read it. Knows nothing of pages or data.
"""

from typing import Any, Final

from watchkeeper.record import Action

Palette = dict[str, str]

LIGHT: Final[Palette] = {
    "page": "#f5f6f8",
    "card": "#ffffff",
    "border": "#e3e6ec",
    "grid": "#eceff3",
    "text": "#1d2330",
    "dim": "#5b6472",
    "mute": "#8b94a3",
    "hover": "#f2f5f9",
    "raised": "#ffffff",
    "accent": "#0B6BB0",
    "accent-soft": "#e7f2fb",
    "blue": "#0B6BB0",
    "orange": "#B45F00",
    "green": "#00805B",
    "purple": "#A8528A",
    "sky": "#2E93C9",
    "pass": "#00805B",
    "flag": "#B27A00",
    "redact": "#7B5EA7",
    "block": "#B3261E",
    "unknown": "#5b6472",
    "block-soft": "#fdeceb",
}
DARK: Final[Palette] = {
    "page": "#0f1115",
    "card": "#181b21",
    "border": "#2a2f38",
    "grid": "#242932",
    "text": "#e6e9ef",
    "dim": "#9aa4b2",
    "mute": "#697384",
    "hover": "#1f242c",
    "raised": "#2a2f38",
    "accent": "#6DB6EC",
    "accent-soft": "#182a3d",
    "blue": "#4DA3E0",
    "orange": "#E69F00",
    "green": "#2BB58A",
    "purple": "#D68BB8",
    "sky": "#8CCBF0",
    "pass": "#2BB58A",
    "flag": "#F2B93B",
    "redact": "#A98BE0",
    "block": "#F26D5B",
    "unknown": "#9aa4b2",
    "block-soft": "#33201f",
}

PATTERNS: Final[dict[Action, str]] = {"pass": "", "unknown": ".", "flag": "", "redact": "/", "block": "x"}
"""Plotly's fill pattern of each action: it is told from its neighbour without its colour."""

FONT: Final = "Inter Variable, Inter, system-ui, sans-serif"
MONO: Final = "JetBrains Mono Variable, JetBrains Mono, ui-monospace, monospace"

# Ten steps from the lightest to the darkest, as Mantine wants them; filled controls use step 6 (light) and 5 (dark).
_BLUES: Final = (
    "#e7f2fb", "#cfe3f4", "#a3cae9", "#74afdd", "#4DA3E0", "#2b86c8", "#0B6BB0", "#085a96", "#064a7c", "#043a63",
)  # fmt: skip


def css() -> str:
    """A style sheet that sets `--wk-<token>` on the root element, by Mantine's `data-mantine-color-scheme` attribute."""
    blocks = []
    for scheme, palette in (("light", LIGHT), ("dark", DARK)):
        properties = "".join(f"--wk-{token}:{colour};" for token, colour in palette.items())
        blocks.append(f':root[data-mantine-color-scheme="{scheme}"]{{color-scheme:{scheme};{properties}}}')
    return "".join(blocks)


def mantine() -> dict[str, Any]:
    """The theme that `dmc.MantineProvider` takes."""
    return {
        "fontFamily": FONT,
        "fontFamilyMonospace": MONO,
        "primaryColor": "watch",
        "primaryShade": {"light": 6, "dark": 5},
        "colors": {"watch": list(_BLUES)},
        "defaultRadius": 8,
        "cursorType": "pointer",
        "focusRing": "auto",
    }
