"""The published schema against a real gateway: whatever schemathesis makes up of it, nothing crashes, no status comes that
is not written there, and no answer breaks its own schema."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from watchkeeper.serving.openapi import document

pytestmark = [
    pytest.mark.servers,
    # An embedding that takes two seconds is a 503 and so are those of the next three: among those made up few are good.
    pytest.mark.alone,
    # Its own, of libraries below it.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

CHECKS: Any = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]


@pytest.fixture(scope="module")
def url(
    tmp_path_factory: pytest.TempPathFactory,
    module_upstreams: Callable[[], Any],
    module_port: Callable[[], int],
    module_processes: Callable[..., Any],
) -> Iterator[str]:
    """A gateway before an instant upstream, which makes its embeddings as well."""
    folder = tmp_path_factory.mktemp("gateway")
    script, port = module_upstreams(), module_port()
    config = folder / "watchkeeper.toml"
    config.write_text(
        f"""
data = "{folder / "data"}"
[gateway]
port = {port}
[encoder]
base_url = "{script.url}"
[[upstreams]]
name = "scripted"
base_url = "{script.url}"
model = "scripted"
"""
    )
    command = [sys.executable, "-m", "watchkeeper", "serve", "--config", str(config)]
    process = module_processes(command, ready=f"http://127.0.0.1:{port}/health/ready")
    yield f"http://127.0.0.1:{port}"
    process.stop()


SEEN: Counter[tuple[str, int]] = Counter()
"""What was answered how often."""

schema = schemathesis.openapi.from_dict(document())


@schema.parametrize()
@hypothesis.settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck))
def test_the_schema_says_what_the_gateway_does(case: Any, url: str) -> None:
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = "watchkeeper"  # else nearly all would end at a model that nobody serves
    response = case.call_and_validate(base_url=url, checks=CHECKS)
    SEEN[case.operation.label, response.status_code] += 1


def test_good_requests_and_bad_ones_were_among_them() -> None:
    """Runs after the others."""
    assert SEEN["POST /v1/chat/completions", 200] >= 10, SEEN
    assert SEEN["POST /v1/chat/completions", 400] >= 10, SEEN
    assert SEEN["POST /v1/embeddings", 200], SEEN


def test_every_route_is_published(url: str) -> None:
    published = requests.get(f"{url}/openapi.json", timeout=10).json()
    assert published == document()
    named = requests.get(f"{url}/nowhere", timeout=10).json()["error"]["message"].partition("there is ")[2]
    routes = {tuple(route.split(" ")) for route in named.split(", ")}
    there = {(method.upper(), path) for path, item in published["paths"].items() for method in item}
    assert routes <= there


def test_a_wrong_method_names_the_right_one(url: str) -> None:
    response = requests.get(f"{url}/v1/chat/completions", timeout=10)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
