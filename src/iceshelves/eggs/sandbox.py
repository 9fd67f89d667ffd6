"""Templates are rendered in a process of their own that cannot grow, run on, or write a file.

Jinja's sandbox keeps a template from the interpreter's insides, but not from memory or time; the kernel does.
The process starts isolated (``-I -S``: no user site, no environment, no installed start-up code).
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from iceshelves.core.bounded import MAX_BYTES, load_json
from iceshelves.core.errors import Failed, InvalidInput, TimedOut
from iceshelves.core.process import run
from iceshelves.core.secret import redact
from iceshelves.eggs.parameters import Parameters

_CHILD: Final = Path(__file__).with_name("sandbox_child.py")
_SECONDS: Final = 20.0
_MAX_ANSWER: Final = 8 * MAX_BYTES
_HINTS: Final = {
    "syntax": "See the template language at https://jinja.palletsprojects.com/templates/.",
    "undefined": "Declare it under 'parameters' in metadata.json, or correct its name.",
    "refused": "A template may only use values and filters.",
    "limits": "Templates are bounded in memory, time and size; make it smaller.",
    "failed": "Check the types of the values that it uses.",
}


def render_templates(
    templates: Mapping[str, str], parameters: Parameters, instance_name: str
) -> dict[str, str]:
    """Each text rendered with the parameters and ``instance.name``; keys name the texts in errors.

    Raises :class:`InvalidInput` (``template_syntax``, ``_undefined``, ``_refused``, ``_limits``, ``_failed``)
    with file and line; secrets are blanked in it.
    """
    variables = {**parameters.values, "instance": {"name": instance_name}}
    return _ask("render", templates, variables, parameters.secrets)


def find_variables(templates: Mapping[str, str]) -> dict[str, list[str]]:
    """The names that each text expects from outside.  Raises like :func:`render_templates`."""
    return _ask("variables", templates, {}, [])


def _ask(
    task: str, templates: Mapping[str, str], variables: Mapping[str, Any], secrets: list[str]
) -> dict[str, Any]:
    if not templates:
        return {}
    request = {
        "task": task,
        "path": _import_path(),
        "templates": dict(templates),
        "variables": dict(variables),
        "max_output": MAX_BYTES,
    }
    first = next(iter(templates))
    try:
        completed = run(
            [sys.executable, "-I", "-S", str(_CHILD)],
            stdin=json.dumps(request).encode(),
            timeout=_SECONDS,
            env={"LC_ALL": "C.UTF-8"},
            max_output=_MAX_ANSWER,
        )
    except TimedOut as error:
        raise _error(first, "limits", "it takes too long", 1) from error
    except Failed as error:
        if error.code != "output_too_large":
            raise
        raise _error(first, "limits", "its result is too large", 1) from error
    if completed.returncode != 0:
        # Killed by the kernel, or out of memory even for saying so.
        raise _error(first, "limits", "it needs too much memory or time", 1)
    answer = load_json(completed.stdout, source="the template's result", max_bytes=_MAX_ANSWER)
    if "error" in answer:
        error_answer = answer["error"]
        message = redact(error_answer["message"], secrets)
        raise _error(error_answer["name"], error_answer["kind"], message, error_answer["line"])
    results: dict[str, Any] = answer["results"]
    return results


def _import_path() -> list[str]:
    """Where Jinja lies, without importing it here."""
    found: list[str] = []
    for name in ("jinja2", "markupsafe"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise Failed(f"The Python package {name} is missing.", code="package_missing")
        found.append(str(Path(spec.origin).parent.parent))
    return list(dict.fromkeys(found))


def _error(name: str, kind: str, message: str, line: int) -> InvalidInput:
    return InvalidInput(
        f"{name}, line {line}: {message.rstrip('.')}.",
        code=f"template_{kind}",
        hint=_HINTS[kind],
        details={"file": name, "line": line},
    )
