"""What was given for an egg's parameters, completed with defaults and checked, all problems at once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from iceshelves.core.errors import InvalidInput
from iceshelves.core.secret import REDACTED
from iceshelves.eggs.model import Egg, Parameter
from iceshelves.eggs.values import BadValue, convert, empty


@dataclass(frozen=True)
class Parameters:
    """A value for every parameter of an egg."""

    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    secret_names: frozenset[str] = frozenset()

    @property
    def secrets(self) -> list[str]:
        """Every secret value as text, for redaction."""
        found: list[str] = []
        for name in sorted(self.secret_names):
            value = self.values[name]
            found += [str(entry) for entry in (value if isinstance(value, list) else [value])]
        return [text for text in found if text]

    def redacted(self) -> dict[str, Any]:
        """The values as they may be shown and stored in clear."""
        return {n: REDACTED if n in self.secret_names else value for n, value in self.values.items()}


def resolve_parameters(egg: Egg, given: Mapping[str, object]) -> Parameters:
    """Values for all of ``egg``'s parameters; texts in ``given`` are converted as from a command line.

    Raises :class:`InvalidInput` (``invalid_parameters``); its ``details["fields"]`` maps each bad name to
    what is wrong with it.  No given value appears in it, since any may be a secret.
    """
    known = {parameter.name: parameter for parameter in egg.metadata.parameters}
    problems = {name: _unknown(name, known) for name in given if name not in known}
    values: dict[str, Any] = {}
    for name, parameter in known.items():
        try:
            values[name] = _value(parameter, given)
        except BadValue as problem:
            problems[name] = str(problem)
    if problems:
        listed = "; ".join(f"{name} {problem}" for name, problem in problems.items())
        raise InvalidInput(
            f"{egg.name}: {listed}.",
            code="invalid_parameters",
            hint=f"See the parameters with 'iceshelves egg show {egg.name}'.",
            details={"fields": problems},
        )
    return Parameters(values, frozenset(name for name, parameter in known.items() if parameter.secret))


def _value(parameter: Parameter, given: Mapping[str, object]) -> Any:
    if parameter.name in given:
        return convert(parameter, given[parameter.name])
    if parameter.default is not None:
        return parameter.default
    if parameter.required:
        raise BadValue("is required")
    return empty(parameter)


def _unknown(name: str, known: Mapping[str, Parameter]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return "is not a parameter of this egg" + (f"; did you mean {close[0]}?" if close else "")
