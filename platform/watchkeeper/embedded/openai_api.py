"""The parts of OpenAI's API that both embedded servers speak: errors and the list of models.

Import-light (msgspec only), so that whoever answers in OpenAI's terms can use it. Knows nothing of HTTP servers or models.
"""

import re
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

T = TypeVar("T")

INVALID_REQUEST: Final = "invalid_request_error"


class ErrorDetail(msgspec.Struct, frozen=True):
    message: str
    type: str = INVALID_REQUEST
    param: str | None = None
    code: str | None = None


class ErrorBody(msgspec.Struct, frozen=True):
    error: ErrorDetail


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """`created`: seconds since the epoch; here, since when it is served."""

    id: str
    created: int
    object: str = "model"
    owned_by: str = "watchkeeper"


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    data: tuple[Model, ...]
    object: str = "list"


class ApiError(Exception):
    """A request that ends in an error. `status`: HTTP's; the rest is the body; `headers` go with it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID_REQUEST,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.detail = ErrorDetail(message, kind, param, code)
        self.headers = dict(headers or {})

    @property
    def body(self) -> bytes:
        return msgspec.json.encode(ErrorBody(self.detail))


def parse(body: bytes, shape: type[T]) -> T:
    """JSON → `shape`. Raises `ApiError` (400) that names the parameter at fault."""
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        # "Expected `float` <= 2.0 - at `$.temperature`": the path ends what msgspec says.
        what, _, where = str(error).partition(" - at `")
        found = re.match(r"\$\.(\w+)", where)
        missing = re.search(r"missing required field `(\w+)`", what)
        param = found[1] if found else missing[1] if missing else None
        place = f"{where.rstrip('`').removeprefix('$.')}: " if found else ""
        raise ApiError(400, f"{place}{what}", param=param, code="invalid_value") from None
    except msgspec.DecodeError as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_body") from None


def require_model(asked: str, served: str) -> None:
    """Raises `ApiError` (404) unless the model asked for is the one that is served."""
    if asked != served:
        raise ApiError(
            404, f"there is no model {asked!r} here; this server has {served!r}", param="model", code="model_not_found"
        )


def overloaded(retry_after_s: int) -> ApiError:
    """Too many requests wait already."""
    return ApiError(
        503,
        f"too many requests are waiting; try again in {retry_after_s} s",
        kind="server_error",
        code="overloaded",
        headers={"retry-after": str(retry_after_s)},
    )
