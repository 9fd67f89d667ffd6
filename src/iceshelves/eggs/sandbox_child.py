"""The program that renders templates: started by :mod:`iceshelves.eggs.sandbox`, never imported.

It bounds itself before it reads anything, knows nothing but the standard library and Jinja, and speaks JSON
over its standard streams: one request, one answer.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import sys
from pathlib import Path
from typing import Any

_MEMORY = 320 * 1024 * 1024
_CPU_SECONDS = 3


def main() -> None:
    """Answer one request; every failure but a kill by the kernel becomes an answer too."""
    _bound_this_process()
    request = json.loads(sys.stdin.buffer.read())
    sys.path.extend(request["path"])
    answer: dict[str, Any]
    try:
        answer = {"results": _work(request)}
    except _TemplateError as error:
        answer = {"error": error.answer}
    sys.stdout.buffer.write(json.dumps(answer).encode())


def _bound_this_process() -> None:
    for limit, value in (
        (resource.RLIMIT_AS, _MEMORY),
        (resource.RLIMIT_CPU, _CPU_SECONDS),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))


def _sibling(name: str) -> Any:
    """A module beside this file, without the package that would come with it."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _TemplateError(Exception):
    def __init__(self, name: str, kind: str, message: str, line: int) -> None:
        super().__init__(message)
        self.answer = {"name": name, "kind": kind, "message": message[:500], "line": line}


def _work(request: dict[str, Any]) -> dict[str, Any]:
    from jinja2 import StrictUndefined

    quoting = _sibling("quoting")
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # Not before: the first import may write its byte code, which later ones are glad of.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[],
    )
    environment.filters |= {
        "tojson": quoting.to_json,
        "yaml": quoting.to_json,
        "b64encode": quoting.to_base64,
    }
    task = _variables if request["task"] == "variables" else _render
    return {
        name: _guarded(task, environment, name, text, request) for name, text in request["templates"].items()
    }


def _guarded(task: Any, environment: Any, name: str, text: str, request: dict[str, Any]) -> Any:
    import jinja2
    from jinja2.exceptions import SecurityError

    try:
        return task(environment, text, request)
    except jinja2.TemplateSyntaxError as error:
        raise _TemplateError(name, "syntax", error.message or "syntax error", error.lineno) from error
    except jinja2.UndefinedError as error:
        raise _TemplateError(name, "undefined", str(error), _line(error)) from error
    except SecurityError as error:
        raise _TemplateError(name, "refused", str(error), _line(error)) from error
    except (MemoryError, RecursionError) as error:
        raise _TemplateError(name, "limits", "it needs too much memory or nesting", _line(error)) from error
    except Exception as error:
        raise _TemplateError(name, "failed", f"{type(error).__name__}: {error}", _line(error)) from error


def _render(environment: Any, text: str, request: dict[str, Any]) -> str:
    parts: list[str] = []
    size = 0
    for part in environment.from_string(text).generate(request["variables"]):
        size += len(part)
        if size > request["max_output"]:
            raise MemoryError
        parts.append(part)
    return "".join(parts)


def _variables(environment: Any, text: str, _request: dict[str, Any]) -> list[str]:
    from jinja2 import meta

    parsed = environment.parse(text)
    environment.compile(parsed)  # an unknown filter shows only here
    return sorted(meta.find_undeclared_variables(environment.parse(text)) - set(environment.globals))


def _line(error: BaseException) -> int:
    line = 1
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


main()
