"""Settings: read from the environment, refused by name, and shown without what is secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from iceshelves.core.errors import InvalidInput
from iceshelves.core.settings import Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [("LOG_LEVEL", "chatty"), ("MAX_CONCURRENT_DEPLOYMENTS", "²"), ("DEPLOYMENT_TIMEOUT", "soon")],
)
def test_a_bad_setting_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        Settings.from_environment({name: value})


def test_secrets_are_not_shown() -> None:
    settings = Settings(Path("data"), database_url="postgresql://u:hush@h/d", encryption_key="hush")
    assert "hush" not in repr(settings)
