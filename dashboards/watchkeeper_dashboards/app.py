"""The monitoring app: which pages there are, and the server that runs them.

A page is one file under pages/ and one entry in `PAGES`. The app reads the lake and its rollups and writes nothing; it
loads neither torch nor mlflow.
"""

import contextlib
import importlib
import threading
from typing import Final

from dash import Dash
from flask import Flask

from watchkeeper.lake.lake import Lake
from watchkeeper.settings import Settings
from watchkeeper_dashboards import evidence, shell
from watchkeeper_dashboards.delivery import deliver
from watchkeeper_dashboards.mlflow_links import MlflowLinks
from watchkeeper_dashboards.page import Page, Sources
from watchkeeper_dashboards.pages import alerts, experiment, experiments, overview, quality, releases, trace, traces
from watchkeeper_dashboards.server import serve

PAGES: Final[tuple[Page, ...]] = (
    overview.PAGE, traces.PAGE, trace.PAGE, quality.PAGE, alerts.PAGE, experiments.PAGE, experiment.PAGE, releases.PAGE,
)  # fmt: skip
"""In the order of the navigation."""


def create(settings: Settings) -> Dash:
    """The app over the lake of `settings`. Makes no connection yet: a lake that is away is a notice on the page."""
    sources = Sources(settings, Lake(settings.lake_uri, settings.lake.storage_options), MlflowLinks(settings))
    return assemble(sources)


def assemble(sources: Sources) -> Dash:
    """The app over given sources."""
    app = Dash(
        "watchkeeper_dashboards",
        title="Watchkeeper",
        update_title="",
        assets_ignore=r"^scheme\.js$",
        health_endpoint="health/live",
        on_error=shell.report_failure,
        # Each page brings its own components, so most callbacks name some that are not there (yet).
        suppress_callback_exceptions=True,
        enable_mcp=False,
    )
    app.index_string = shell.index(app)
    app.layout = shell.layout(PAGES, sources)
    shell.register(app, PAGES, sources)
    for page in PAGES:
        page.register(app, sources)
    deliver(app.server, sources.settings.dashboard.host, app.csp_hashes())
    return app


def run(settings: Settings) -> None:
    """Serves the app on the host and port of `settings` until SIGTERM or SIGINT, then ends the process."""

    def make() -> Flask:
        server: Flask = create(settings).server
        # DuckDB loads pandas, where it is installed, with the first question. Plotly's JSON looks at whatever of it is
        # loaded, and fails on a half: so it is loaded before anybody asks.
        with contextlib.suppress(ImportError):
            importlib.import_module("pandas")
        # The first question to the lake loads libraries for a second: better now than under the first reader's eyes.
        threading.Thread(target=_warm, args=(settings,), daemon=True).start()
        return server

    serve(settings.dashboard, make)


def _warm(settings: Settings) -> None:
    with contextlib.suppress(Exception):
        evidence.served(Lake(settings.lake_uri, settings.lake.storage_options))
