"""Both older forms made into ours: nothing is lost without a word, nothing comes from outside the folder."""

from __future__ import annotations

import base64
import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from iceshelves.appliances import Recipe, import_original, lint, load
from iceshelves.appliances.importing.templates import UnknownTemplate, rendered
from iceshelves.appliances.model import Base, Health, Services, Variable
from iceshelves.core.errors import Conflict, InvalidInput, NotFound
from iceshelves.core.finding import Finding

IDENTITY = """\
name: web
version: 1.10
description: A web server
maintainer: Somebody
base: {distribution: debian, release: bookworm}
architectures: [amd64, arm64, mips]
types: [container, vm]
requirements: {min_cpu: 1, min_memory: 128MB, recommended_disk: 1GB}
ports: [{port: 80, protocol: tcp, description: HTTP}]
volumes: [{path: /srv/www, description: Pages}]
environment:
  - {name: WORKERS, default: 4, description: How many}
  - {name: ADMIN_PASSWORD, default: admin}
healthcheck: {command: curl -f http://localhost || exit 1, interval: 30s, timeout: 5s, retries: 3}
tags: [web]
see_also: [other]
invented: true
"""
IMAGE = """\
image:
  distribution: debian
  release: bookworm
  expiry: 30d
source: {downloader: debootstrap, url: "http://deb.debian.org/debian"}
packages:
  manager: apt
  update: true
  sets:
    - packages: [nginx, cloud-init]
      action: install
    - packages: [nano]
      action: remove
    - packages: [old]
      releases: [buster]
  repositories:
    - {name: extra, url: "deb http://example.org/ x main"}
files:
  - generator: dump
    path: /etc/motd
    content: |-
      {{ image.distribution|capfirst }} {% if image.release == "bookworm" %}twelve{% else %}other{% endif %}
    pongo: true
    mode: 0600
  - {generator: copy, path: /srv/www, source: files/www}
  - {generator: hostname, path: /etc/hostname}
  - {generator: remove, path: /etc/nginx/old}
  - {generator: template, path: /etc/x, name: x, content: a}
  - {generator: dump, path: /etc/alpine, content: a, variants: [alpine]}
actions:
  - trigger: post-files
    action: |-
      #!/bin/bash
      systemctl enable nginx
  - trigger: post-packages
    action: echo packages
targets: {lxc: {create_message: hello}}
mappings: {architecture_map: debian}
"""
CONFIG = """\
config:
  limits.cpu: 2
  security.nesting: yes
  cloud-init.network-config: "version: 2"
  cloud-init.user-data: |
    #cloud-config
    package_update: true
    packages: [nginx, [curl, '7.88']]
    write_files:
      - path: /etc/nginx/a.conf
        permissions: 0640
        owner: www-data:www-data
        content: |
          worker 1;
      - {path: /usr/local/bin/b, permissions: '0755', encoding: gz+b64, content: BLOB}
      - {path: /etc/issue, append: true, content: "it's\\n"}
      - {path: /opt/late, owner: app, content: x}
    users:
      - default
      - {name: app, system: true, shell: /usr/sbin/nologin, ssh_authorized_keys: [k], sudo: all}
    runcmd:
      - mkdir -p /srv/www
      - [echo, "a b"]
      - systemctl daemon-reload
      - systemctl enable --now nginx
      - systemctl disable apt-daily.timer || true
      - systemctl restart nginx
      - curl -o /tmp/x https://example.org/x
    timezone: UTC
    chpasswd: {list: "root:root"}
post_files: |
  systemctl enable a.timer
  nginx -t
""".replace("BLOB", base64.b64encode(gzip.compress(b"#!/bin/sh\n")).decode())

Import = Callable[..., tuple[Recipe, list[Finding]]]


@pytest.fixture
def original(tmp_path: Path) -> Import:
    """Imports a folder with an ``appliance.yaml`` and more ``files``; into ``made`` beside it."""

    def make(identity: str = IDENTITY, **files: str) -> tuple[Recipe, list[Finding]]:
        folder = tmp_path / "original"
        for name, content in {"appliance.yaml": identity, **files}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        found = import_original(folder, tmp_path / "made")
        return load(tmp_path / "made"), found

    return make


def said(findings: list[Finding]) -> set[tuple[str, str, str | None]]:
    return {(f.level, f.file, f.field) for f in findings}


def test_who_it_is_survives(original: Import) -> None:
    recipe, found = original(**{"config.yaml": "config: {}\n"})
    assert (recipe.name, recipe.version, recipe.base) == ("web", "1.10", Base("debian", "bookworm"))
    assert recipe.architectures == ("amd64", "arm64")
    assert recipe.types == ("container", "virtual-machine")
    assert (recipe.resources.min_cpu, recipe.resources.min_memory) == (1, 128_000_000)
    assert recipe.environment == (
        Variable("WORKERS", "4", "How many"),
        Variable("ADMIN_PASSWORD", secret=True),
    )
    assert recipe.health == Health("curl -f http://localhost || exit 1", 30, 5, 3)
    assert said(found) == {
        ("error", "appliance.yaml", "environment.1.default"),
        ("warning", "appliance.yaml", "version"),
        ("warning", "appliance.yaml", "architectures.2"),
        ("warning", "appliance.yaml", "invented"),
    }
    assert {f.line for f in found} == {2, 6, 13, 17}


def test_the_first_form(original: Import, tmp_path: Path) -> None:
    files = {"image.yaml": IMAGE, "files/www/index.html": "page", "files/www/css/a.css": "css"}
    recipe, found = original(**files)
    assert recipe.packages == ("nginx",)
    assert recipe.cloud_init
    assert {(f.path, f.content, f.mode) for f in recipe.files} == {
        ("/etc/motd", b"Debian twelve\n", 0o600),
        ("/srv/www/index.html", b"page", 0o644),
        ("/srv/www/css/a.css", b"css", 0o644),
    }
    assert [action.run for action in recipe.actions] == [
        "apt-get --yes purge -- nano\n",
        "rm -rf -- /etc/nginx/old\n",
        "echo packages\n",
        "#!/bin/bash\nsystemctl enable nginx\n",
    ]
    assert recipe.services == Services(("nginx.service",))
    about_image = {(level, field) for level, file, field in said(found) if file == "image.yaml"}
    assert about_image == {
        ("hint", "image.expiry"),
        ("hint", "source"),
        ("hint", "packages.update"),
        ("hint", "packages.sets.2"),
        ("warning", "packages.repositories.0"),
        ("hint", "files.2"),
        ("warning", "files.4"),
        ("hint", "files.5"),
        ("warning", "targets"),
        ("warning", "mappings"),
    }
    assert [f.code for f in lint(tmp_path / "made") if f.level == "error"] == []


def test_the_second_form(original: Import) -> None:
    recipe, found = original(**{"config.yaml": CONFIG, "files/etc/motd": "hello", "README.md": "# web"})
    assert recipe.packages == ("nginx", "curl")
    assert {(f.path, f.content, f.mode, f.owner, f.group) for f in recipe.files} == {
        ("/etc/nginx/a.conf", b"worker 1;\n", 0o640, "www-data", "www-data"),
        ("/usr/local/bin/b", b"#!/bin/sh\n", 0o755, "root", "root"),
        ("/opt/late", b"x", 0o644, "root", "root"),
        ("/etc/motd", b"hello", 0o644, "root", "root"),
    }
    assert [(action.run, action.network) for action in recipe.actions] == [
        ("useradd --system --no-create-home --shell /usr/sbin/nologin --user-group app\n", False),
        ("printf %s 'it'\"'\"'s\n' >>/etc/issue\n", False),
        ("chown app /opt/late\n", False),
        ("mkdir -p /srv/www\necho 'a b'\ncurl -o /tmp/x https://example.org/x\n", True),
        ("nginx -t\n", False),
    ]
    assert recipe.services == Services(("nginx.service", "a.timer"), ("apt-daily.timer",))
    assert recipe.profile.config == {"limits.cpu": "2", "security.nesting": "true"}
    about_config = {(level, field) for level, file, field in said(found) if file == "config.yaml"}
    assert about_config == {
        ("warning", "config.cloud-init.network-config"),
        ("hint", "package_update"),
        ("warning", "packages.1"),
        ("error", "users.1.ssh_authorized_keys"),
        ("warning", "users.1.sudo"),
        ("hint", "runcmd"),
        ("warning", "runcmd"),
        ("warning", "timezone"),
        ("error", "chpasswd"),
    }
    line = CONFIG[: CONFIG.index("timezone")].count("\n") + 1
    assert [f.line for f in found if f.field == "timezone"] == [line]


def test_a_base_that_the_second_form_only_mentions(original: Import) -> None:
    identity = IDENTITY.replace(
        "distribution: debian, release: bookworm", "distribution: alpine, release: 3.20"
    )
    recipe, found = original(identity, **{"config.yaml": "config: {}\n"})
    assert recipe.base == Base("debian", "bookworm")
    assert any("never used" in f.message for f in found)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("distribution: debian", "distribution: alpine", "unsupported_base"),
        ("manager: apt", "manager: apk", "unsupported_base"),
        ("image:", "image: [", "yaml_syntax"),
    ],
)
def test_what_cannot_be_imported_leaves_nothing(
    original: Import, tmp_path: Path, old: str, new: str, code: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        original(**{"image.yaml": IMAGE.replace(old, new, 1)})
    assert caught.value.code == code
    assert [path.name for path in tmp_path.iterdir()] == ["original"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: web", "name: ../web"),
        ("name: web", "name: [a]"),
        ("port: 80", "port: 80000"),
        ("[web]", "web"),
    ],
)
def test_values_that_no_recipe_may_have(original: Import, tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        original(IDENTITY.replace(old, new, 1), **{"config.yaml": "config: {}\n"})
    assert caught.value.code == "import_failed"
    assert [path.name for path in tmp_path.iterdir()] == ["original"]


PATHS = [
    "/etc/../../../tmp/x",
    "../../x",
    "/proc/1/x",
    "/usr/lib/appliance/boot",
    "x",
    "/a\\x00b",
    "5",
    "[a]",
]


@pytest.mark.parametrize("path", PATHS)
def test_hostile_paths_are_left_out(original: Import, tmp_path: Path, path: str) -> None:
    quoted = path if path.startswith("[") else f'"{path}"'
    image = IMAGE.replace("path: /etc/motd", f"path: {quoted}")
    recipe, found = original(**{"image.yaml": image, "files/www/a": ""})
    assert [file.path for file in recipe.files] == ["/srv/www/a"]
    assert ("error", "image.yaml", "files.0") in said(found)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("path", PATHS)
def test_hostile_paths_in_user_data_are_left_out(original: Import, tmp_path: Path, path: str) -> None:
    quoted = path if path.startswith("[") else f'"{path}"'
    entry = f"      - {{path: {quoted}, content: x}}\n      - {{path: {quoted}, content: x, append: true}}\n"
    config = f"config:\n  cloud-init.user-data: |\n    #cloud-config\n    write_files:\n{entry}"
    recipe, found = original(**{"config.yaml": config})
    assert (recipe.files, recipe.actions) == ((), ())
    assert {f.field for f in found if f.level == "error" and f.file == "config.yaml"} == {
        "write_files.0",
        "write_files.1",
    }


@pytest.mark.parametrize(
    "source", ["/etc/passwd", "../secret", "files/../../secret", "files/link", "files/out/a"]
)
def test_sources_outside_are_refused(original: Import, tmp_path: Path, source: str) -> None:
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "original" / "files").mkdir(parents=True)
    (tmp_path / "original" / "files" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "original" / "files" / "out").symlink_to(tmp_path)
    recipe, found = original(**{"image.yaml": IMAGE.replace("files/www", source)})
    assert [file.path for file in recipe.files] == ["/etc/motd"]
    assert ("image.yaml", "files.1.source") in {(f.file, f.field) for f in found}
    assert all(
        b"outside" not in path.read_bytes() for path in (tmp_path / "made").rglob("*") if path.is_file()
    )


def test_links_below_files_are_refused(original: Import, tmp_path: Path) -> None:
    tree = tmp_path / "original" / "files" / "etc"
    tree.mkdir(parents=True)
    (tree / "passwd").symlink_to("/etc/passwd")
    (tree / "all").symlink_to("/etc")
    os.mkfifo(tree / "pipe")
    recipe, found = original(**{"config.yaml": "config: {}\n"})
    assert recipe.files == ()
    assert len([f for f in found if f.level == "error" and f.file == "config.yaml"]) == 3


def test_bombs_are_refused(original: Import, tmp_path: Path) -> None:
    aliases = "a0: &a0 [x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]\n" for n in range(1, 12)
    )
    nested = "config:\n  cloud-init.user-data: |\n    #cloud-config\n" + "".join(
        f"    {line}\n" for line in aliases.splitlines()
    )
    for name, text in (("image.yaml", aliases), ("config.yaml", nested)):
        with pytest.raises(InvalidInput) as caught:
            original(**{name: text})
        assert caught.value.code == "alias_bomb"
    blob = base64.b64encode(gzip.compress(b"\0" * (1 << 26))).decode()
    file = f"      - {{path: /etc/a, encoding: gz+b64, content: {blob}}}\n"
    config = f"config:\n  cloud-init.user-data: |\n    #cloud-config\n    write_files:\n{file}"
    recipe, found = original(**{"config.yaml": config})
    assert recipe.files == ()
    assert any("too large" in f.message for f in found)


def test_nothing_is_replaced_and_nothing_made_of_nothing(original: Import, tmp_path: Path) -> None:
    original(**{"config.yaml": "config: {}\n"})
    with pytest.raises(Conflict):
        original(**{"config.yaml": "config: {}\n"})
    with pytest.raises(NotFound):
        import_original(tmp_path, tmp_path / "other")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain {$x} }}", "plain {$x} }}"),
        ("{{ image.a }}{{image.a|upper|lower}}", "xx"),
        ("{# note #}{% if image.a == 'x' %}1{% elif image.a == 'y' %}2{% else %}3{% endif %}", "1"),
        ("{% if image.a != \"x\" %}1{% elif image.a == 'x' %}2{% else %}3{% endif %}", "2"),
        ("{% if image.a == 'y' %}{% if image.a == 'x' %}1{% endif %}{% else %}3{% endif %}", "3"),
    ],
)
def test_templates(text: str, expected: str) -> None:
    assert rendered(text, {"a": "x"}) == expected


@pytest.mark.parametrize(
    "text",
    ["{{ image.b }}", "{{ 7*7 }}", "{{ image.a|nonsense }}", "{% for x in y %}{% endfor %}", "{% endif %}",
     "{% if image.a == 'x' %}", "{% else %}", "{% include '/etc/passwd' %}"],
)  # fmt: skip
def test_templates_that_are_not_understood(text: str) -> None:
    with pytest.raises(UnknownTemplate):
        rendered(text, {"a": "x"})
