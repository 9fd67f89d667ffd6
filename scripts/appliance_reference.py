#!/usr/bin/env python3
"""Write docs/reference/appliance-yaml.md from the schema that recipes are checked against.

Usage: scripts/appliance_reference.py [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from iceshelves.appliances.schema import schema

PAGE: Final = Path(__file__).parent.parent / "docs" / "reference" / "appliance-yaml.md"
WORDS: Final = {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "mapping"}

INTRODUCTION: Final = """\
# appliance.yaml

<!-- Made by scripts/appliance_reference.py from the schema; change that, then run it. -->

A recipe is a folder that says how the image of an appliance is built:

```
web/
├── appliance.yaml      required   the recipe
├── README.md           optional   how the appliance is reached, and where its credentials are
├── appliance.lock      optional   the exact packages of a build, so that it can be repeated
└── files/ …            optional   files that the recipe names as a source
```

Nothing but these fields is read: an unknown one is an error. Editors take the schema from
`src/iceshelves/appliances/schemas/appliance.schema.json`. YAML here is YAML 1.1, in which `1.10`, `0644` and
`yes` are no texts: write such values in quotes. [How to write one](../how-to/write-an-appliance.md).

## Fields
"""
CONCLUSION: Final = """\
## What happens when

| when | what |
|---|---|
| build | packages · files · the programs below · actions in their order · services enabled and disabled |
| first boot | the environment is made · `first_boot` · `each_boot` · services |
| each boot | the environment is made · `each_boot` · services |

A script that begins with `#!` is run by what it names, any other by `sh -eu`. One that fails keeps the services
from starting; `journalctl -u appliance` says why. Scripts at boot run with the umask 077; the network may not be up.

## What every image has beside that

| path | what |
|---|---|
| `/usr/share/appliance/appliance.json` | what the appliance is: version, ports, volumes, variables, health check |
| `/usr/lib/appliance/health` | the health check; run as root, without arguments |
| `/usr/lib/appliance/boot` | run by `appliance.service` before the services: environment and scripts |
| `/etc/appliance/environment` | the environment, for systemd and for `sh`; for root only |

The last two only where the recipe has an environment or a script for the boot. The services under `enable` get the
environment by `EnvironmentFile=`.

A variable's value is the first of these: `environment.NAME` of the instance (containers), `user.NAME` of the
instance (read from the hypervisor inside the instance; virtual machines too), for a secret what an earlier boot
generated, the recipe's default. A secret without any is generated.

```
incus launch REMOTE:redis cache -c environment.REDIS_MAXMEMORY=256mb
```

## Bounds

| bound | value |
|---|---|
| `appliance.yaml` | 1 MiB, 64 levels, 50,000 values with aliases written out |
| files | 500, 16 MiB each, 64 MiB together |
| a path | 255 bytes, 16 folders; not below `/dev`, `/proc`, `/run`, `/sys`, `/tmp`, nor through `/bin`, `/lib`, `/sbin` |

Files of the folder are read without following links.

## Lint

`iceshelves appliance lint` names file, line and field. An *error* keeps the recipe from being built; of a secret it
says that everybody who has the image has the secret.

| code | level | meaning |
|---|---|---|
| `unknown_field` `missing_field` `wrong_type` `invalid_value` `duplicate_key` `duplicate_entry` `reserved_name` `unknown_release` | error | the fields |
| `unsafe_path` `unsafe_file_name` `unsafe_file` `file_missing` `file_too_large` `too_many_files` | error | paths and files |
| `yaml_syntax` `yaml_value` `not_utf8` `too_deep` `too_many_nodes` `alias_bomb` | error | it cannot be read |
| `private_key` `default_password` `secret_default` `password_hash` `password_in_url` `authorized_keys` `token` | error | a secret that all instances would share; `allow_secrets` lets one pass, all but `secret_default` |
| `key_made_at_build` | warning | an action makes a key: all instances would share it. `first_boot` is the place |
| `missing_health` `shallow_health` | warning | nobody would know whether the service does its work |
| `network_at_build` `no_network` | warning | an action with the network is not reproducible; one without cannot fetch |
| `risky_profile` `writable_by_all` `unused_file` | warning | |
| `fixed_version` `missing_readme` | hint | |
"""  # noqa: E501 - rows of tables


def main() -> int:
    """Write the page, or with ``--check`` say whether it is current."""
    text = page()
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.read_text() == text else 1
    PAGE.write_text(text)
    return 0


def page() -> str:
    """The page."""
    lines = ["| field | value | default | meaning |", "|---|---|---|---|"]
    lines += rows(schema(), "")
    return f"{INTRODUCTION}\n" + "\n".join(lines) + f"\n\n**bold**: needed.\n\n{CONCLUSION}"


def rows(node: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """A row for each field of ``node``, with the fields within below it."""
    for name, given in node.get("properties", {}).items():
        field = resolved(given)
        shown = f"`{prefix}{name}`"
        needed = f"**{shown}**" if name in node.get("required", ()) else shown
        default = f"`{plain(field['default'])}`" if "default" in field else ""
        cells = (needed, kind(field), default, field.get("description", ""))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        yield from rows(field, f"{prefix}{name}.")
        if "properties" in resolved(field.get("items", {})):
            yield from rows(resolved(field["items"]), f"{prefix}{name}[].")


def resolved(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """``node`` with what it refers to; its own words stand before those."""
    if "$ref" not in node:
        return node
    return {**schema()["$defs"][node["$ref"].rpartition("/")[2]], **node}


def kind(node: Mapping[str, Any]) -> str:
    """What a value may be, in a few words."""
    if "enum" in node:
        return " ".join(f"`{value}`" for value in node["enum"])
    if "anyOf" in node:
        return " or ".join(kind(resolved(each)) for each in node["anyOf"])
    if node.get("type") == "array":
        items = resolved(node["items"])
        return f"list of {kind(items)}" if "enum" in items else f"list of {kind(items)}s"
    if inner := node.get("additionalProperties"):
        return "mapping of mappings" if "$ref" in inner else "mapping of texts"
    return WORDS[node["type"]]


def plain(value: Any) -> str:
    """``value`` as YAML writes it."""
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    sys.exit(main())
