"""Eggs and templates over the wire."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from iceshelves.server.schemas.common import (
    Body,
    FoundFinding,
    Moment,
    ObjectName,
    Paging,
    Prose,
    Shown,
    Words,
)


class EggQuery(Paging):
    """Which eggs to list.  ``versions=all`` lists every version, not only the latest of each egg."""

    category: Words | None = None
    egg_type: Words | None = None
    tag: Words | None = None
    search: Words | None = None
    versions: Annotated[str, Field(pattern="^(latest|all)$")] = "latest"


class EggItem(Shown):
    """An egg in a list."""

    id: int
    name: str
    version: str
    display_name: str
    description: str
    category: str
    egg_type: str
    base_image: str | None
    tags: list[str]
    author: str
    digest: str
    builtin: bool
    latest: bool
    is_active: bool
    created_by: str
    created_on: Moment
    updated_on: Moment


class EggParameter(Shown):
    """A typed value that whoever deploys the egg may set."""

    name: str
    type: str
    description: str
    default: Any
    required: bool
    secret: bool
    pattern: str | None
    minimum: float | None
    maximum: float | None
    min_length: int | None
    max_length: int | None
    choices: list[str]


class EggVersion(Shown):
    """One of the versions of an egg."""

    id: int
    version: str
    digest: str
    latest: bool
    is_active: bool
    created_on: Moment


class EggFiles(Shown):
    """The texts of the standard files; what is not in the egg is null."""

    cloud_init: str | None
    readme: str | None
    lxd_profile: str | None
    kvm_config: str | None


class EggDetail(EggItem):
    """An egg with all that it is made of."""

    cloud_init_path: str
    metadata_json: dict[str, Any]
    files: EggFiles
    file_names: list[str]
    parameters: list[EggParameter]
    versions: list[EggVersion]


class NewEggBody(Body):
    """An egg to be made from a template; ``variables`` set the defaults of its parameters."""

    name: ObjectName
    display_name: Words | None = None
    description: Prose | None = None
    category: Words | None = None
    egg_type: Words | None = None
    template_id: int | Words = "cloud-config"
    variables: dict[str, Any] = Field(default_factory=dict)


class CreatedEgg(Shown):
    """An egg that is in the library now."""

    egg_id: int
    name: str
    version: str
    digest: str
    message: str
    findings: list[FoundFinding] = Field(default_factory=list)


class EggSwitch(Body):
    """Whether an egg may be deployed."""

    is_active: bool


class ChangedEgg(Shown):
    """An egg that was changed or deleted."""

    egg_id: int
    message: str


class LintReport(Shown):
    """All findings about an egg, by file and line."""

    findings: list[FoundFinding]


class RenderBody(Body):
    """What to render an egg with."""

    parameters: dict[str, Any] = Field(default_factory=dict)
    config_overrides: dict[str, Any] = Field(default_factory=dict)
    instance_name: Annotated[str, Field(pattern=r"^[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$")] = "preview"


class RenderedProfile(Shown):
    """Configuration and devices that the egg brings along."""

    config: dict[str, str]
    devices: dict[str, dict[str, str]]


class RenderedEgg(Shown):
    """What an instance would get.  Secret parameters are replaced in it."""

    user_data: str
    base_image: str | None
    egg_type: str
    limits: dict[str, str]
    root_size: str | None
    instance_config: dict[str, str]
    profile: RenderedProfile | None
    checks: list[str]
    volumes: list[str]
    warnings: list[FoundFinding]


class TemplateItem(Shown):
    """Something that an egg can be made from."""

    id: int
    name: str
    display_name: str
    description: str
    category: str
    template_type: str
    required_variables: list[str]
