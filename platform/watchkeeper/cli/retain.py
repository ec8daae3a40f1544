"""`watchkeeper retain`: what is older than the settings say goes, told as a table or one JSON document."""

from datetime import UTC, datetime

import msgspec

from watchkeeper.cli import output
from watchkeeper.lake.lake import Lake
from watchkeeper.settings import Settings
from watchkeeper.telemetry.retention import Dropped, retain


def run(settings: Settings, *, dry_run: bool, as_json: bool) -> int:
    """0: done, also where nothing is limited; 1: something could not be reached, and is named."""
    lake = Lake(settings.lake_uri, settings.lake.storage_options)
    done: list[Dropped] = []
    for one in retain(settings, lake, datetime.now(UTC), dry_run=dry_run, purge=True):
        words = one.error or f"{one.dropped:,} {'would go' if dry_run else 'gone'}"
        output.note(f"{one.what}: {words}")
        if one.elsewhere:
            output.note(f"not ours to reach: {one.elsewhere}")
        done.append(one)
    if as_json:
        output.document({"dry_run": dry_run, "dropped": msgspec.to_builtins(done)})
    elif done:
        rows = ((one.what, f"{one.days}d", one.before, one.dropped, one.error) for one in done)
        output.table(("what", "kept", "from before", "would go" if dry_run else "gone", "not reached"), rows)
    else:
        output.note("[retention] limits nothing: everything is kept for ever")
    return 1 if any(one.error for one in done) else 0
