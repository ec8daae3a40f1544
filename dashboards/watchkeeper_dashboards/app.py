"""The monitoring app: which pages there are, and the server that runs them.

A page is one file under pages/ and one entry in `PAGES`. The app reads the lake and its rollups and writes nothing; it loads
neither torch nor mlflow.
"""

from typing import Any, Final

from dash import Dash
from flask import Flask
from gunicorn.app.base import BaseApplication

from watchkeeper.lake.lake import Lake
from watchkeeper.settings import Settings
from watchkeeper_dashboards import shell
from watchkeeper_dashboards.delivery import deliver
from watchkeeper_dashboards.mlflow_links import MlflowLinks
from watchkeeper_dashboards.page import Page, Sources
from watchkeeper_dashboards.pages import overview, trace, traces

PAGES: Final[tuple[Page, ...]] = (overview.PAGE, traces.PAGE, trace.PAGE)
"""In the order of the navigation."""

THREADS: Final = 4


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
        enable_mcp=False,
    )
    app.index_string = shell.index(app)
    app.layout = shell.layout(PAGES, sources)
    app.validation_layout = [app.layout, *(page.layout(sources, "") for page in PAGES)]
    shell.register(app, PAGES, sources)
    for page in PAGES:
        page.register(app, sources)
    deliver(app.server, sources.settings.dashboard.host, app.csp_hashes())
    return app


class _Server(BaseApplication):
    """gunicorn, told what to do by the settings instead of a command line. The app is made in the worker, after the fork."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        given: dict[str, Any] = {
            "bind": [f"{_bracketed(self._settings.dashboard.host)}:{self._settings.dashboard.port}"],
            "worker_class": "gthread",
            "workers": 1,
            "threads": THREADS,
            "timeout": 60,
            "graceful_timeout": 5,
            "loglevel": "warning",
            "proc_name": "watchkeeper-dashboard",
            # It would put a socket into the home folder.
            "control_socket_disable": True,
        }
        for name, value in given.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        server: Flask = create(self._settings).server
        return server


def run(settings: Settings) -> None:
    """Serves the app on the host and port of `settings` until SIGTERM or SIGINT. Exits the process when the port is taken."""
    _Server(settings).run()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
