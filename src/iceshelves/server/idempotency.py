"""The same request twice is done once: a key that the client chose brings back the first answer.

The answer is kept for a day, encrypted, since it may show a new token.  A refusal is not kept: nothing was
done, and the same request may succeed later.  A request that was cut off by the end of its server counts as
running for two minutes, then it may be made again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from iceshelves.core import clock
from iceshelves.core.errors import Conflict, InvalidInput
from iceshelves.server.call import Call
from iceshelves.store.models import IdempotencyKey

HEADER: Final = "idempotency-key"
REPLAYED: Final = "Idempotency-Replayed"
_KEPT: Final = timedelta(hours=24)
_ABANDONED: Final = timedelta(minutes=2)
_MAX_KEY: Final = 255


class RequestInProgress(Conflict):
    """The first request with this key has not been answered yet."""

    default_code = "request_in_progress"


async def once(call: Call, request: Request, handle: Callable[[Request], Awaitable[Response]]) -> Response:
    """Answer ``request``, or repeat the answer that it got before.

    Raises :class:`Conflict` ``idempotency_key_reused`` for another request under the same key, and
    ``request_in_progress``.
    """
    key = request.headers[HEADER]
    if not 1 <= len(key) <= _MAX_KEY or not key.isprintable():
        raise InvalidInput(
            "The idempotency key cannot be used.",
            code="invalid_idempotency_key",
            hint=f"Send 1 to {_MAX_KEY} printable characters, for example a UUID.",
        )
    fingerprint = _fingerprint(call, request, await request.body())
    kept = await run_in_threadpool(_claim, call, key, fingerprint)
    if kept is not None:
        return kept
    try:
        response = await handle(request)
    except BaseException:
        await run_in_threadpool(_forget, call, key)
        raise
    await run_in_threadpool(_keep if response.status_code < 500 else _forget, call, key, response)
    return response


def _fingerprint(call: Call, request: Request, body: bytes) -> str:
    """What tells one request from another; keyed with the token, so that a stored one says nothing."""
    url = request.url
    parts = (request.method, url.path, url.query, request.headers.get("content-type", ""))
    message = "\n".join(parts).encode() + b"\n" + body
    return hmac.new(hashlib.sha256(call.token.reveal().encode()).digest(), message, "sha256").hexdigest()


def _claim(call: Call, key: str, fingerprint: str) -> Response | None:
    """Mark the request as running, or return the answer that is kept."""
    with call.control.database.write() as session:
        _drop_expired(session, call)
        row = session.get(IdempotencyKey, _row(call, key), with_for_update=True)
        if row is None:
            session.add(
                IdempotencyKey(
                    tenant_id=call.tenant_id, actor=call.actor.name, key=key, request=fingerprint, status=None
                )
            )
            try:
                session.flush()
            except sa.exc.IntegrityError as error:  # another server was faster by an instant
                raise _in_progress() from error
            return None
        if not hmac.compare_digest(row.request, fingerprint):
            raise Conflict(
                "This idempotency key belongs to another request.",
                code="idempotency_key_reused",
                hint="Make a new key for each new request.",
            )
        if row.status is not None:
            return _restored(call, row)
        if row.created_on > clock.now() - _ABANDONED:
            raise _in_progress()
        row.created_on = clock.now()
        return None


def _in_progress() -> RequestInProgress:
    return RequestInProgress(
        "This request is still being answered.",
        hint="Ask again in a second.",
        details={"retry_after": 1},
    )


def _keep(call: Call, key: str, response: Response) -> None:
    headers = {
        name: value for name, value in response.headers.items() if name in ("content-type", "location")
    }
    sealed = call.control.cipher.encrypt(bytes(response.body), _place(call, key))
    with call.control.database.write() as session:
        session.execute(
            sa.update(IdempotencyKey)
            .where(*_is(call, key))
            .values(status=response.status_code, headers=headers, body=sealed)
        )


def _forget(call: Call, key: str, _response: Response | None = None) -> None:
    with call.control.database.write() as session:
        session.execute(sa.delete(IdempotencyKey).where(*_is(call, key)))


def _restored(call: Call, row: IdempotencyKey) -> Response:
    body = call.control.cipher.decrypt(row.body, _place(call, row.key))
    return Response(body, row.status or 200, {**row.headers, REPLAYED: "true"})


def _drop_expired(session: Session, call: Call) -> None:
    session.execute(
        sa.delete(IdempotencyKey).where(
            IdempotencyKey.tenant_id == call.tenant_id,
            IdempotencyKey.actor == call.actor.name,
            IdempotencyKey.created_on < clock.now() - _KEPT,
        )
    )


def _row(call: Call, key: str) -> tuple[int, str, str]:
    return call.tenant_id, call.actor.name, key


def _is(call: Call, key: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        IdempotencyKey.tenant_id == call.tenant_id,
        IdempotencyKey.actor == call.actor.name,
        IdempotencyKey.key == key,
    )


def _place(call: Call, key: str) -> str:
    return f"idempotency_keys.body:{call.tenant_id}:{call.actor.name}:{json.dumps(key)}"
