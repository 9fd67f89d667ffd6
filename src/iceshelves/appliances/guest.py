"""What each appliance's image gets beside the recipe's own files, so that it can look after itself.

``/usr/lib/appliance/boot`` runs before the services, at each boot, by ``appliance.service``: it makes the
environment file (generating the secrets that nobody set), gives volumes to their owners, then runs the
recipe's scripts.
``/usr/lib/appliance/health`` is the health check, to be run as root with no arguments, and
``/usr/share/appliance/appliance.json`` says what this is.  All of it is plain shell and perl-base: an image
needs no further package for it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from iceshelves.appliances.model import File, Recipe, Variable

HOME: Final = "/usr/lib/appliance"
ENVIRONMENT: Final = "/etc/appliance/environment"
ABOUT: Final = "/usr/share/appliance/appliance.json"
HEALTH: Final = f"{HOME}/health"
UNIT: Final = "appliance.service"
_WITH_ENVIRONMENT: Final = f"if [ -r {ENVIRONMENT} ]; then set -a; . {ENVIRONMENT}; set +a; fi\n"
_SOURCES: Final = Path(__file__).with_name("guest_programs")


@dataclass(frozen=True)
class Guest:
    """Files to put into the image, and the units to enable after that, beside those of the recipe."""

    files: tuple[File, ...]
    enable: tuple[str, ...]


def guest_files(recipe: Recipe, version: str) -> Guest:
    """What the image of ``recipe`` gets, its ``version`` being known; the same bytes for the same input."""
    files = [File(ABOUT, _about(recipe, version))]
    if recipe.health is not None:
        files.append(_program("health", as_program(_WITH_ENVIRONMENT + recipe.health.command)))
    owned = [volume for volume in recipe.volumes if volume.owner]
    if not (recipe.environment or recipe.first_boot or recipe.each_boot or owned):
        return Guest(tuple(files), ())
    files += [
        _program("environment", _source("environment")),
        _program("boot", _source("boot")),
        File(f"{HOME}/variables", "".join(map(_declaration, recipe.environment)).encode()),
        File(f"{HOME}/volumes", "".join(f"{v.owner} {v.mode:o} {v.path}\n" for v in owned).encode()),
        File(f"/etc/systemd/system/{UNIT}", _source(UNIT)),
    ]
    if recipe.first_boot is not None:
        files.append(_program("first-boot", as_program(recipe.first_boot)))
    if recipe.each_boot is not None:
        files.append(_program("each-boot", as_program(recipe.each_boot)))
    files += [
        File(f"/etc/systemd/system/{unit}.d/appliance.conf", _drop_in(unit))
        for unit in recipe.services.enable
        if unit.endswith((".service", ".socket"))  # a timer waits for nothing but its time
    ]
    return Guest(tuple(files), (UNIT,))


def _source(name: str) -> bytes:
    return (_SOURCES / name).read_bytes()


def _program(name: str, content: bytes) -> File:
    return File(f"{HOME}/{name}", content, 0o755)


def as_program(text: str) -> bytes:
    """A recipe's script as a program: of its own interpreter, or of a shell that stops at a failure."""
    ended = text if text.endswith("\n") else f"{text}\n"
    return (ended if text.startswith("#!") else f"#!/bin/sh\nset -eu\n{ended}").encode()


def _declaration(variable: Variable) -> str:
    """One line of ``variables``; the default in hexadecimal, so that no character in it means anything."""
    kind = "secret" if variable.secret else "plain"
    default = "" if variable.default is None else f" {variable.default.encode().hex()}"
    return f"{variable.name} {kind}{default}\n"


def _drop_in(unit: str) -> bytes:
    text = f"[Unit]\nRequires={UNIT}\nAfter={UNIT}\n"
    if unit.endswith(".service"):
        text += f"\n[Service]\nEnvironmentFile={ENVIRONMENT}\n"
    return text.encode()


def _about(recipe: Recipe, version: str) -> bytes:
    about: dict[str, Any] = {
        "name": recipe.name,
        "title": recipe.title,
        "version": version,
        "description": recipe.description,
        "homepage": recipe.homepage,
        "ports": [
            {"port": port.number, "protocol": port.protocol, "description": port.description}
            for port in recipe.ports
        ],
        "volumes": [
            {"name": volume.name, "path": volume.path, "description": volume.description}
            for volume in recipe.volumes
        ],
        "environment": [
            {"name": variable.name, "secret": variable.secret, "description": variable.description}
            for variable in recipe.environment
        ],
    }
    if recipe.health is not None:
        health = recipe.health
        about["health"] = {
            "command": [HEALTH],
            "interval": health.interval,
            "timeout": health.timeout,
            "retries": health.retries,
            "start_period": health.start_period,
        }
    return (json.dumps(about, indent=2, ensure_ascii=False) + "\n").encode()
