"""The app as a whole: its pages, its frame, how it is delivered, and that it starts light."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs_version

import watchkeeper_dashboards
from watchkeeper.settings import Settings
from watchkeeper_dashboards import delivery
from watchkeeper_dashboards.app import PAGES, create

PACKAGE = Path(watchkeeper_dashboards.__file__).parent
ASSETS = PACKAGE / "assets"


def test_paths_are_told_apart() -> None:
    for pathname, value, name in (
        ("/", "", "Overview"),
        ("/traces", "", "Traces"),
        ("/traces/", "", "Traces"),
        ("/traces/abc", "abc", "Trace"),
    ):
        matching = [(page.name, page.matches(pathname)) for page in PAGES if page.matches(pathname) is not None]
        assert matching == [(name, value)]
    assert all(page.matches("/traces/a/b") is None and page.matches("/nothing") is None for page in PAGES)


def test_the_router_shows_a_page_or_says_that_there_is_none(house: Any, reader_of: Any, read: Any) -> None:
    reader = reader_of(house)
    answer = reader.fire("page.children", url_pathname="/traces")["response"]
    assert answer["title"]["data"] == "Traces"
    assert read(answer["page"]["children"])[0] == "Traces"
    nowhere = reader.fire("page.children", url_pathname="/nowhere")["response"]
    assert "There is no such page" in read(nowhere["page"]["children"])


def test_two_apps_do_not_share_pages(house: Any, make_house: Any, reader_of: Any, read: Any) -> None:
    full, empty = reader_of(house), reader_of(make_house([]))
    assert (
        full.fire("page.children", url_pathname="/")["response"]
        == empty.fire("page.children", url_pathname="/")["response"]
    )


def test_creating_the_app_touches_no_lake(tmp_path: Path) -> None:
    client = create(Settings(data=tmp_path / "not" / "there")).server.test_client()
    assert client.get("/health/live").status_code == 200
    assert not (tmp_path / "not").exists()


def test_the_document_names_its_language_and_no_other_host(house: Any, reader_of: Any) -> None:
    document = reader_of(house).http.get("/").text
    assert '<html lang="en"' in document
    assert re.findall(r'(?:src|href)="(?:https?:)?//[^"]*"', document) == []


def test_the_policy_allows_our_inline_script_and_no_other_host(house: Any, reader_of: Any) -> None:
    policy = reader_of(house).http.get("/").headers["Content-Security-Policy"]
    scripts = next(rule for rule in policy.split("; ") if rule.startswith("script-src"))
    assert re.fullmatch(r"script-src 'self'( 'sha256-[\w+/=]+')+", scripts)
    assert "unsafe-eval" not in policy
    assert "http" not in policy
    assert "default-src 'none'" in policy


def test_files_with_a_fingerprint_are_kept_and_data_is_not(house: Any, reader_of: Any) -> None:
    reader = reader_of(house)
    document = reader.http.get("/")
    assert document.headers["Cache-Control"] == "no-store"
    styles = re.search(r'href="(/assets/style\.css\?m=[^"]+)"', document.text)
    assert styles is not None
    assert "immutable" in reader.http.get(styles[1], buffered=True).headers["Cache-Control"]
    assert reader.http.get("/assets/style.css", buffered=True).headers["Cache-Control"] == "no-cache"
    assert reader.http.get("/_dash-layout").headers["Cache-Control"] == "no-store"


def test_what_is_large_is_compressed(house: Any, reader_of: Any) -> None:
    reader = reader_of(house)
    script = re.search(r'src="(/assets/vendor/plotly[^"]+)"', reader.http.get("/").text)
    assert script is not None
    answer = reader.http.get(script[1], headers={"Accept-Encoding": "gzip, br"}, buffered=True)
    assert answer.headers["Content-Encoding"] == "br"
    assert len(answer.data) < 600_000


@pytest.mark.parametrize(
    ("bound_to", "host", "origin", "refused"),
    [
        ("127.0.0.1", "127.0.0.1:8050", None, False),
        ("127.0.0.1", "localhost:8050", "http://localhost:8050", False),
        ("::1", "[::1]:8050", None, False),
        ("127.0.0.1", "rebound.example:8050", None, True),
        ("127.0.0.1", "127.0.0.1:8050", "http://elsewhere.example", True),
        ("127.0.0.1", "127.0.0.1:8050", "null", True),
        ("0.0.0.0", "watch.example", None, False),
        ("0.0.0.0", "watch.example", "https://watch.example", False),
        ("0.0.0.0", "watch.example", "https://elsewhere.example", True),
    ],
)
def test_strangers_are_refused(bound_to: str, host: str, origin: str | None, refused: bool) -> None:
    assert delivery.refused(bound_to, host, origin) is refused


def test_a_rebound_name_gets_no_data(house: Any, reader_of: Any) -> None:
    answer = reader_of(house).http.get("/_dash-layout", headers={"Host": "rebound.example"})
    assert answer.status_code == 403


def test_the_vendored_plotly_is_the_one_that_python_validates_with() -> None:
    assert (ASSETS / "vendor" / f"plotly-cartesian-{get_plotlyjs_version()}.min.js").is_file()


def test_whatever_is_vendored_has_its_licence_beside_it() -> None:
    for folder, owners in (("vendor", ("plotly", "tabler-icons")), ("fonts", ("inter", "jetbrains-mono"))):
        for owner in owners:
            assert (ASSETS / folder / f"{owner}-LICENSE.txt").is_file()
    assert all(font.name.startswith(("inter", "jetbrains-mono")) for font in (ASSETS / "fonts").glob("*.woff2"))


def test_every_icon_that_is_named_exists() -> None:
    styles = (ASSETS / "icons.css").read_text(encoding="utf-8")
    sources = "".join(file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py"))
    named = set(re.findall(r'icon\("([a-z-]+)"\)', sources)) | {page.icon for page in PAGES if page.icon}
    assert named
    assert {name for name in named if f".wk-icon-{name} " not in styles} == set()


def test_every_colour_of_the_styles_is_a_token() -> None:
    from watchkeeper_dashboards import theme

    used = set(re.findall(r"var\(--wk-([a-z-]+)\)", (ASSETS / "style.css").read_text(encoding="utf-8")))
    assert used - theme.LIGHT.keys() <= {"gap", "radius", "mono"}


def test_importing_the_app_loads_neither_torch_nor_mlflow() -> None:
    code = (
        "import sys, watchkeeper_dashboards.app; "
        "print(sorted({'torch', 'mlflow', 'transformers', 'evidently', 'pandas'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_the_readme_names_every_file() -> None:
    readme = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    files = [file for file in PACKAGE.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert {file.name for file in files if file.name not in readme and file.suffix not in {".woff2", ".txt"}} == set()
