"""The first form: distrobuilder's ``image.yaml``, as far as it describes a Debian or Ubuntu system.

Source of the rules: distrobuilder's doc/reference/*.md.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any, Final

from iceshelves.appliances.folder import Folder
from iceshelves.appliances.importing.draft import Draft, Source
from iceshelves.appliances.importing.templates import UnknownTemplate, rendered
from iceshelves.appliances.paths import wrong_with_name
from iceshelves.core.bounded import KeyPath
from iceshelves.core.errors import InvalidInput

IMAGE: Final = "image.yaml"
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_FILTERS: Final = ("releases", "architectures", "variants", "types")
_TRIGGERS: Final = ("post-unpack", "post-update", "post-packages", "post-files")
_OURS: Final = ("hostname", "hosts", "cloud-init", "incus-agent", "lxd-agent", "fstab")
_NETWORK: Final = re.compile(r"\b(?:curl|wget|git clone|apt(?:-get)? (?:-\S+ )*(?:update|install)|pip3?)\s")
_KEPT: Final = frozenset({"image", "source", "targets", "files", "packages", "actions"})


def read_image(source: Source, folder: Folder, draft: Draft) -> None:
    """Carry over what ``image.yaml`` says.  Raises :class:`InvalidInput` for another kind of system."""
    reader = _Image(source, folder, draft)
    reader.base()
    reader.packages()
    reader.files()
    reader.actions()
    reader.others()


class _Image:
    def __init__(self, source: Source, folder: Folder, draft: Draft) -> None:
        self._source = source
        self._folder = folder
        self._draft = draft
        self._image = self._mapping(source.value, "image")
        self._names: list[str] | None = None

    def _mapping(self, holder: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        value = holder.get(key)
        return value if isinstance(value, Mapping) else {}

    def _entries(self, holder: Mapping[str, Any], key: str) -> list[tuple[int, Mapping[str, Any]]]:
        value = holder.get(key)
        entries = value if isinstance(value, list) else []
        return [(index, entry) for index, entry in enumerate(entries) if isinstance(entry, Mapping)]

    def base(self) -> None:
        fields, image = self._draft.fields, self._image
        known = fields.get("base") or {}
        distribution = str(image.get("distribution") or known.get("distribution")).lower()
        release = image.get("release") or known.get("release")
        if isinstance(release, int | float):
            release = self._source.as_written(("image", "release"))
        if distribution not in ("debian", "ubuntu"):
            raise InvalidInput(
                f"The original is built on {distribution[:40]}; recipes here are on Debian or Ubuntu.",
                code="unsupported_base",
                hint="Write it anew: iceshelves appliance new.",
            )
        fields["base"] = {"distribution": distribution, "release": release}
        if "architectures" not in fields and "architecture" in image:
            name = str(image["architecture"])
            fields["architectures"] = [_ARCHITECTURES.get(name, name)]
        for key in image:
            if key not in ("distribution", "release", "architecture", "description", "name", "variant"):
                self._draft.not_needed(self._source, ("image", str(key)), f"The build sets {key} itself.")

    def _values(self) -> dict[str, str]:
        """What templates may ask for."""
        base = self._draft.fields["base"]
        architectures = self._draft.fields.get("architectures") or ["amd64"]
        image = {key: str(value) for key, value in self._image.items() if isinstance(value, str)}
        return {
            "architecture": architectures[0],
            "architecture_mapped": architectures[0],
            "variant": "default",
            **image,
            "distribution": base["distribution"],
            "release": str(base["release"]),
        }

    def _applies(self, entry: Mapping[str, Any], place: KeyPath) -> bool:
        """Whether ``entry`` is meant for what the recipe builds: its filters must all let it through."""
        values = self._values()
        variants = {values["variant"]} | ({"cloud"} if self._draft.fields.get("cloud_init") else set())
        ours = {
            "releases": {values["release"]},
            "architectures": set(self._draft.fields.get("architectures") or ["amd64"]),
            "variants": variants,
            "types": {"container"},
        }
        for key in _FILTERS:
            wanted = entry.get(key)
            if not isinstance(wanted, list) or not wanted:
                continue
            names = {_ARCHITECTURES.get(str(name), str(name)) for name in wanted}
            if not names & ours[key]:
                self._draft.not_needed(
                    self._source, place, f"Meant for {key} {', '.join(sorted(names))[:120]} only."
                )
                return False
            if ours[key] - names and key == "architectures":
                self._draft.lost(
                    self._source, (*place, key), "Meant for some architectures; now it is for all."
                )
        return True

    def packages(self) -> None:
        packages = self._mapping(self._source.value, "packages")
        manager = packages.get("manager")
        if manager != "apt":
            raise InvalidInput(
                f"The original's package manager is {str(manager)[:40]}; recipes here use apt.",
                code="unsupported_base",
                hint="Write it anew: iceshelves appliance new.",
            )
        for index, entry in self._entries(packages, "sets"):
            place: KeyPath = ("packages", "sets", index)
            if self._applies(entry, place):
                self._package_set(entry, place)
        for index, _ in self._entries(packages, "repositories"):
            self._draft.lost(
                self._source,
                ("packages", "repositories", index),
                "Packages of a repository of its own cannot be had: recipes use the distribution's.",
            )
        for key in packages:
            if key not in ("manager", "sets", "repositories"):
                self._draft.not_needed(
                    self._source, ("packages", str(key)), f"Every build does what {key} asks for."
                )

    def _package_set(self, entry: Mapping[str, Any], place: KeyPath) -> None:
        given = entry.get("packages")
        names = [str(name) for name in given] if isinstance(given, list) else []
        if entry.get("action", "install") == "install":
            if "cloud-init" in names:
                self._draft.fields["cloud_init"] = True
            self._draft.add_packages(name for name in names if name != "cloud-init")
        else:
            quoted = " ".join(shlex.quote(name) for name in names)
            self._draft.add_action("Remove packages", f"apt-get --yes purge -- {quoted}")
        if entry.get("flags"):
            self._draft.lost(self._source, (*place, "flags"), "Flags of the package manager are not used.")

    def files(self) -> None:
        for index, entry in self._entries(self._source.value, "files"):
            place: KeyPath = ("files", index)
            if not self._applies(entry, place):
                continue
            generator = str(entry.get("generator"))
            known: dict[str, Callable[[Mapping[str, Any], KeyPath], None]] = {
                "dump": self._dump,
                "copy": self._copy,
                "remove": self._remove,
            }
            if generator in known:
                known[generator](entry, place)
            elif generator in _OURS:
                message = f"The build does what the generator {generator} does."
                self._draft.not_needed(self._source, place, message)
                if generator == "cloud-init":
                    self._draft.fields["cloud_init"] = True
            else:
                message = (
                    f"The generator {generator[:40]} has no counterpart; {entry.get('path')} is missing."
                )
                self._draft.lost(self._source, place, message, "first_boot or each_boot can write it.")

    def _dump(self, entry: Mapping[str, Any], place: KeyPath) -> None:
        content = entry.get("content")
        if not isinstance(content, str):
            self._draft.lost(self._source, place, "The file has no content.")
            return
        text = self._rendered(content, entry, place)
        # distrobuilder ends every dumped file with a line break (generators/dump.go).
        ended = text if text.endswith("\n") else f"{text}\n"
        self._draft.add_file(
            self._source,
            place,
            entry.get("path"),
            ended.encode(),
            self._mode(place),
            self._owner(entry, place),
        )

    def _copy(self, entry: Mapping[str, Any], place: KeyPath) -> None:
        wanted = str(entry.get("source"))
        name = posixpath.normpath(wanted) if ".." not in wanted.split("/") else wanted
        reason = wrong_with_name(name)
        if reason:
            self._draft.refused(self._source, (*place, "source"), f"{wanted[:120]!a} {reason}.")
            return
        path = str(entry.get("path"))
        found = [known for known in self._all_names() if known == name or known.startswith(f"{name}/")]
        if not found:
            self._draft.lost(self._source, (*place, "source"), f"There is no file {wanted[:120]!r}.")
        for known in found:
            self._copy_one(known, path + known.removeprefix(name), entry, place)

    def _copy_one(self, name: str, path: str, entry: Mapping[str, Any], place: KeyPath) -> None:
        try:
            content = self._folder.read(name)
        except InvalidInput as error:
            self._draft.refused(self._source, (*place, "source"), error.message, error.hint)
            return
        if entry.get("pongo"):
            content = self._rendered(content.decode(errors="surrogateescape"), entry, place).encode(
                errors="surrogateescape"
            )
        mode = self._mode(place) if "mode" in entry else 0o755 if self._folder.is_executable(name) else 0o644
        self._draft.add_file(self._source, place, path, content, mode, self._owner(entry, place))

    def _all_names(self) -> list[str]:
        if self._names is None:
            self._names = self._folder.names()
        return self._names

    def _remove(self, entry: Mapping[str, Any], place: KeyPath) -> None:
        path = str(entry.get("path"))
        reason = "is not absolute" if not path.startswith("/") else wrong_with_name(path[1:])
        if reason:
            self._draft.refused(self._source, place, f"{path[:120]!a} {reason}; it was not removed.")
        else:
            self._draft.add_action(f"Remove {path}"[:200], f"rm -rf -- {shlex.quote(path)}")

    def _rendered(self, text: str, entry: Mapping[str, Any], place: KeyPath) -> str:
        if not entry.get("pongo"):
            return text
        try:
            return rendered(text, self._values())
        except UnknownTemplate as error:
            self._draft.lost(self._source, place, f"The template is not understood, and stays: {error}.")
            return text

    def _mode(self, place: KeyPath) -> int:
        text = self._source.as_written((*place, "mode"))
        return int(text, 8) if text and re.fullmatch(r"[0-7]{3,5}", text) else 0o644

    def _owner(self, entry: Mapping[str, Any], place: KeyPath) -> str:
        owner = [str(entry.get(key, 0)) for key in ("uid", "gid")]
        if owner != ["0", "0"]:
            message = f"The owner is given by number, {':'.join(owner)}; names are steadier."
            self._draft.lost(self._source, place, message)
        return ":".join(owner)

    def actions(self) -> None:
        entries = [
            (index, entry)
            for index, entry in self._entries(self._source.value, "actions")
            if self._applies(entry, ("actions", index))
        ]
        known = [entry for entry in entries if entry[1].get("trigger") in _TRIGGERS]
        for index, entry in sorted(known, key=lambda found: _TRIGGERS.index(found[1]["trigger"])):
            self._action(index, entry)
        for index, entry in entries:
            if entry.get("trigger") not in _TRIGGERS:
                message = f"The trigger {str(entry.get('trigger'))[:40]} is not known."
                self._draft.lost(self._source, ("actions", index), message)

    def _action(self, index: int, entry: Mapping[str, Any]) -> None:
        place: KeyPath = ("actions", index)
        script = entry.get("action")
        if not isinstance(script, str) or not script.strip():
            self._draft.lost(self._source, place, "The action is empty.")
            return
        script = self._rendered(script, entry, place)
        self._draft.add_services(script)  # the script keeps its lines: saying it twice does no harm
        trigger = str(entry["trigger"])
        if trigger in ("post-unpack", "post-update"):
            message = f"{trigger}: now it runs after packages and files."
            self._draft.lost(self._source, place, message)
        network = bool(_NETWORK.search(script))
        if network:
            message = "The script fetches something: it got the network, and the build is not reproducible."
            self._draft.lost(self._source, place, message, "Use packages, or files of the recipe.")
        self._draft.add_action(trigger, script, network=network)

    def others(self) -> None:
        downloader = self._mapping(self._source.value, "source").get("downloader")
        if downloader not in (None, "debootstrap", "rootfs-http", "ubuntu-http"):
            message = f"The downloader {str(downloader)[:40]}: the base now comes from the distribution."
            self._draft.lost(self._source, ("source",), message)
        else:
            message = "Where the base comes from is a setting of the builder."
            self._draft.not_needed(self._source, ("source",), message)
        targets = self._mapping(self._source.value, "targets")
        if targets:
            self._draft.lost(self._source, ("targets",), "Settings for plain LXC and for VMs have no place.")
        for key in self._source.value:
            if key not in _KEPT:
                self._draft.lost(self._source, (str(key),), f"{str(key)[:80]} has no counterpart.")
