"""Read parameters from the query string of a request, and from a form in its body."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Coroutine
from typing import Any, Final, TypeVar

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Scope

from minion_rest_bridge import errors
from minion_rest_bridge.binding import decode_text, split_query
from minion_rest_bridge.errors import FieldError, RequestError
from minion_rest_bridge.request import header

T = TypeVar("T")

URL_ENCODED: Final = b"application/x-www-form-urlencoded"
MULTIPART: Final = b"multipart/form-data"
MAX_FIELDS: Final = 100


def read_parameters(scope: Scope, body: bytes, names: Collection[str]) -> dict[str, str]:
    """Return the parameters with these names.

    Raises:
        RequestError: The body is not a form, or a parameter is given twice.
    """
    pairs = split_query(scope["query_string"])
    if body:
        media_type = (header(scope, b"content-type") or b"").partition(b";")[0].strip().lower()
        if media_type == URL_ENCODED:
            pairs += split_query(body)
        elif media_type == MULTIPART:
            pairs += _read_multipart(scope, body)
        else:
            raise RequestError(errors.NOT_A_FORM, URL_ENCODED.decode(), MULTIPART.decode())
    parameters: dict[str, str] = {}
    wanted = {name.encode(): name for name in names}
    for key, value in pairs:
        name = wanted.get(key)
        if name is None:
            continue
        if name in parameters:
            raise FieldError(errors.TWICE, name)
        parameters[name] = decode_text(value, name)
    return parameters


def _read_multipart(scope: Scope, body: bytes) -> list[tuple[bytes, bytes]]:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        Headers(scope=scope), chunks(), max_files=0, max_fields=MAX_FIELDS, max_part_size=len(body)
    )
    try:
        form = _run(parser.parse())
    except MultiPartException as error:
        raise RequestError(errors.MALFORMED_FORM, error.message) from None
    except (KeyError, ValueError, LookupError) as error:
        # A missing boundary, or a charset that Python does not know.
        raise RequestError(errors.MALFORMED_FORM_HEADER, type(error).__name__) from None
    return [
        (name.encode(errors="surrogatepass"), value.encode(errors="surrogatepass"))
        for name, value in form.multi_items()
        if not isinstance(value, UploadFile)
    ]


def _run(parsing: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, since its whole input is in memory."""
    try:
        parsing.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise RuntimeError("the parser of forms waits")
