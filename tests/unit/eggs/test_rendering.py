"""Rendering: exact where nothing is asked, checked where something is, and bounded whatever is asked."""

from __future__ import annotations

import time
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from iceshelves.core.errors import InvalidInput
from iceshelves.eggs import Parameters, egg_from_files, merge_cloud_config, render, resolve_parameters

ORIGINAL = (
    "#cloud-config\r\n# grün 日本語 🎉\r\nruncmd:\r\n  - echo $(date) $1 {{ not_ours }} {% nor_this %}\r\n"
)
NONE = Parameters()


def rendered(egg: Any, overrides: dict[str, Any] | None = None, **given: object) -> Any:
    return render(egg, resolve_parameters(egg, given), overrides)


def refused(egg: Any, overrides: dict[str, Any] | None = None, **given: object) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        rendered(egg, overrides, **given)
    return caught.value


def test_without_rendering_the_user_data_is_exact(make_egg: Any) -> None:
    assert rendered(make_egg(ORIGINAL)).user_data.encode() == ORIGINAL.encode()
    assert rendered(make_egg("#!/bin/sh\necho {{ hi }}\n")).user_data == "#!/bin/sh\necho {{ hi }}\n"


def test_requirements_become_limits_unless_overridden(make_egg: Any) -> None:
    egg = make_egg(requirements={"min_memory_mb": 512, "min_cores": 2, "min_disk_gb": 10, "ami_filter": {}})
    result = rendered(egg)
    assert (result.limits, result.root_size) == ({"limits.memory": "512MiB", "limits.cpu": "2"}, "10GiB")
    result = rendered(egg, {"limits.cpu": 4, "security.nesting": True})
    assert result.limits == {"limits.memory": "512MiB"}
    assert result.instance_config == {"limits.cpu": "4", "security.nesting": "true"}
    assert result.user_data == "#cloud-config\n"


def test_overrides_merge_and_keep_the_header(make_egg: Any) -> None:
    text = "#cloud-config\n# comment\npackages: [a]\nntp: {enabled: true, servers: [x]}\nmode: 0644\n"
    override = {"packages": ["b"], "ntp": {"servers": ["y"]}, "timezone": "UTC"}
    result = rendered(make_egg(text), override).user_data
    assert result.startswith("#cloud-config\n")
    assert yaml.safe_load(result) == {
        "packages": ["b"], "ntp": {"enabled": True, "servers": ["y"]}, "mode": 420, "timezone": "UTC",
    }  # fmt: skip
    appended = yaml.safe_load(rendered(make_egg(text, merge="append"), override).user_data)
    assert (appended["packages"], appended["ntp"]["servers"]) == (["a", "b"], ["x", "y"])


@pytest.mark.parametrize("key", ["cloud-init.user-data", "user.user-data"])
def test_user_data_may_be_replaced_whole(make_egg: Any, key: str) -> None:
    result = rendered(make_egg(ORIGINAL), {key: "#cloud-config\npackages: [x]\n", "timezone": "UTC"})
    assert yaml.safe_load(result.user_data) == {"packages": ["x"], "timezone": "UTC"}
    assert result.instance_config == {}


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        ({"limit.cpu": 1}, "invalid_overrides"),
        ({"volatile.idmap.base": "0"}, "invalid_overrides"),
        ({"limits.cpu": [1]}, "invalid_overrides"),
        ({"packages": object()}, "invalid_overrides"),
        ({"runcmd": [{"echo a": "b"}]}, "command_is_mapping"),
        ({"cloud-init.user-data": "packages: [x]"}, "missing_header"),
        ({"cloud-init.user-data": "#cloud-config\na: [\n"}, "yaml_syntax"),
    ],
)
def test_bad_overrides(make_egg: Any, overrides: dict[str, Any], code: str) -> None:
    assert refused(make_egg(), overrides).code == code


def test_deep_overrides_are_refused_without_recursion(make_egg: Any) -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    assert refused(make_egg(), {"packages": deep}).code == "invalid_overrides"
    while isinstance(deep, list):  # Python 3.11 frees such a chain recursively otherwise
        deep = deep[0]


def test_scripts_cannot_be_merged_into(make_egg: Any) -> None:
    assert refused(make_egg("#!/bin/sh\n"), {"packages": ["x"]}).code == "not_cloud_config"


def test_headers_of_templates_for_the_guest_stay() -> None:
    merged = merge_cloud_config(
        "## template: jinja\n#cloud-config\nfqdn: '{{ v1.region }}'\n", {"packages": ["x"]}
    )
    assert merged == "## template: jinja\n#cloud-config\nfqdn: '{{ v1.region }}'\npackages:\n- x\n"


def test_a_mapping_among_commands_stops_the_deployment_with_its_line(make_egg: Any) -> None:
    error = refused(make_egg('#cloud-config\nruncmd:\n  - ls\n  - echo "status: ok"\n'))
    assert (error.code, error.details["line"]) == ("command_is_mapping", 4)
    assert "--repair" in str(error.hint)


def test_jinja_renders_every_part_that_asks(make_egg: Any) -> None:
    egg = make_egg(
        "#cloud-config\nfinal_message: {{ text | yaml }}\nfqdn: {{ instance.name }}.lan\n",
        {"lxd-profile.yaml": b"config: {limits.processes: '{{ port }}'}\ndevices: {}\n"},
        rendering={"engine": "jinja", "files": ["cloud-init.yaml", "lxd-profile.yaml"]},
        parameters={"text": {}, "port": {"type": "integer", "default": 80}},
        checks=[
            {"name": "up", "http": {"port": "{{ port }}", "contains": "{{ text | e }}"}, "timeout": "2m"}
        ],
        volumes=[{"name": "data", "path": "/srv", "size": "{{ port }}MiB"}],
    )
    result = render(egg, resolve_parameters(egg, {"text": "a<b"}), instance_name="web-1")
    value = yaml.safe_load(result.user_data)
    assert (value["final_message"], value["fqdn"]) == ("a<b", "web-1.lan")
    assert result.profile.config == {"limits.processes": "80"}
    (check,) = result.checks
    assert (check.url_at("10.0.0.2"), check.contains, check.timeout) == (
        "http://10.0.0.2:80/",
        "a&lt;b",
        120.0,
    )
    assert check.url_at("fd00::1") == "http://[fd00::1]:80/"
    assert result.volumes[0].size == "80MiB"


def test_files_that_are_not_named_are_not_rendered(make_egg: Any) -> None:
    profile = b"config: {user.note: '{{ literal }}'}\n"
    egg = make_egg("#cloud-config\n", {"lxd-profile.yaml": profile}, rendering="jinja")
    assert rendered(egg).profile.config == {"user.note": "{{ literal }}"}


JINJA = "#cloud-config\npackages: []\n"


@pytest.mark.parametrize(
    ("template", "code", "line"),
    [
        (JINJA + "a: {{ missing }}", "template_undefined", 3),
        (JINJA + "a: {{ x.y.z }}", "template_undefined", 3),
        (JINJA + "{% if %}", "template_syntax", 3),
        (JINJA + "a: {{ 1 | nonsense }}", "template_syntax", 3),
        (JINJA + "a: {{ x.__class__.__mro__ }}", "template_refused", 3),
        (JINJA + "a: {{ ''.__class__.__base__.__subclasses__() }}", "template_refused", 3),
        (JINJA + "{% include '/etc/passwd' %}", "template_failed", 3),
        (JINJA + "a: {{ 1 // 0 }}", "template_failed", 3),
        (JINJA + "a: {{ range(10**9) }}", "template_failed", 3),
        (JINJA + "a: {{ 'x' * 10**10 }}", "template_limits", 3),
        (JINJA + "{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}", "template_limits", 1),
        ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "template_limits", 1),
        (JINJA + "a: [{{ x }}", "yaml_syntax", 4),
        (JINJA + "{{ x }}: 1\npackages: 2", "duplicate_key", 4),
    ],
)
def test_what_templates_may_not_do(make_egg: Any, template: str, code: str, line: int) -> None:
    error = refused(make_egg(template, rendering="jinja", parameters={"x": {"default": "v"}}))
    assert error.code == code
    assert error.details["file"] == "cloud-init.yaml"
    assert abs(error.details["line"] - line) <= 1
    assert error.hint


@pytest.mark.parametrize(
    "loop",
    ["{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "{{ 10**(10**8) }}"],
)
def test_endless_templates_are_ended(make_egg: Any, loop: str) -> None:
    started = time.monotonic()
    assert refused(make_egg("#cloud-config\n" + loop, rendering="jinja")).code == "template_limits"
    assert time.monotonic() - started < 20


def test_secrets_are_blanked_in_template_errors(make_egg: Any) -> None:
    egg = make_egg(
        "#cloud-config\na: {{ token.hunter2 }}{{ {}[token] }}\n",
        rendering="jinja",
        parameters={"token": {"secret": True}},
    )
    error = refused(egg, token="hunter2hunter2")
    assert "hunter2hunter2" not in str(error.to_json())


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30))
def test_the_filters_write_any_text_so_that_cloud_init_reads_it(text: str) -> None:
    # The filters themselves, in-process: a process for each example would take minutes.
    from iceshelves.eggs.quoting import to_json

    assert yaml.safe_load(f"a: {to_json(text)}\nb: {to_json([text, None, 1.5, True])}") == {
        "a": text,
        "b": [text, None, 1.5, True],
    }


@pytest.mark.parametrize(
    "value", ["yes", "0644", "a: b", "# x", "{{ x }}", "\u2028\u0085\ufeff", "😀", "multi\nline\n", "'\"\\"]
)
def test_values_arrive_in_the_guest_as_given(make_egg: Any, value: str) -> None:
    template = (
        "#cloud-config\nfinal_message: {{ x | yaml }}\nlocale: {{ x | tojson }}\nbyobu: {{ x | b64encode }}\n"
    )
    text = rendered(make_egg(template, rendering="jinja", parameters={"x": {}}), x=value).user_data
    loaded = yaml.safe_load(text)
    assert (loaded["final_message"], loaded["locale"]) == (value, value)


def test_a_broken_profile_or_domain_is_refused(make_egg: Any) -> None:
    assert refused(make_egg(more={"lxd-profile.yaml": b"config: [x]\n"})).code == "wrong_type"
    assert (
        refused(make_egg(more={"kvm-config.xml": b"<!DOCTYPE x [<!ENTITY a 'b'>]><domain/>"})).code
        == "xml_doctype"
    )


def test_user_data_that_is_no_text_is_named(make_files: Any) -> None:
    egg = egg_from_files(make_files(b"#cloud-config\n\xff\n"))
    error = refused(egg)
    assert (error.code, error.details["line"]) == ("not_utf8", 2)


def test_schema_findings_are_warnings_by_release(make_egg: Any) -> None:
    egg = make_egg("#cloud-config\npackages: [{apt: [x]}]\n")
    assert [w.code for w in render(egg, NONE, release="debian/12").warnings] == ["schema"]
    assert render(egg, NONE, release="debian/13").warnings == ()
