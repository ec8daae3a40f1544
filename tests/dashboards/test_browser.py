"""The app as its readers have it: the real server, a real lake, a real browser without a network."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, Request, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox", "--disable-background-networking", "--disable-gpu", "--no-first-run", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip
STARTS_WITHIN_S = 40.0
expect.set_options(timeout=20_000)
"""Where other tests run beside these, a page takes its time."""

pytestmark = pytest.mark.servers
PAINTED = "[...document.querySelectorAll('.js-plotly-plot')].filter(plot => plot.data && plot.data.length).length === 5"
EXPERIMENT = "/experiments/experiment-20260110-1600"
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def start(folder: Path, free_port: Callable[[], int]) -> tuple[subprocess.Popen[bytes], str]:
    """`run()` in a process of its own, as `watchkeeper dashboard` does it; and its address."""
    port = free_port()
    settings = {
        "DATA": str(folder),
        "DASHBOARD__PORT": str(port),
        "GATEWAY__PORT": str(free_port()),  # nobody answers there
        "MLFLOW__URI": f"http://127.0.0.1:{free_port()}",
    }
    code = "from watchkeeper.settings import load; from watchkeeper_dashboards.app import run; run(load())"
    server = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {f"WATCHKEEPER_{name}": value for name, value in settings.items()},
    )
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not answers(f"http://127.0.0.1:{port}/health/live"):
        assert server.poll() is None, "the server ended at once"
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.1)
    return server, f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def base(house: Any, module_port: Callable[[], int]) -> Iterator[str]:
    """The address of a server over a day of traffic."""
    server, address = start(house.settings.data, module_port)
    yield address
    server.terminate()
    server.wait(15)


class Complaints:
    """What a page did wrong: errors in the console, requests elsewhere, dialogs."""

    def __init__(self, page: Page, base: str) -> None:
        self.found: list[str] = []
        self.posts = 0
        self._base = base
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.found.append(str(error)))
        page.on("request", self._request)
        page.on("dialog", self._dialog)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.found.append(message.text)

    def _dialog(self, dialog: Dialog) -> None:
        self.found.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, request: Request) -> None:
        self.posts += request.method == "POST"
        if not request.url.startswith((self._base, "data:", "blob:")):
            self.found.append(f"request to {request.url}")


@pytest.fixture
def visit(browser: Browser, base: str) -> Iterator[Callable[..., tuple[Page, Complaints]]]:
    """A function: path, scheme, width, a script that runs before the page's own → a page in a profile that is fresh in this
    test for each of these, and what it did wrong."""
    contexts: dict[tuple[Any, ...], BrowserContext] = {}

    def make(path: str, scheme: Any = "light", width: int = 1440, script: str = "") -> tuple[Page, Complaints]:
        if (scheme, width, script) not in contexts:
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            context.add_init_script(script)
            contexts[scheme, width, script] = context
        page = contexts[scheme, width, script].new_page()
        complaints = Complaints(page, base)
        page.goto(base + path)
        return page, complaints

    yield make
    for context in contexts.values():
        context.close()


def wait_until(page: Page, expression: str, within_s: float = 20.0) -> None:
    """Until `expression` is true in the page. (Playwright's own wait is an eval, which the page's policy forbids.)"""
    deadline = time.monotonic() + within_s
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


def fills_the_screen_at_most(page: Page) -> bool:
    fits: bool = page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    return fits


TOO_WIDE = """window.tooWide = [];
const look = () => {
  const root = document.documentElement, width = root.clientWidth;
  const seen = (chart) => chart.checkVisibility({ visibilityProperty: true });
  const wide = (chart) => seen(chart) && chart.getBoundingClientRect().width > width;
  if (root.scrollWidth > width) window.tooWide.push(`the page: ${root.scrollWidth}`);
  if ([...document.querySelectorAll(".main-svg")].some(wide)) window.tooWide.push("a chart");
  requestAnimationFrame(look);
};
requestAnimationFrame(look);"""
"""Looks at every frame that is painted, from the first: what was wider than the screen, also if only for a moment."""


UNNAMED = """() => [...document.querySelectorAll("a, button, input, select, textarea")].filter((element) => {
  const words = element.getAttribute("aria-label") || element.innerText || element.title || element.placeholder ||
    (element.labels && [...element.labels].map((label) => label.innerText).join("")) || element.textContent;
  return element.checkVisibility() && !words.trim();
}).map((element) => element.outerHTML.slice(0, 200))"""


@SCHEMES
def test_every_page_opens_clean_in_both_schemes(visit: Any, house: Any, scheme: str) -> None:
    for path, heading in (
        ("/?range=all", "Overview"),
        ("/traces?range=all", "Traces"),
        (f"/traces/{house.hostile.request_id}", house.hostile.request_id),
        ("/quality?range=all&evaluation=quality-hour-2", "Quality & drift"),
        ("/alerts?range=all", "Alerts"),
        ("/experiments?range=all", "Experiments"),
        (EXPERIMENT, "experiment-20260110-1600"),
        (f"{EXPERIMENT}?case=0000000000000003.0", "Case 0000000000000003"),
        ("/releases?range=all", "Releases"),
        ("/nowhere", None),
    ):
        page, complaints = visit(path, scheme)
        if heading:
            expect(page.get_by_role("heading", level=1)).to_have_text(heading)
        else:
            expect(page.get_by_text("There is no such page")).to_be_visible()
        expect(page.locator("html")).to_have_attribute("data-mantine-color-scheme", scheme)
        page.wait_for_load_state("networkidle")
        assert page.evaluate(UNNAMED) == []
        assert fills_the_screen_at_most(page)
        assert complaints.found == []
        page.close()


@SCHEMES
def test_the_charts_are_painted_in_the_scheme(visit: Any, scheme: str) -> None:
    page, complaints = visit("/?range=all", scheme)
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    expect(page.locator(".wk-tile")).to_have_count(6)
    wait_until(page, PAINTED)
    colours = page.evaluate(
        "[document.querySelector('.js-plotly-plot').layout.font.color,"
        " getComputedStyle(document.documentElement).getPropertyValue('--wk-dim').trim()]"
    )
    assert colours[0] == colours[1]
    assert complaints.found == []


def test_hostile_text_is_shown_as_text_wherever_it_appears(visit: Any, house: Any) -> None:
    page, complaints = visit("/traces?range=all&q=onerror")
    expect(page.locator(".ag-cell", has_text="<img src=x onerror=alert(1)>")).to_be_visible()
    page.goto(page.url.split("/traces")[0] + f"/traces/{house.hostile.request_id}")
    expect(page.locator(".wk-text", has_text="<img src=x onerror=alert(1)> **bold**").first).to_be_visible()
    assert page.locator("img[src='x']").count() == 0
    assert page.locator("#page strong", has_text="bold").count() == 0
    assert complaints.found == []


def test_a_row_of_the_grid_opens_its_trace_by_mouse_and_by_key(visit: Any, house: Any) -> None:
    page, complaints = visit("/traces?range=all")
    rows = [record.request_id for record in reversed(house.records)]
    page.locator(f".ag-row[row-id='{rows[2]}'] .ag-cell").nth(2).click()
    expect(page).to_have_url(re.compile(rf"/traces/{rows[2]}\?range=all$"))
    expect(page.get_by_role("table", name="Stages of the request")).to_be_visible()
    page.get_by_role("link", name="Traces").last.click()
    page.locator(f".ag-row[row-id='{rows[3]}'] .ag-cell").first.press("Enter")
    expect(page).to_have_url(re.compile(rf"/traces/{rows[3]}\?range=all$"))
    assert complaints.found == []


def test_a_row_that_needs_review_and_a_diamond_open_their_trace(visit: Any) -> None:
    page, complaints = visit("/?range=all")
    page.locator("tr.wk-linked").first.locator("td").nth(2).click(force=True)
    expect(page).to_have_url(re.compile(r"/traces/[0-9a-f]{32}\?range=all$"))
    page.go_back()
    wait_until(page, PAINTED)
    page.wait_for_load_state("networkidle")
    # The diamonds are drawn under the layer that takes the mouse, and Plotly knows a click only after a hover.
    page.locator(".wk-clickable .scatterlayer .trace").last.locator("path.point").first.hover(force=True)
    expect(page.locator(".wk-clickable .hoverlayer text", has_text="open this trace")).to_be_visible()
    page.mouse.down()
    page.mouse.up()
    expect(page).to_have_url(re.compile(r"/traces/[0-9a-f]{32}\?range=all$"))
    assert complaints.found == []


def test_a_point_of_a_score_opens_its_requests_worst_first(visit: Any) -> None:
    page, complaints = visit("/quality?range=all&release=support@3")
    card = page.locator(".wk-card", has=page.get_by_role("heading", name="Grounded"))
    wait_until(page, "[...document.querySelectorAll('.wk-scores .js-plotly-plot')].some(plot => plot.data.length)")
    page.wait_for_load_state("networkidle")
    card.locator("path.point").nth(-1).hover(force=True)
    expect(card.locator(".hoverlayer text", has_text="open these requests")).to_be_visible()
    page.mouse.down()
    page.mouse.up()
    expect(page).to_have_url(re.compile(r"/traces\?since=.*&until=.*&score=grounded&release=support%403$"))
    expect(page.locator(".wk-chip")).to_have_count(2)
    expect(page.locator(".ag-header-cell", has_text="grounded")).to_be_visible()
    expect(page.locator(".ag-row [col-id='score']").first).to_have_text("no")
    assert complaints.found == []


def test_a_verdict_is_chosen_by_key_and_leads_to_its_requests(visit: Any) -> None:
    page, complaints = visit("/quality?range=all")
    page.get_by_role("link", name="fail, 10 Jan 14:00 to 15:00").last.press("Enter")
    expect(page.get_by_role("heading", name="quality, 10 Jan 14:00 to 15:00")).to_be_visible()
    page.get_by_role("link", name="requests of this window").click()
    expect(page.locator("#traces-note")).to_contain_text("in 10 Jan 14:00 to 15:00")
    page.locator("label", has_text="24h").click()
    expect(page).to_have_url(re.compile(r"/traces\?range=24h$"))
    assert complaints.found == []


def test_rows_are_ticked_by_mouse_and_key_and_stay_ticked(visit: Any, house: Any) -> None:
    page, complaints = visit("/nowhere")
    page.clock.install()
    page.goto(page.url.replace("/nowhere", "/traces?range=all"))
    rows = [record.request_id for record in reversed(house.records)]
    page.locator(f".ag-row[row-id='{rows[1]}'] .ag-selection-checkbox").click()
    page.locator(f".ag-row[row-id='{rows[2]}'] .ag-cell").first.press("Space")
    add = page.get_by_role("button", name="Add 2 to dataset")
    expect(add).to_be_disabled()
    expect(page).to_have_url(re.compile(r"/traces\?range=all$"))
    page.get_by_label("Dataset").fill("hard cases")
    expect(add).to_be_enabled()
    with page.expect_response("**/_dash-update-component*"):
        page.clock.fast_forward(10_500)
    page.wait_for_timeout(1_000)  # for the rows to be drawn anew
    expect(add).to_be_enabled()
    expect(page.locator(".ag-row-selected")).to_have_count(2)
    assert complaints.found == []


@SCHEMES
def test_a_thumb_that_the_gateway_cannot_take_says_so_and_keeps_the_comment(visit: Any, house: Any, scheme: str) -> None:
    page, complaints = visit(f"/traces/{house.records[3].request_id}", scheme)
    comment = page.get_by_label("Comment, if you like")
    comment.fill("cites the wrong year")
    up, down = page.get_by_role("button", name="Good answer"), page.get_by_role("button", name="Bad answer")
    mask = "element => getComputedStyle(element.querySelector('.wk-icon')).maskImage"
    assert up.evaluate(mask) != down.evaluate(mask) != "none"
    down.click()
    expect(page.get_by_role("alert").filter(has_text="The gateway does not answer at http://127.0.0.1")).to_be_visible()
    expect(comment).to_have_value("cites the wrong year")
    expect(down).to_be_enabled()
    page.set_viewport_size({"width": 390, "height": 800})
    wait_until(page, "document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert complaints.found == []


def test_a_promotion_asks_for_a_reason_and_shows_the_commands_own_answer(visit: Any) -> None:
    page, complaints = visit("/releases?range=all")
    page.get_by_role("link", name="Promote").first.click()
    expect(page).to_have_url(re.compile(r"/releases\?range=all&promote=watchkeeper%403$"))
    dialog = page.get_by_role("dialog", name="Promote watchkeeper@3")
    promote = dialog.get_by_role("button", name="Promote")
    expect(promote).to_be_disabled()
    dialog.get_by_label("Reason").fill("--help")
    promote.click()
    # There is no MLflow in this house: the command says so, and the page shows its line and its name.
    expect(dialog.get_by_role("alert")).to_contain_text(
        "watchkeeper release promote watchkeeper@3 --reason --help", timeout=60_000
    )
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page).to_have_url(re.compile(r"/releases\?range=all$"))
    assert complaints.found == []


def test_answers_side_by_side_show_hostile_text_as_text(visit: Any) -> None:
    page, complaints = visit(EXPERIMENT)
    page.get_by_role("link", name="<img src=x").click()
    expect(page.locator("del")).to_have_text("a fortnight, I believe.")
    expect(page.locator("ins")).to_have_text("30 days; the label is in the parcel.")
    assert page.locator("img[src='x']").count() == 0
    page.get_by_role("link", name="next case").click()
    expect(page.get_by_role("heading", level=1)).not_to_have_text("Case 0000000000000003")
    page.get_by_role("link", name="Experiment", exact=True).click()
    expect(page.get_by_role("heading", name="Gate", exact=True)).to_be_visible()
    assert complaints.found == []


def test_the_scheme_is_switched_without_the_server_and_remembered(visit: Any) -> None:
    page, complaints = visit("/?range=all")
    wait_until(page, PAINTED)
    page.wait_for_load_state("networkidle")
    before = complaints.posts
    page.get_by_role("button", name="Switch between light and dark").click()
    wait_until(page, "document.querySelector('.js-plotly-plot').layout.font.color === '#9aa4b2'")
    assert complaints.posts == before
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-mantine-color-scheme", "dark")
    assert complaints.found == []


def test_the_range_is_in_the_address_and_links_keep_it(visit: Any, house: Any) -> None:
    page, _ = visit("/?range=all")
    expect(page.locator(".wk-tile-value").first).to_have_text(f"{len(house.records):,}")
    page.locator("label", has_text="1h").click()
    expect(page).to_have_url(re.compile(r"\?range=1h$"))
    expect(page.get_by_text("No requests in the last hour")).to_be_visible()
    page.go_back()
    expect(page.locator(".wk-tile-value").first).to_have_text(f"{len(house.records):,}")
    page.get_by_role("navigation").get_by_role("link", name="Traces").click()
    expect(page).to_have_url(re.compile(r"/traces\?range=all$"))
    expect(page).to_have_title("Traces · Watchkeeper")


def test_filters_narrow_the_list_and_stand_in_the_address(visit: Any, house: Any) -> None:
    page, complaints = visit("/traces?range=all")
    page.get_by_label("Text").fill("INVOICE")
    expect(page).to_have_url(re.compile(r"q=INVOICE"))
    page.get_by_role("textbox", name="Verdict").click()
    page.get_by_role("option", name="flag").click()
    expected = sum("invoice" in record.prompt_text and record.action == "flag" for record in house.records)
    expect(page.locator("#traces-note")).to_contain_text(f"{expected} request")
    expect(page).to_have_url(re.compile(r"range=all&q=INVOICE&action=flag$"))
    page.reload()
    expect(page.get_by_label("Text")).to_have_value("INVOICE")
    expect(page.locator("#traces-note")).to_contain_text(f"{expected} request")
    assert complaints.found == []


@pytest.mark.parametrize(
    ("path", "content"), [("/?range=all", ".wk-tile"), ("/traces?range=all", ".ag-row [col-id='received_at']")]
)
def test_a_server_that_was_away_is_noticed_and_asked_again(visit: Any, path: str, content: str) -> None:
    page, _ = visit("/nowhere")
    page.clock.install()
    page.goto(page.url.replace("/nowhere", path))
    expect(page.locator(content).first).to_be_visible()
    expect(page.locator("#updated")).to_contain_text("updated")
    page.wait_for_load_state("networkidle")
    page.route("**/_dash-update-component*", lambda route: route.abort())
    with page.expect_event("requestfailed"):
        page.clock.fast_forward(10_500)
    page.clock.fast_forward(30_000)
    expect(page.get_by_role("alert")).to_contain_text("The server has not answered")
    page.unroute_all()
    page.clock.fast_forward(30_000)
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.locator(content).first).not_to_be_empty()


def test_a_telephone_shows_every_page_without_scrolling_sideways(visit: Any, house: Any) -> None:
    paths = (
        "/?range=all", "/traces?range=all", f"/traces/{house.hostile.request_id}", "/quality?range=all", "/alerts",
        "/experiments", EXPERIMENT, f"{EXPERIMENT}?case=0000000000000003.0", "/releases?promote=watchkeeper@3", "/releases",
    )  # fmt: skip
    for path in paths:
        page, complaints = visit(path, width=390, script=TOO_WIDE)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        page.wait_for_load_state("networkidle")
        assert fills_the_screen_at_most(page)
        assert page.evaluate("tooWide") == []
        assert complaints.found == []
        if path != paths[-1]:
            page.close()
    overview = page.get_by_role("navigation").get_by_role("link", name="Overview")
    expect(overview).not_to_be_in_viewport()
    page.get_by_role("button", name="Menu").click()
    overview.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    expect(overview).not_to_be_in_viewport()


def test_the_server_ends_when_it_is_told_to(tmp_path: Path, free_port: Callable[[], int]) -> None:
    server, _ = start(tmp_path, free_port)
    server.send_signal(signal.SIGTERM)
    assert server.wait(15) == 0
