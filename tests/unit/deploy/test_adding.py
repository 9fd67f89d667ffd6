"""Adding a cluster: pins are the user's decision, keys are ours and sealed, refusals leave nothing behind."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from iceshelves.access.policy import Actor, Role
from iceshelves.clusters.clusters import Clusters
from iceshelves.clusters.reaching import Reach, ssh_address
from iceshelves.clusters.requests import ClusterAddress, ClusterChange, NewCluster
from iceshelves.clusters.rows import Act
from iceshelves.connections.certificates import fingerprint, make_client_certificate, not_after
from iceshelves.connections.ssh_keys import fingerprint as ssh_fingerprint
from iceshelves.connections.ssh_keys import make_key_pair, public_key_of
from iceshelves.connections.values import SshSocket, TlsApi, UnixSocket
from iceshelves.core.errors import Conflict, Denied, IceShelvesError, InvalidInput
from iceshelves.core.secret import Secret
from iceshelves.store.models import Agent, AuditEntry, Cluster
from testbed.outside import FakeOutside, away, host_key

from .conftest import ADMIN, Plane

STRANGER = Actor(99, 9, "eve", Role.ADMIN)


class Desk:
    """Clusters on a plane's database, with a fake outside."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.outside = FakeOutside()
        self.dropped: list[int] = []

        async def no_stream(_cluster_id: int) -> Any:
            raise away()

        self.reach = Reach(plane.control.cipher, no_stream)
        self.clusters = Clusters(
            plane.control.database, plane.control._providers, self.reach, self.dropped.append, self.outside
        )

    def add(self, **fields: Any) -> int:
        new = NewCluster(**{"name": "far", **fields})
        return asyncio.run(self.clusters.connect(ADMIN, new)).cluster_id

    def refused(self, **fields: Any) -> IceShelvesError:
        with pytest.raises(IceShelvesError) as caught:
            self.add(**fields)
        assert self.names() == ["local"]
        return caught.value

    def direct(self, **fields: Any) -> int:
        pin = fingerprint(self.outside.server_certificate)
        given = {"connection_method": "direct-api", "endpoint_url": "https://hv", "server_certificate": pin}
        return self.add(**{**given, **fields})

    def ssh(self, **fields: Any) -> int:
        given = {
            "connection_method": "ssh",
            "endpoint_url": "ssh://hv",
            "ssh_host_key": self.outside.host_keys["hv"],
        }
        return self.add(**{**given, **fields})

    def refused_ssh(self, **fields: Any) -> str:
        with pytest.raises(IceShelvesError) as caught:
            self.ssh(name="refused", **fields)
        assert "refused" not in self.names()
        return caught.value.code

    def row(self, cluster_id: int) -> Cluster:
        with self.plane.control.database.read() as session:
            return session.get_one(Cluster, cluster_id)

    def names(self) -> list[str]:
        with self.plane.control.database.read() as session:
            return sorted(session.execute(sa.select(Cluster.name)).scalars())

    def audit(self) -> list[AuditEntry]:
        with self.plane.control.database.read() as session:
            return list(session.execute(sa.select(AuditEntry).order_by(AuditEntry.id)).scalars())

    def tls(self, cluster_id: int) -> TlsApi:
        found = self.reach.connection(self.row(cluster_id))
        assert isinstance(found, TlsApi)
        return found

    def socket(self, cluster_id: int) -> SshSocket:
        found = self.reach.connection(self.row(cluster_id))
        assert isinstance(found, SshSocket)
        return found

    def act(self, cluster_id: int) -> Act:
        return Act(ADMIN, cluster_id, "req")


@pytest.fixture
def desk(plane: Plane) -> Desk:
    return Desk(plane)


def token_for(outside: FakeOutside, **changed: Any) -> str:
    content = {
        "client_name": "x",
        "fingerprint": fingerprint(outside.server_certificate),
        "addresses": ["hv:8443"],
        "secret": "s3cret",
        "expires_at": "0001-01-01T00:00:00Z",
        **changed,
    }
    outside.token = base64.b64encode(json.dumps(content).encode()).decode()
    return outside.token


def test_without_a_pin_a_server_is_refused_and_its_fingerprint_told(desk: Desk) -> None:
    found = fingerprint(desk.outside.server_certificate)
    error = desk.refused(connection_method="direct", endpoint_url="https://hv")
    assert (error.code, error.details["found"]) == ("fingerprint_needed", found)
    assert f"--fingerprint {found}" in (error.hint or "")
    error = desk.refused(connection_method="ssh", endpoint_url="ssh://hv")
    found = ssh_fingerprint(desk.outside.host_keys["hv"])
    assert (error.code, error.details["found"]) == ("fingerprint_needed", found)
    assert f"--host-key {found}" in (error.hint or "")


def test_lxd_is_told_of_in_its_own_words(desk: Desk) -> None:
    error = desk.refused(connection_method="direct", endpoint_url="https://hv", provider="lxd")
    assert "lxc info | grep fingerprint" in (error.hint or "")


def test_another_pin_is_refused_with_both(desk: Desk) -> None:
    given = {"connection_method": "direct", "endpoint_url": "https://hv", "server_certificate": "a" * 64}
    error = desk.refused(**given)
    assert isinstance(error, Denied)
    assert error.details == {"expected": "a" * 64, "found": fingerprint(desk.outside.server_certificate)}
    wrong = ssh_fingerprint(host_key())
    error = desk.refused(connection_method="ssh", endpoint_url="ssh://hv", ssh_host_key=wrong)
    assert error.details == {"expected": wrong, "found": ssh_fingerprint(desk.outside.host_keys["hv"])}


def test_a_direct_cluster_gets_a_certificate_of_its_own_and_a_sealed_key(desk: Desk) -> None:
    pin = ":".join(fingerprint(desk.outside.server_certificate)[i : i + 2] for i in range(0, 64, 2)).upper()
    first, second = desk.direct(server_certificate=pin), desk.direct(name="second")
    found = desk.tls(first)
    assert (found.host, found.port, found.trusted) == ("hv", 8443, desk.outside.server_certificate)
    assert found.certificate != desk.tls(second).certificate
    assert desk.row(first).endpoint_url == "https://hv:8443"
    stored = desk.row(first)
    assert b"PRIVATE KEY" not in (stored.secrets or b"")
    assert "PRIVATE KEY" not in json.dumps(stored.connection)
    other = desk.row(second)
    other.secrets = stored.secrets  # a key that was moved to another row is of no use there
    with pytest.raises(IceShelvesError, match="moved"):
        desk.reach.connection(other)


def test_a_key_of_ones_own_is_taken_with_its_certificate(desk: Desk) -> None:
    mine = make_client_certificate("mine")
    given = {"client_cert": mine.certificate, "client_key": mine.key.reveal()}
    assert desk.tls(desk.direct(**given)).key == mine.key
    desk.outside.trusted.add(fingerprint(mine.certificate))
    pin = fingerprint(desk.outside.server_certificate)
    new = NewCluster(
        name="known",
        connection_method="direct",
        endpoint_url="https://hv",
        server_certificate=pin,
        **given,
    )
    assert asyncio.run(desk.clusters.connect(ADMIN, new)).trusted
    with pytest.raises(InvalidInput, match="comes with its key"):
        desk.direct(name="half", client_cert=mine.certificate)


def test_a_token_brings_address_pin_and_trust(desk: Desk) -> None:
    cluster_id = desk.add(connection_method="direct-api", trust_token=token_for(desk.outside))
    assert fingerprint(desk.tls(cluster_id).certificate) in desk.outside.trusted
    cluster_id = desk.add(
        name="by-name",
        connection_method="direct-api",
        endpoint_url="https://hv",
        trust_token=token_for(desk.outside),
    )
    assert fingerprint(desk.tls(cluster_id).certificate) in desk.outside.trusted


def test_a_token_of_another_server_is_not_sent(desk: Desk) -> None:
    token = token_for(desk.outside, fingerprint="b" * 64)
    error = desk.refused(connection_method="direct", endpoint_url="https://hv", trust_token=token)
    assert error.code == "fingerprint_differs"
    assert "join" not in desk.outside.asked


def test_a_refused_token_or_password_leaves_no_cluster(desk: Desk) -> None:
    token = token_for(desk.outside)
    desk.outside.token = "used"
    assert desk.refused(connection_method="direct", trust_token=token).code == "token_refused"
    desk.outside.password = "right"
    pin = fingerprint(desk.outside.server_certificate)
    given = {"connection_method": "direct", "endpoint_url": "https://hv", "server_certificate": pin}
    assert desk.refused(**given, trust_password="wrong").code == "password_refused"
    assert desk.names() == ["local"]
    desk.add(**given, trust_password="right")
    assert "right" not in str([entry.details for entry in desk.audit()])


def test_a_token_is_not_used_up_for_a_name_that_is_taken(desk: Desk) -> None:
    token = token_for(desk.outside)
    with pytest.raises(Conflict):
        desk.add(name="local", connection_method="direct-api", trust_token=token)
    assert desk.outside.token == token


def test_an_ssh_cluster_gets_a_key_pair_and_the_usual_socket(desk: Desk) -> None:
    found = desk.socket(desk.ssh())
    assert found.path == "/var/lib/incus/unix.socket"
    (hop,) = found.hops
    assert (hop.host, hop.user, hop.port, hop.host_key) == ("hv", "root", 22, desk.outside.host_keys["hv"])
    assert found.key is not None
    stored = desk.row(2).connection["public_key"]
    assert public_key_of(found.key, "iceshelves-far") == stored


def test_the_originals_fields_say_the_same_as_an_address(desk: Desk) -> None:
    pin = ssh_fingerprint(desk.outside.host_keys["hv"])
    cluster_id = desk.add(
        connection_method="ssh",
        ssh_host="hv",
        ssh_port=2222,
        ssh_user="ops",
        ssh_host_key=pin,
        provider="lxd",
    )
    assert desk.row(cluster_id).endpoint_url == "ssh://ops@hv:2222/var/snap/lxd/common/lxd/unix.socket"
    assert desk.socket(cluster_id).hops[0].user == "ops"


def test_a_given_ssh_key_and_an_ssh_agent(desk: Desk) -> None:
    mine = make_key_pair("me")
    assert desk.socket(desk.ssh(ssh_key=mine.private.reveal())).key == mine.private
    cluster_id = desk.ssh(name="agents", ssh_auth="ssh-agent")
    assert desk.socket(cluster_id).key is None
    assert desk.row(cluster_id).secrets is None
    assert desk.refused_ssh(ssh_auth="ssh-agent", ssh_key="x") == "field_without_effect"
    assert desk.refused_ssh(ssh_key="no key") == "invalid_ssh_key"


def test_what_is_behind_a_jump_host_is_pinned_by_hand_or_seen_once_it_lets_us_in(desk: Desk) -> None:
    desk.outside.host_keys["gate"] = host_key()
    jump = {"host": "gate", "user": "me", "host_key": desk.outside.host_keys["gate"]}
    error = desk.refused(connection_method="ssh", endpoint_url="ssh://hv", ssh_jumps=(jump,))
    assert (error.code, error.details["hop"]) == ("host_key_needed", 1)
    mine = make_key_pair("me")
    desk.outside.authorized.add(mine.public)
    error = desk.refused(
        connection_method="ssh", endpoint_url="ssh://hv", ssh_jumps=(jump,), ssh_key=mine.private.reveal()
    )
    assert (error.code, error.details["hop"]) == ("fingerprint_needed", 1)
    found = desk.socket(desk.ssh(ssh_jumps=(jump,)))
    assert [(hop.host, hop.user) for hop in found.hops] == [("gate", "me"), ("hv", "root")]


def test_a_line_of_known_hosts_pins_without_asking(desk: Desk) -> None:
    line = f"hv,192.0.2.1 {desk.outside.host_keys['hv']} root@hv"
    cluster_id = desk.ssh(ssh_host_key=line)
    assert desk.socket(cluster_id).hops[0].host_key == desk.outside.host_keys["hv"]
    assert "host_key" not in desk.outside.asked


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"connection_method": "carrier-pigeon"}, "unsupported_connection"),
        ({"connection_method": "direct", "endpoint_url": "https://nowhere"}, "host_unknown"),
        ({"connection_method": "direct", "endpoint_url": "http://hv"}, "invalid_connection"),
        ({"connection_method": "direct", "endpoint_url": "https://me:hush@hv"}, "invalid_connection"),
        ({"connection_method": "direct", "endpoint_url": "https://hv:99999"}, "invalid_connection"),
        ({"connection_method": "direct", "verify_ssl": False}, "verification_needed"),
        ({"connection_method": "direct", "trust_token": "%%%"}, "invalid_token"),
        (
            {"connection_method": "direct", "endpoint_url": "https://hv", "server_certificate": "ab"},
            "invalid_fingerprint",
        ),
        (
            {
                "connection_method": "direct",
                "endpoint_url": "https://hv",
                "server_certificate": "-----BEGIN CERTIFICATE-----",
            },
            "invalid_certificate",
        ),
        (
            {"connection_method": "ssh", "endpoint_url": "ssh://hv", "ssh_host_key": "md5:1"},
            "invalid_host_key",
        ),
        (
            {"connection_method": "ssh", "endpoint_url": "ssh://hv", "ssh_host_key": "ssh-rsa AAAA"},
            "invalid_host_key",
        ),
        ({"connection_method": "ssh", "endpoint_url": "ssh://hv", "ssh_host": "hv"}, "field_without_effect"),
        ({"connection_method": "ssh", "endpoint_url": f"ssh://hv/{'x' * 200}"}, "invalid_connection"),
        ({"connection_method": "unix-socket", "ssh_host": "hv"}, "field_without_effect"),
        ({"connection_method": "unix-socket", "trust_token": "x"}, "field_without_effect"),
        ({"connection_method": "agent", "endpoint_url": "https://hv"}, "field_without_effect"),
        ({"connection_method": "direct", "provider": "fake"}, "unsupported_connection"),
    ],
)
def test_what_cannot_be_meant_is_refused(desk: Desk, fields: dict[str, Any], code: str) -> None:
    error = desk.refused(**fields)
    assert error.code == code
    assert error.hint
    assert "hush" not in str(error.to_json())


def test_only_a_socket_can_be_named(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "plain"
    file.touch()
    for path in (file, tmp_path, tmp_path / "nothing"):
        assert desk.refused(endpoint_url=str(path)).code == "not_a_socket"
    monkeypatch.setattr(Path, "is_socket", lambda _path: False)
    assert "/var/lib/incus/unix.socket" in desk.refused().message  # the usual one is none better
    monkeypatch.setattr(Path, "is_socket", lambda _path: True)
    found = desk.reach.connection(desk.row(desk.add()))
    assert found == UnixSocket("/var/lib/incus/unix.socket", "default", None)


def test_an_agents_cluster_has_its_interval(desk: Desk) -> None:
    cluster_id = desk.add(connection_method="agent", agent_poll_interval=120)
    with desk.plane.control.database.read() as session:
        assert session.execute(sa.select(Agent.poll_interval)).scalars().all() == [120]
    desk.clusters.delete(ADMIN, cluster_id)
    assert desk.names() == ["local"]


def test_a_look_keeps_nothing(desk: Desk) -> None:
    wanted = ClusterAddress(connection_method="direct", endpoint_url="https://hv")
    (shown,) = asyncio.run(desk.clusters.look(wanted))
    assert shown.fingerprint == fingerprint(desk.outside.server_certificate)
    assert shown.not_after == not_after(desk.outside.server_certificate)
    desk.outside.host_keys["gate"] = host_key()
    wanted = ClusterAddress(connection_method="ssh", endpoint_url="ssh://hv", ssh_jumps=({"host": "gate"},))
    first, second = asyncio.run(desk.clusters.look(wanted))
    assert first.fingerprint == ssh_fingerprint(desk.outside.host_keys["gate"])
    assert second.fingerprint is None
    assert "gate" in (second.reason or "")
    with pytest.raises(InvalidInput):
        asyncio.run(desk.clusters.look(ClusterAddress()))
    assert desk.names() == ["local"]


def test_a_pin_is_replaced_by_the_very_one_that_is_named(desk: Desk) -> None:
    cluster_id = desk.direct()
    former = fingerprint(desk.outside.server_certificate)
    desk.outside.server_certificate = make_client_certificate("renewed").certificate
    found = fingerprint(desk.outside.server_certificate)
    (shown,) = asyncio.run(desk.clusters.pins.look(desk.act(cluster_id)))
    assert (shown.expected, shown.fingerprint) == (former, found)
    with pytest.raises(Denied) as caught:
        asyncio.run(desk.clusters.pins.accept_certificate(desk.act(cluster_id), former))
    assert caught.value.code == "fingerprint_differs"
    assert desk.tls(cluster_id).trusted != desk.outside.server_certificate
    asyncio.run(desk.clusters.pins.accept_certificate(desk.act(cluster_id), found))
    assert desk.tls(cluster_id).trusted == desk.outside.server_certificate
    assert desk.dropped == [cluster_id]
    entry = desk.audit()[-1]
    assert entry.action == "cluster.accept-certificate"
    assert entry.details == {"former": former, "accepted": found}
    with pytest.raises(InvalidInput):
        asyncio.run(desk.clusters.pins.accept_host_key(desk.act(cluster_id), found))


def test_hints_name_the_cluster(desk: Desk) -> None:
    cluster_id = desk.direct(provider="lxd")
    hint = "iceshelves cluster rotate NAME; incus config trust add-certificate FILE; incus info"
    for method, attempt in (
        ("certificate", desk.clusters.pins.look),
        ("trusts", desk.clusters.rotation.rotate),
    ):
        desk.outside.failing[method] = Denied("x", code="x", hint=hint)
        with pytest.raises(Denied) as caught:
            asyncio.run(attempt(desk.act(cluster_id)))
        assert caught.value.hint == "iceshelves cluster rotate far; lxc config trust add FILE; lxc info"


def test_a_host_key_on_the_way_is_replaced_alone(desk: Desk) -> None:
    desk.outside.host_keys["gate"] = host_key()
    jump = {"host": "gate", "host_key": desk.outside.host_keys["gate"]}
    cluster_id = desk.ssh(ssh_jumps=(jump,))
    desk.outside.host_keys["gate"] = host_key()
    first, second = asyncio.run(desk.clusters.pins.look(desk.act(cluster_id)))
    assert first.fingerprint != first.expected
    assert second.reason
    accept = desk.clusters.pins.accept_host_key
    asyncio.run(accept(desk.act(cluster_id), str(first.fingerprint), "gate"))
    hops = desk.socket(cluster_id).hops
    assert [hop.host_key for hop in hops] == [desk.outside.host_keys["gate"], desk.outside.host_keys["hv"]]
    with pytest.raises(InvalidInput, match="not on the way"):
        asyncio.run(accept(desk.act(cluster_id), "SHA256:x", "elsewhere"))


def test_a_certificate_is_rotated_and_the_former_one_retired(desk: Desk) -> None:
    cluster_id = desk.add(connection_method="direct-api", trust_token=token_for(desk.outside))
    former = fingerprint(desk.tls(cluster_id).certificate)
    done = asyncio.run(desk.clusters.rotation.rotate(desk.act(cluster_id)))
    assert done.status == "done"
    now = fingerprint(desk.tls(cluster_id).certificate)
    assert desk.outside.trusted == {now}
    assert now != former
    assert desk.row(cluster_id).connection["next_certificate"] == ""


@pytest.mark.parametrize("moment", ["trusts", "add_certificate", "retire_certificate"])
@pytest.mark.parametrize("error", [away(), asyncio.CancelledError()], ids=["away", "killed"])
def test_a_rotation_that_is_cut_off_goes_on_and_the_cluster_stays_reachable(
    desk: Desk, moment: str, error: BaseException
) -> None:
    cluster_id = desk.add(connection_method="direct-api", trust_token=token_for(desk.outside))
    desk.outside.failing[moment] = error
    with pytest.raises(type(error)):
        asyncio.run(desk.clusters.rotation.rotate(desk.act(cluster_id)))
    assert fingerprint(desk.tls(cluster_id).certificate) in desk.outside.trusted
    begun = desk.row(cluster_id).connection["next_certificate"]
    done = asyncio.run(desk.clusters.rotation.rotate(desk.act(cluster_id)))
    assert done.status == "done"
    if begun:  # the key that was made is the one that is used
        assert desk.tls(cluster_id).certificate == begun
    assert desk.outside.trusted == {fingerprint(desk.tls(cluster_id).certificate)}


def test_where_we_may_not_add_certificates_it_is_done_by_hand(desk: Desk) -> None:
    cluster_id = desk.add(connection_method="direct-api", trust_token=token_for(desk.outside))
    desk.outside.may_add = False
    pending = asyncio.run(desk.clusters.rotation.rotate(desk.act(cluster_id)))
    assert pending.status == "pending"
    assert "incus config trust add-certificate -" in (pending.next_step or "")
    assert desk.tls(cluster_id).certificate != pending.public
    desk.outside.trusted.add(fingerprint(pending.public))
    done = asyncio.run(desk.clusters.rotation.rotate(desk.act(cluster_id)))
    assert (done.status, done.public) == ("done", pending.public)


def test_an_ssh_key_is_switched_when_the_new_one_works(desk: Desk) -> None:
    cluster_id = desk.ssh()
    desk.outside.authorized.add(desk.row(cluster_id).connection["public_key"])
    former = desk.socket(cluster_id).key
    pending = asyncio.run(desk.clusters.rotation.rotate(desk.act(cluster_id)))
    again = asyncio.run(desk.clusters.rotation.rotate(desk.act(cluster_id)))
    assert (pending.status, again.status) == ("pending", "pending")
    assert pending.public == again.public
    assert desk.socket(cluster_id).key == former
    desk.outside.authorized.add(pending.public)
    desk.outside.failing["trusts"] = away()
    with pytest.raises(IceShelvesError):
        asyncio.run(desk.clusters.rotation.rotate(desk.act(cluster_id)))
    assert desk.socket(cluster_id).key == former
    assert asyncio.run(desk.clusters.rotation.rotate(desk.act(cluster_id))).status == "done"
    key = desk.socket(cluster_id).key
    assert isinstance(key, Secret)
    assert public_key_of(key, "iceshelves-far") == pending.public


def test_where_there_is_no_key_there_is_nothing_to_rotate(desk: Desk) -> None:
    for cluster_id in (desk.plane.cluster_id, desk.ssh(ssh_auth="ssh-agent")):
        with pytest.raises(InvalidInput) as caught:
            asyncio.run(desk.clusters.rotation.rotate(desk.act(cluster_id)))
        assert caught.value.code == "nothing_to_rotate"


def test_a_cluster_is_changed_and_its_pins_stay(desk: Desk) -> None:
    cluster_id = desk.direct(max_operations=3)
    trusted = desk.tls(cluster_id).trusted
    change = ClusterChange(endpoint_url="https://[2001:db8::1]:9443", project="web", max_operations=None)
    desk.clusters.change(desk.act(cluster_id), change)
    found = desk.tls(cluster_id)
    assert (found.host, found.port, found.project) == ("2001:db8::1", 9443, "web")
    assert found.trusted == trusted
    assert desk.row(cluster_id).max_operations is None
    assert desk.audit()[-1].details == {"changed": ["endpoint_url", "max_operations", "project"]}
    with pytest.raises(InvalidInput):
        desk.clusters.change(desk.act(cluster_id), ClusterChange(endpoint_url="/run/x"))
    tunnel = desk.ssh(name="tunnel")
    desk.clusters.change(desk.act(tunnel), ClusterChange(endpoint_url="ssh://ops@hv2:2200/run/d.sock"))
    moved = desk.socket(tunnel)
    assert (moved.hops[0].host, moved.hops[0].user, moved.path) == ("hv2", "ops", "/run/d.sock")
    assert moved.hops[0].host_key == desk.outside.host_keys["hv"]


def test_what_only_a_test_can_tell_is_unknown_after_a_change(desk: Desk) -> None:
    cluster_id = desk.direct()
    for change, status in (
        (ClusterChange(description="x"), "active"),
        (ClusterChange(project="web"), "unknown"),
        (ClusterChange(project="web"), "active"),
        (ClusterChange(options={"image_servers": []}), "unknown"),
        (ClusterChange(endpoint_url="https://hv2"), "unknown"),
    ):
        with desk.plane.control.database.write() as session:
            session.get_one(Cluster, cluster_id).status = "active"
        desk.clusters.change(desk.act(cluster_id), change)
        assert desk.row(cluster_id).status == status
    assert desk.row(cluster_id).status_message == "changed; not tested yet"


def test_an_address_of_another_shape_is_refused(desk: Desk) -> None:
    for cluster_id in (desk.direct(name="one"), desk.ssh(name="two")):
        former = desk.row(cluster_id).endpoint_url
        for garbage in ("garbage", "", "/run/d.sock", "fake://x"):
            with pytest.raises(InvalidInput) as caught:
                desk.clusters.change(desk.act(cluster_id), ClusterChange(endpoint_url=garbage))
            assert caught.value.code == "invalid_connection"
        assert desk.row(cluster_id).endpoint_url == former


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://hv:99999", "'https://hv:99999' cannot be read: its port"),
        ("https://hv:0", "its port"),
        ("http://hv", "'http://hv' cannot be read: it has to begin with https://"),
        ("https://me:hush@hv", "'…@hv' cannot be read: there is no place for a password"),
        ("https://me:hu/sh@hv:x", "'…@hv:x' cannot be read: its port"),
        ("https://[::1", "its host"),
        ("https://", "it names no host"),
    ],
)
def test_what_is_wrong_with_an_address_is_told(desk: Desk, url: str, why: str) -> None:
    error = desk.refused(connection_method="direct", endpoint_url=url)
    assert why in error.message
    assert "hu" not in error.message


def test_a_relative_path_is_told_so(desk: Desk) -> None:
    assert desk.refused(endpoint_url="run/d.sock").message == "The path must be absolute."


def test_a_wrong_option_is_mended_by_its_own_hint(desk: Desk) -> None:
    for options, words in (
        ({"image_servers": 1}, "images.example.org"),
        ({"images_through": "x"}, "images_through"),
        ({"other": 1}, "image_servers and images_through"),
    ):
        error = desk.refused(connection_method="agent", options=options)
        assert words in (error.hint or "")
        assert ("images.example.org" in (error.hint or "")) == ("image_servers" in options)


def test_a_cluster_in_use_says_how_to_empty_it(desk: Desk) -> None:
    desk.plane.deploy("web")
    with pytest.raises(Conflict) as caught:
        desk.clusters.delete(ADMIN, desk.plane.cluster_id)
    assert "has 1 deployment." in caught.value.message
    assert "iceshelves delete local:" in (caught.value.hint or "")


def test_a_strangers_cluster_is_none(desk: Desk) -> None:
    cluster_id = desk.direct()
    act = Act(STRANGER, cluster_id)
    pins, rotation = desk.clusters.pins, desk.clusters.rotation
    desk.outside.asked.clear()
    for attempt in (
        lambda: asyncio.run(pins.accept_certificate(act, "a" * 64)),
        lambda: asyncio.run(pins.look(act)),
        lambda: asyncio.run(rotation.rotate(act)),
        lambda: asyncio.run(desk.clusters.test(STRANGER, cluster_id)),
        lambda: desk.clusters.change(act, ClusterChange(description="mine")),
    ):
        with pytest.raises(IceShelvesError) as caught:
            attempt()
        assert caught.value.code == "cluster_not_found"
    assert desk.outside.asked == []


@pytest.mark.parametrize(
    ("url", "again"),
    [
        ("ssh://hv", "ssh://root@hv:22"),
        ("ssh://me@[2001:db8::1]:2222/run/a b.sock", "ssh://me@[2001:db8::1]:2222/run/a%20b.sock"),
        ("ssh://a%40b@hv/run/d.sock/", "ssh://a%40b@hv:22/run/d.sock"),
    ],
)
def test_ssh_addresses_are_read_and_written(url: str, again: str) -> None:
    assert ssh_address(url).to_url() == again
    assert ssh_address(again) == ssh_address(url)
