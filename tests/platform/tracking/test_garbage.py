"""How the MLflow server that `up` starts collects garbage: as its command says, and on uvicorn's own loop."""

import subprocess
import sys
from pathlib import Path

from watchkeeper.settings import Settings
from watchkeeper.tracking import server_command
from watchkeeper.tracking.garbage import EVERY

PROGRAM = """
import asyncio, gc, sys
from uvicorn.config import Config

before = gc.get_threshold()
with asyncio.Runner(loop_factory=Config("none", loop=sys.argv[1]).get_loop_factory()) as runner:
    print(type(runner.get_loop()).__module__, before[0], gc.get_threshold()[0], before[1:] == gc.get_threshold()[1:])
"""


def test_the_server_is_told_a_loop_that_collects_seldom(tmp_path: Path) -> None:
    argv, _ = server_command(Settings(), tmp_path)
    options = argv[argv.index("--uvicorn-opts") + 1].split()
    named = options[options.index("--loop") + 1]
    done = subprocess.run([sys.executable, "-c", PROGRAM, named], capture_output=True, text=True, check=True)
    kind, before, after, rest = done.stdout.split()
    assert kind == "uvloop"
    assert int(before) < int(after) == EVERY
    assert rest == "True"
