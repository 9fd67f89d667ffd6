"""From rows to the objects that go out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from iceshelves.core.secret import redact
from iceshelves.eggs import Egg, Parameters, Rendered
from iceshelves.server.schemas.common import Failure, FoundFinding, Named
from iceshelves.server.schemas.deployments import (
    DeploymentDetail,
    DeploymentItem,
    EggReference,
    InstanceInfo,
    RevisionItem,
)
from iceshelves.server.schemas.eggs import (
    EggDetail,
    EggFiles,
    EggItem,
    EggParameter,
    EggVersion,
    RenderedEgg,
    RenderedProfile,
)
from iceshelves.server.schemas.operations import LogItem, OperationItem, StepItem
from iceshelves.store.queries import operations
from iceshelves.store.queries.pages import Row

_LOGS: Final = TypeAdapter(list[LogItem])


def egg(row: Row, opened: Egg, versions: Iterable[Row]) -> EggDetail:
    """One egg, with what its archive holds."""
    return EggDetail(
        **_members(EggItem, row),
        cloud_init_path="cloud-init.yaml",
        metadata_json=row.metadata_json,
        files=EggFiles(
            cloud_init=_text(opened.user_data),
            readme=_text(opened.readme),
            lxd_profile=_text(opened.lxd_profile),
            kvm_config=_text(opened.kvm_config),
        ),
        file_names=list(opened.files),
        parameters=[EggParameter.model_validate(parameter) for parameter in opened.metadata.parameters],
        versions=[EggVersion.model_validate(version) for version in versions],
    )


def rendered(found: Rendered, parameters: Parameters) -> RenderedEgg:
    """What an egg renders to, with secrets replaced."""
    secrets = parameters.secrets
    profile = found.profile
    return RenderedEgg(
        user_data=redact(found.user_data, secrets),
        base_image=found.base_image,
        egg_type=found.egg_type,
        limits=dict(found.limits),
        root_size=found.root_size,
        instance_config=_redacted(found.instance_config, secrets),
        profile=RenderedProfile(
            config=_redacted(profile.config, secrets),
            devices={name: _redacted(device, secrets) for name, device in profile.devices.items()},
        )
        if profile
        else None,
        checks=[check.name for check in found.checks],
        volumes=[volume.name for volume in found.volumes],
        warnings=findings(found.warnings),
    )


def findings(found: Iterable[object]) -> list[FoundFinding]:
    """What lint found."""
    return [FoundFinding.model_validate(finding) for finding in found]


def operation(row: Row, steps: Iterable[Row]) -> OperationItem:
    """One operation with its steps."""
    own = ("cluster", "error", "steps")
    return OperationItem(
        **{name: getattr(row, name) for name in OperationItem.model_fields if name not in own},
        cluster=None if row.cluster_id is None else Named(id=row.cluster_id, name=row.cluster_name),
        error=_failure(row.error),
        steps=[StepItem.model_validate(step) for step in steps],
    )


def all_operations(session: Session, rows: Sequence[Row]) -> list[OperationItem]:
    """Operations with their steps, read at once."""
    steps = operations.steps(session, [row.id for row in rows])
    return [operation(row, steps[row.id]) for row in rows]


def logs(rows: Sequence[Row]) -> list[LogItem]:
    """Log lines."""
    return _LOGS.validate_python(rows, from_attributes=True)


def deployment(row: Row) -> DeploymentItem:
    """One deployment in a list."""
    return DeploymentItem(**_deployment(row))


def deployment_detail(row: Row, last: OperationItem | None, lines: Sequence[Row]) -> DeploymentDetail:
    """One deployment with its instance, its open or last operation, and the end of its log."""
    return DeploymentDetail(
        **_deployment(row),
        instance_info=InstanceInfo.model_validate({"name": row.instance_name, **row.instance_info}),
        error=_failure(row.error),
        operation=last,
        logs=logs(lines),
    )


def revision(row: Row) -> RevisionItem:
    """One revision of a deployment."""
    own = ("egg",)
    return RevisionItem(
        **{name: getattr(row, name) for name in RevisionItem.model_fields if name not in own},
        egg=_egg_reference(row),
    )


def _deployment(row: Row) -> dict[str, Any]:
    own = ("egg", "cluster", "ipv4")
    return {
        **{name: getattr(row, name) for name in DeploymentItem.model_fields if name not in own},
        "egg": _egg_reference(row),
        "cluster": Named(id=row.cluster_id, name=row.cluster_name),
        "ipv4": row.instance_info.get("ipv4", []),
    }


def _egg_reference(row: Row) -> EggReference:
    return EggReference(id=row.egg_id, name=row.egg_name, version=row.egg_version)


def _failure(error: dict[str, Any] | None) -> Failure | None:
    return Failure.model_validate(error) if error else None


def _members(model: type[EggItem], row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in model.model_fields}


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode(errors="replace")


def _redacted(values: Any, secrets: list[str]) -> dict[str, str]:
    return {key: redact(str(value), secrets) for key, value in values.items()}
