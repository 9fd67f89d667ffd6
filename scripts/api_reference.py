#!/usr/bin/env python3
"""Write docs/reference/api.md from the API's own description, so that it cannot say anything else.

Usage: scripts/api_reference.py [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI

from iceshelves.server.api.meta import EXTENSIONS
from iceshelves.server.app import all_routes
from iceshelves.server.description import Description

PAGE: Final = Path(__file__).parent.parent / "docs" / "reference" / "api.md"
TITLES: Final = {
    "server": "Server",
    "eggs": "Eggs and templates",
    "clusters": "Clusters",
    "deployments": "Deployments",
    "operations": "Operations",
    "events": "Events",
    "access": "Users and audit",
}
INTRODUCTION: Final = """\
# REST API

<!-- Made by scripts/api_reference.py from the API's own description; change that, then run it. -->

Everything lies below `http://HOST:PORT/iceshelves`. The full description, for programs, is at
`/iceshelves/api/openapi.json`. This page is for people.

## Conventions

**Identity.** `Authorization: Bearer isv_…` on every request that is not marked public. Each route names the
permission that it needs; administrators have all, operators read, deploy and exec, viewers read. What
belongs to another tenant answers as what does not exist.

**Success.** `{"success": true, …}`. An object lies flat in the answer and again under `data`; a list lies
under its own name and again under `data`, with `page`, `per_page`, `total` and `total_pages` both flat and
under `pagination`. Lists take `page` (from 1) and `per_page` (20; at most 100, log lines 1000). Unknown
query parameters and unknown fields in a body are refused: they would be silently without effect.

**Long work** answers 202 with an `operation_id` and a `Location`; the operation can be read, watched and
cancelled there.

**Names as ids.** An egg is addressed by its number, its name (the latest version) or `name@version`, a
cluster by its number or name.

**Times** are ISO 8601 in UTC with milliseconds and `Z`.

**Requests** carry `X-Request-Id` in the answer; a plain one that the caller sent is kept. A body has at
most 20 MiB, JSON at most 1 MiB, 64 levels and 20,000 values, and each key once.

## Errors

`application/problem+json` (RFC 9457) with `type`, `title`, `status` and `detail`, and beside them `success:
false`, `error` (the same as `detail`), `code` (the status), `error_code` (stable, see [errors](errors.md)),
`hint`, `details` and `request_id`. A body that does not fit has `details.fields`, a list of `field` and
`message`. 503, and 409 `request_in_progress`, say in `Retry-After` when to come back.

## Doing something once

Send `Idempotency-Key` (1 to 255 printable characters, best a UUID) with a POST, PATCH or DELETE. The same
request under the same key within a day gets the first answer again, with `Idempotency-Replayed: true`.
Another request under the key is refused (409 `idempotency_key_reused`), and so is a repetition while the
first is still being answered (409 `request_in_progress`). A refusal is not kept: nothing was done.

## Watching

Two addresses answer with server-sent events. `operation` carries the whole operation on every change, `log`
one line; both are sent in order. Each event's id is a place, `VERSION.LOGID`; send the last one back as
`Last-Event-ID`, or as `?last_event_id=`, and the stream goes on from there: all lines after it, and the
present state. A comment comes every 15 s. When an operation has ended the server sends `event: end` and
closes; when the server stops it closes without, and the reader comes back.

## Running a program in an instance

`GET /iceshelves/api/deployments/{deployment}/exec` is a websocket (permission `instances:exec`). The token
comes in `Authorization`, or, where a program cannot set headers, as the subprotocol `bearer.TOKEN` beside
`iceshelves.exec`.

| who | message | meaning |
|---|---|---|
| client, first | text, see below | the program |
| client | binary | standard input; an empty message ends it |
| client | text `{"resize": [columns, rows]}` or `{"signal": number}` | to the terminal, to the program |
| server | binary, first byte 1 or 2 | standard output, standard error |
| server, last | text `{"exit": status}` or `{"error": {"code", "message", …}}` | the end |

The first message is `{"command": […], "environment": {}, "user": 0, "group": 0, "cwd": null, "terminal":
[80, 24]}`; all but `command` may be left out, and without `terminal` the program gets plain pipes.

## Figures

`GET /iceshelves/metrics` answers in Prometheus' text format:
`iceshelves_http_requests_total{method,endpoint}`, `iceshelves_http_request_duration_seconds`,
`iceshelves_deployments_total{status,type}`, `iceshelves_deployment_duration_seconds`,
`iceshelves_active_deployments`, `iceshelves_cluster_count` and `iceshelves_egg_count`. Those of deployments
are counted from the database, so a restart loses none, and are those of the caller's tenant; with several
servers take the maximum over them, not the sum.

"""


def main() -> int:
    """Write the page, or with ``--check`` say whether it is current."""
    page = render()
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.read_text() == page else 1
    PAGE.write_text(page)
    return 0


def render() -> str:
    """The page."""
    app = FastAPI()
    app.router.routes[:] = all_routes()
    document = Description(app).document
    lines = [
        INTRODUCTION,
        "## Extensions\n\n",
        "Beyond the documented shapes, as named in `GET /iceshelves/api`: ",
    ]
    lines.append(", ".join(f"`{name}`" for name in EXTENSIONS) + ".\n")
    for tag, title in TITLES.items():
        lines.append(f"\n## {title}\n\n| request | what it does | needs | answers |\n|---|---|---|---|\n")
        lines.extend(_rows(document["paths"], tag))
        lines.extend(_bodies(document, tag))
    return "".join(lines)


def _operations(paths: Mapping[str, Any], tag: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in paths.items():
        for method, operation in operations.items():
            if tag in operation["tags"]:
                yield f"{method.upper()} {path}", operation


def _rows(paths: Mapping[str, Any], tag: str) -> Iterator[str]:
    for request, operation in _operations(paths, tag):
        needs = operation.get("x-permission", "public")
        query = [p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"]
        shown = f"`{request}`" + (f"<br>query: {', '.join(query)}" if query else "")
        statuses = " ".join(
            status for status in sorted(operation["responses"]) if status not in ("500", "503")
        )
        yield f"| {shown} | {operation['summary']} | {needs} | {statuses} |\n"


def _bodies(document: Mapping[str, Any], tag: str) -> Iterator[str]:
    for request, operation in _operations(document["paths"], tag):
        content = operation.get("requestBody", {}).get("content", {})
        schema = content.get("application/json", {}).get("schema", {})
        name = next((part.rsplit("/", 1)[1] for part in _references(schema)), None)
        if name is None:
            continue
        model = document["components"]["schemas"][name]
        words = " ".join(model.get("description", "").split()).replace("``", "`")
        yield f"\nBody of `{request}`: {words}\n\n"
        yield "| field | type | default |\n|---|---|---|\n"
        for field, described in model["properties"].items():
            default = "required" if field in model.get("required", ()) else repr(described.get("default"))
            yield f"| `{field}` | {_type(described)} | {'' if default == 'None' else default} |\n"


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def _type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        kinds = [_type(option) for option in schema["anyOf"] if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "$ref" in schema:
        return str(schema["$ref"].rsplit("/", 1)[1])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


if __name__ == "__main__":
    sys.exit(main())
