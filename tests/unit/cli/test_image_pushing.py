from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iceshelves.core.process import Completed
from testbed.made_images import Made


@pytest.fixture
def registry(run: Any, tmp_path: Path) -> str:
    files = Made().files(tmp_path / "made")
    folder = str(tmp_path / "registry")
    assert run("image", "publish", str(files.metadata), str(files.rootfs), "--tree", folder).code == 0
    return folder


class Rsync:
    """Notes what it was asked to copy, and what was in the folder that it was to copy from."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Completed) -> None:
        self.calls: list[list[str]] = []
        self.sources: list[set[str]] = []
        self._answers = list(answers)
        monkeypatch.setattr("iceshelves.core.process.run", self.run)

    def run(self, argv: list[str], *, cwd: Path, **_: object) -> Completed:
        self.calls.append(argv)
        self.sources.append({str(path.relative_to(cwd)) for path in cwd.rglob("*") if path.is_file()})
        return (
            self._answers.pop(0)
            if self._answers
            else Completed("rsync", 0, b"sent 7 images/x y\nsent 4096 a/\ndeleting images/z\n", b"")
        )


def test_images_come_first_and_indexes_last_and_nothing_is_deleted(
    run: Any, registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rsync = Rsync(monkeypatch)
    done = run("image", "push", "--tree", registry, "ole@www.test:/srv/images/")
    assert (done.code, done.out) == (0, "3 files sent, 21 B.  3 deleted.\n")
    images, catalogues, indexes = rsync.calls
    assert [call[-1] for call in rsync.calls] == ["ole@www.test:/srv/images/"] * 3
    assert "--exclude=*" in images
    assert "--exclude=index.json" in catalogues
    assert "--exclude=index.json" not in indexes
    names = {"stable/streams/v1/index.json", "stable/amd64/streams/v1/images.json", "streams/v1/index.json"}
    assert names < rsync.sources[1] == rsync.sources[2]
    assert not [call for call in rsync.calls if "--delete" in call]


def test_deleting_comes_after_everything_and_only_of_what_is_named_as_ours(
    run: Any, registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rsync = Rsync(monkeypatch)
    assert run("image", "push", "--tree", registry, str(tmp_path / "www"), "--delete").code == 0
    assert ["--delete" in call for call in rsync.calls] == [False, False, False, True]
    assert "--filter=P *" in rsync.calls[-1]
    assert rsync.calls[-1][-1] == f"{tmp_path}/www/"


def test_a_step_that_fails_ends_it_before_the_next(
    run: Any, registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rsync = Rsync(monkeypatch, Completed("rsync", 12, b"", b"ole@www.test: Permission denied\nrsync error"))
    done = run("image", "push", "--tree", registry, "ole@www.test:/srv")
    assert (done.code, len(rsync.calls)) == (1, 1)
    assert "Permission denied" in done.err
    assert "(push_failed)" in done.err


@pytest.mark.parametrize(
    "destination",
    [
        "rsync://www.test/images",
        "www.test::images",
        "-e:x",
        "ole@-oProxyCommand=x:/srv",
        "www.test:-x",
        "a b:/srv",
    ],
)
def test_a_destination_that_rsync_or_ssh_could_take_for_something_else_is_refused(
    run: Any, registry: str, monkeypatch: pytest.MonkeyPatch, destination: str
) -> None:
    rsync = Rsync(monkeypatch)
    done = run("image", "push", "--tree", registry, "--", destination)
    assert (done.code, "invalid_destination" in done.err, rsync.calls) == (1, True, [])


def test_a_folder_without_a_registry_is_told(run: Any, tmp_path: Path) -> None:
    for command in (("push", str(tmp_path / "www")), ("serve",)):
        done = run("image", *command, "--tree", str(tmp_path))
        assert (done.code, "tree_not_found" in done.err) == (1, True)
