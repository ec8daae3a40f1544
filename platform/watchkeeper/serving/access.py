"""Who may ask what over HTTP: every request but for `/health/…` has a caller before anything else is done with it.

Asked for every request before it is routed, so that no route can be forgotten. The header is not kept and not logged. Knows
nothing of what a caller may then have (admission.py).
"""

import uuid
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from watchkeeper.serving import completion
from watchkeeper.serving.keys import Caller, Keys
from watchkeeper.serving.request import Refused

OPEN: Final = frozenset({"/health/live", "/health/ready"})
OPERATORS: Final = frozenset({"/metrics"})
"""What tells of all tenants is for operators' keys."""

CALLER: Final = "watchkeeper.caller"
"""Under this key a scope says who its caller is."""


def turned_away(scope: Scope, keys: Keys) -> Response | None:
    """The answer for whom `keys` does not let in; None: whoever it is, is noted on the scope."""
    if scope["path"] in OPEN:
        return None
    try:
        scope[CALLER] = _allowed(keys.caller(_authorization(scope)), scope["path"])
    except Refused as refused:
        headers = {"x-request-id": uuid.uuid4().hex}
        if refused.status == 401:
            headers["www-authenticate"] = "Bearer"
        return completion.error(refused, headers)
    return None


def caller_of(where: Request | Scope) -> Caller:
    """Who sent a request that was let in."""
    scope: Any = where.scope if isinstance(where, Request) else where
    caller: Caller = scope[CALLER]
    return caller


def _allowed(caller: Caller, path: str) -> Caller:
    if path in OPERATORS and not caller.operator:
        raise Refused(403, "operators_only", f"{path} is for operators' keys: watchkeeper keys add --role operator")
    return caller


def _authorization(scope: Scope) -> bytes | None:
    found: bytes | None = next((value for name, value in scope["headers"] if name == b"authorization"), None)
    return found
