"""The second form: ``config.yaml`` with user-data that cloud-init applied to an instance, and ``files/``.

There it ran once, in the instance that became the image: so all of it is part of the build here.
Source of the rules: cloud-init's module reference, and the original's build script.
"""

from __future__ import annotations

import base64
import binascii
import re
import shlex
import zlib
from collections.abc import Mapping
from typing import Any, Final

from iceshelves.appliances.folder import MAX_FILE_BYTES, Folder
from iceshelves.appliances.importing.draft import Draft, Source
from iceshelves.appliances.paths import wrong_with_path
from iceshelves.core.bounded import KeyPath, load_yaml_with_lines
from iceshelves.core.errors import InvalidInput

CONFIG: Final = "config.yaml"
_USER_DATA: Final = "cloud-init.user-data"
_FILES: Final = "files"
_DEFAULT_BASE: Final = {"distribution": "debian", "release": "bookworm"}
_BUILT_ANYWAY: Final = ("package_update", "package_upgrade", "package_reboot_if_required", "final_message")
_SECRETS: Final = ("password", "chpasswd", "ssh_authorized_keys", "ssh_keys", "ssh_import_id", "ssh_pwauth")
_RUNNING: Final = re.compile(
    r"\s*systemctl\s+(?:-\S+\s+)*(?:daemon-reload|(?:re)?start|stop|reload|try-restart)\b[^;&|]*(?:\|\|\s*true)?\s*"
)
_NETWORK: Final = re.compile(r"\b(?:curl|wget|git clone|apt(?:-get)? (?:-\S+ )*(?:update|install)|pip3?)\s")
_NAME: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


def read_config(source: Source, folder: Folder, draft: Draft) -> None:
    """Carry over what ``config.yaml`` says and what lies below ``files``."""
    _settle_base(source, draft)
    config = source.value.get("config")
    for key, value in (config if isinstance(config, Mapping) else {}).items():
        _config_key(source, draft, str(key), value)
    if folder.has(_FILES):
        _tree(source, folder, draft)
    script = source.value.get("post_files")
    if isinstance(script, str) and script.strip():
        _add_script(source, draft, ("post_files",), "After the files", script)
    for key in source.value:
        if key not in ("config", "post_files"):
            draft.lost(source, (str(key),), f"{str(key)[:80]} has no counterpart.")


def _settle_base(source: Source, draft: Draft) -> None:
    """The original builds on Debian 12 with cloud-init, whatever ``appliance.yaml`` calls its base."""
    draft.fields["cloud_init"] = True
    base = draft.fields.get("base")
    if base is None or base["distribution"] not in ("debian", "ubuntu"):
        if base is not None:
            message = f"The base {str(base['distribution'])[:40]} was never used; it is Debian bookworm."
            draft.lost(source, (), message)
        draft.fields["base"] = dict(_DEFAULT_BASE)


def _config_key(source: Source, draft: Draft, key: str, value: Any) -> None:
    place: KeyPath = ("config", key)
    if key == _USER_DATA:
        nested = _user_data(source, draft, value)
        if nested is not None:
            _UserData(nested, draft).read()
    elif key.startswith("cloud-init."):
        draft.lost(source, place, f"{key[:80]} would be in every image; set it on the instance.")
    elif isinstance(value, str | int | bool):
        text = str(value).lower() if isinstance(value, bool) else str(value)
        draft.fields.setdefault("profile", {}).setdefault("config", {})[key] = text
    else:
        draft.lost(source, place, f"{key[:80]} is not a text.")


def _user_data(source: Source, draft: Draft, value: Any) -> Source | None:
    place: KeyPath = ("config", _USER_DATA)
    if not isinstance(value, str) or not value.lstrip().startswith("#cloud-config"):
        draft.lost(source, place, "Only user-data that begins with #cloud-config is understood.")
        return None
    document = load_yaml_with_lines(value, source=f"{CONFIG}, user-data")
    if not isinstance(document.value, dict):
        draft.lost(source, place, "The user-data is empty.")
        return None
    return Source(CONFIG, document, value, source.line(place))


def _tree(source: Source, folder: Folder, draft: Draft) -> None:
    for name in folder.names(_FILES):
        try:
            content = folder.read(name)
            mode = 0o755 if folder.is_executable(name) else 0o644
        except InvalidInput as error:
            draft.refused(source, (), error.message, error.hint)
        else:
            draft.add_file(source, (), name.removeprefix(_FILES), content, mode)


def _add_script(source: Source, draft: Draft, place: KeyPath, name: str, script: str) -> None:
    """An action of ``script``, without what services and the start of an instance do by themselves."""
    kept: list[str] = []
    for line in draft.add_services(script).splitlines():
        if _RUNNING.fullmatch(line):
            draft.not_needed(source, place, f"Nothing runs during a build: {line.strip()[:100]}")
        elif line.strip() or kept:
            kept.append(line)
    text = "\n".join(kept).strip("\n")
    if not text.strip():
        return
    network = bool(_NETWORK.search(text))
    if network:
        message = "This fetches something: it got the network, and the build is not reproducible."
        draft.lost(source, place, message, "Use packages, or files of the recipe.")
    draft.add_action(name, text, network=network)


class _UserData:
    def __init__(self, source: Source, draft: Draft) -> None:
        self._source = source
        self._draft = draft
        self._users: list[str] = []

    def read(self) -> None:
        handlers = {
            "packages": self._packages,
            "users": self._accounts,
            "groups": self._groups,
            "write_files": self._files,
            "bootcmd": self._commands,
            "runcmd": self._commands,
        }
        data = self._source.value
        for key in handlers:  # accounts first: files may belong to them
            if key in data:
                handlers[key](key, data[key])
        for key in data:
            if key in _SECRETS:
                message = f"{key} would let the same people into every instance."
                self._draft.refused(self._source, (key,), message, "Leave it to whoever deploys.")
            elif key in _BUILT_ANYWAY:
                self._draft.not_needed(self._source, (key,), f"A build needs no {key}.")
            elif key not in handlers:
                self._draft.lost(self._source, (str(key),), f"{str(key)[:80]} has no counterpart.")

    def _list(self, key: str, value: Any) -> list[Any]:
        if isinstance(value, list):
            return value
        self._draft.lost(self._source, (key,), f"{key} is not a list.")
        return []

    def _packages(self, key: str, value: Any) -> None:
        for index, entry in enumerate(self._list(key, value)):
            name = entry[0] if isinstance(entry, list) and entry else entry
            if not isinstance(name, str):
                self._draft.lost(self._source, (key, index), "This names no package.")
                continue
            if isinstance(entry, list) and len(entry) > 1:
                message = f"The version of {name[:80]} is the lock's to say."
                self._draft.lost(self._source, (key, index), message)
            if name != "cloud-init":
                self._draft.add_packages([name])

    def _accounts(self, key: str, value: Any) -> None:
        for index, entry in enumerate(self._list(key, value)):
            place: KeyPath = (key, index)
            if entry == "default":
                continue
            raw = {"name": entry} if isinstance(entry, str) else entry
            if not isinstance(raw, Mapping) or not _NAME.fullmatch(str(raw.get("name"))):
                self._draft.lost(self._source, place, "This names no user.")
            else:
                self._account(raw, place)

    def _account(self, raw: Mapping[str, Any], place: KeyPath) -> None:
        name = str(raw["name"])
        command = ["useradd"]
        command += ["--system"] if raw.get("system") else []
        command += (
            ["--no-create-home"] if raw.get("no_create_home") or raw.get("system") else ["--create-home"]
        )
        for field, option in (("shell", "--shell"), ("home", "--home-dir"), ("homedir", "--home-dir")):
            if isinstance(raw.get(field), str):
                command += [option, raw[field]]
        known = {"name", "system", "no_create_home", "shell", "home", "homedir", "lock_passwd", "gecos"}
        for field in raw:
            if ("passw" in str(field) and field != "lock_passwd") or str(field).startswith("ssh"):
                message = f"{field} would let the same people into every instance."
                self._draft.refused(self._source, (*place, str(field)), message)
            elif field not in known:
                message = f"{str(field)[:80]} of a user has no counterpart."
                self._draft.lost(self._source, (*place, str(field)), message)
        self._users.append(name)
        self._draft.add_action(f"The user {name}", shlex.join([*command, "--user-group", name]))

    def _groups(self, key: str, value: Any) -> None:
        for index, entry in enumerate(self._list(key, value)):
            if isinstance(entry, str) and _NAME.fullmatch(entry):
                self._draft.add_action(f"The group {entry}", f"groupadd --force {entry}")
            else:
                self._draft.lost(self._source, (key, index), "Members of a group have no counterpart.")

    def _files(self, key: str, value: Any) -> None:
        for index, entry in enumerate(self._list(key, value)):
            place: KeyPath = (key, index)
            if not isinstance(entry, Mapping):
                self._draft.lost(self._source, place, "This is no file.")
            else:
                self._file(entry, place)

    def _file(self, entry: Mapping[str, Any], place: KeyPath) -> None:
        try:
            content = _decoded(entry.get("content", ""), str(entry.get("encoding", "text/plain")))
        except ValueError as error:
            self._draft.lost(self._source, place, f"The content cannot be decoded: {error}.")
            return
        if "source" in entry:
            self._draft.lost(self._source, (*place, "source"), "Content from elsewhere has no counterpart.")
        path, owner = entry.get("path"), str(entry.get("owner", ""))
        if entry.get("append"):
            self._append(path, content, place)
            return
        # Files are written before actions run: who is made by an action cannot own one yet.
        late = owner.partition(":")[0] in self._users
        mode = self._mode(place)
        self._draft.add_file(self._source, place, path, content, mode, "" if late else owner)
        if late and not wrong_with_path(str(path)):
            self._draft.add_action(f"The owner of {path}"[:200], shlex.join(["chown", owner, str(path)]))

    def _append(self, path: Any, content: bytes, place: KeyPath) -> None:
        reason = "is not a text" if not isinstance(path, str) else wrong_with_path(path)
        if reason:
            self._draft.refused(self._source, place, f"{str(path)[:120]!a} {reason}; it was left out.")
            return
        text = content.decode(errors="replace")
        run = f"printf %s {shlex.quote(text)} >>{shlex.quote(str(path))}"
        self._draft.add_action(f"Append to {path}"[:200], run)

    def _mode(self, place: KeyPath) -> int:
        text = self._source.as_written((*place, "permissions"))
        return int(text, 8) if text and re.fullmatch(r"[0-7]{3,5}", text) else 0o644

    def _commands(self, key: str, value: Any) -> None:
        lines = []
        for index, entry in enumerate(self._list(key, value)):
            if isinstance(entry, str):
                lines.append(entry)
            elif isinstance(entry, list) and all(isinstance(part, str | int) for part in entry):
                lines.append(shlex.join(map(str, entry)))
            else:
                message = "This is no command: cloud-init would have run none of the list."
                self._draft.lost(self._source, (key, index), message)
        _add_script(self._source, self._draft, (key,), key, "\n".join(lines))


def _decoded(content: Any, encoding: str) -> bytes:
    """``content`` of a file, decoded within bounds.  Raises ``ValueError``."""
    data = content if isinstance(content, bytes) else str(content).encode()
    kinds = {part.strip().lower() for part in encoding.split("+")}
    if kinds & {"b64", "base64"}:
        try:
            data = base64.b64decode(data, validate=False)
        except binascii.Error as error:
            raise ValueError(str(error)) from error
    if kinds & {"gz", "gzip"}:
        try:
            unpacker = zlib.decompressobj(wbits=31)
            data = unpacker.decompress(data, MAX_FILE_BYTES)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        if unpacker.unconsumed_tail:
            raise ValueError("it is too large")
    if kinds - {"b64", "base64", "gz", "gzip", "text/plain"}:
        raise ValueError(f"the encoding {encoding[:40]} is not known")
    return data
