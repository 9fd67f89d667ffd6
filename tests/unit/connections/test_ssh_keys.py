"""Keys of SSH: ours, and the form in which they are compared."""

from __future__ import annotations

import pytest

from iceshelves.connections.ssh_keys import fingerprint, make_key_pair, public_key_of
from iceshelves.core.errors import InvalidInput
from iceshelves.core.secret import Secret

# Made by ssh-keygen, and what ssh-keygen -l says of it.
LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFlT+2WQ5WLuLxpfNcRTNbTXwmfPqE3yOMtBs20yto0B root@example"
PRINT = "SHA256:DtkAm/JBenTM+55834aH7Ngi3PSNkTBRtExiP/JsmJA"


def test_fingerprint_is_that_of_ssh_keygen() -> None:
    assert fingerprint(LINE) == PRINT
    assert fingerprint(" ".join(LINE.split()[:2])) == PRINT


@pytest.mark.parametrize(
    "line",
    [
        "",
        "rubbish",
        "ssh-ed25519",
        "ssh-ed25519 !!!",
        "ssh-ed25519 AAAA",
        "ssh-rsa " + LINE.split()[1],
        "é ü",
    ],
)
def test_what_is_no_public_key_is_refused(line: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        fingerprint(line)
    assert caught.value.code == "invalid_host_key"


def test_a_new_pair_belongs_together_and_says_whose_it_is() -> None:
    pair = make_key_pair("iceshelves-web")
    assert pair.private.reveal().startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert pair.public.endswith(" iceshelves-web")
    assert public_key_of(pair.private, "iceshelves-web") == pair.public
    assert make_key_pair("iceshelves-web").public != pair.public


def test_an_unreadable_private_key_is_refused_without_showing_it() -> None:
    with pytest.raises(InvalidInput) as caught:
        public_key_of(Secret("-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n"), "x")
    assert caught.value.code == "invalid_ssh_key"
    assert "hunter2" not in str(caught.value.to_json())
