"""What pages other than the alerts' say of open alerts: how many there are, and that somebody should look."""

from dash import dcc
from dash.development.base_component import Component

from watchkeeper.lake.alerts import open_alerts
from watchkeeper_dashboards import parts
from watchkeeper_dashboards.page import Sources


def pending(sources: Sources) -> int:
    """How many alerts are open."""
    waiting: int = open_alerts(sources.lake).num_rows
    return waiting


def notice_of(sources: Sources) -> Component | None:
    """For other pages: that something is wrong, and the way here."""
    waiting = open_alerts(sources.lake).column("job").to_pylist()
    if not waiting:
        return None
    jobs = ", ".join(dict.fromkeys(waiting))
    words = f"{len(waiting)} alert{'s are' if len(waiting) > 1 else ' is'} open: {jobs}. "
    see = dcc.Link("See why", href="/alerts", id={"nav": "alerts", "path": "/alerts"})
    return parts.notice([words, see], role="status")
