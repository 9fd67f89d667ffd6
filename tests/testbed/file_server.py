"""A folder served over HTTPS, with a log of what was asked for: all that an image registry needs."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from testbed.certificates import Made, Order, make
from testbed.hosts import die_with_parent, wait_until


@dataclass(frozen=True)
class Served:
    """A running server: its URL, the certificate that it shows, and a log of the paths that it had."""

    url: str
    certificate: str
    log: Path

    def asked(self) -> list[str]:
        """The paths so far, in order."""
        return self.log.read_text().split()


def missing_for_nginx() -> str | None:
    """What serving by nginx needs and this machine lacks."""
    return None if shutil.which("nginx") else "not installed: nginx"


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    log: Path
    writing = threading.Lock()

    def __init__(self, *arguments: Any, log: Path, **options: Any) -> None:
        self.log = log
        super().__init__(*arguments, **options)

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        if int(code) == 200:
            with self.writing, self.log.open("a") as stream:
                stream.write(f"{self.path}\n")

    def log_message(self, *_: object) -> None:
        """Clients ask by plain HTTP first; that is no news."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Likewise."""


@contextmanager
def serving(tree: Path, address: str, state: Path) -> Iterator[Served]:
    """Serve ``tree`` from this process; ``state`` is a folder for the log."""
    made, log = _prepared(address, state)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(state / "server.crt", state / "server.key")
    server = _Server((address, 0), partial(_Handler, directory=str(tree), log=log))
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield Served(f"https://{address}:{server.server_port}", made.pem, log)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


_NGINX = """\
daemon off;
pid {state}/nginx.pid;
error_log {state}/error.log;
events {{}}
http {{
  log_format path '$request_uri';
  map $status $answered {{ 200 1; default 0; }}
  access_log {state}/access.log path if=$answered;
  client_body_temp_path {state}/body; proxy_temp_path {state}/proxy; fastcgi_temp_path {state}/fastcgi;
  uwsgi_temp_path {state}/uwsgi; scgi_temp_path {state}/scgi;
  server {{
    listen {address}:{port} ssl;
    ssl_protocols TLSv1.2 TLSv1.3;  # Incus asks for 1.3, which nginx 1.22 leaves out unless told
    ssl_certificate {state}/server.crt;
    ssl_certificate_key {state}/server.key;
    root {tree};
    gzip on; gzip_types application/json;
    types {{ application/json json; }}
  }}
}}
"""


@contextmanager
def serving_by_nginx(tree: Path, address: str, state: Path) -> Iterator[Served]:
    """Serve ``tree`` by nginx and nothing else; its workers must be able to enter both folders."""
    made, log = _prepared(address, state)
    with socket.create_server((address, 0)) as free:
        port = free.getsockname()[1]
    configuration = state / "nginx.conf"
    configuration.write_text(_NGINX.format(state=state, address=address, port=port, tree=tree))
    process = subprocess.Popen(
        ["nginx", "-c", str(configuration), "-e", str(state / "error.log")], preexec_fn=die_with_parent
    )
    try:
        wait_until(lambda: (state / "nginx.pid").exists() and log.exists(), "nginx")
        yield Served(f"https://{address}:{port}", made.pem, log)
    finally:
        process.terminate()
        process.wait()


def _prepared(address: str, state: Path) -> tuple[Made, Path]:
    state.mkdir(parents=True, exist_ok=True)
    made = make(Order(hosts=(address,)))
    (state / "server.crt").write_text(made.pem)
    (state / "server.key").write_text(made.key_pem)
    log = state / "access.log"
    log.touch()
    return made, log
