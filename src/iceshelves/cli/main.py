"""The entry point.  Nothing that is slow to import is imported here; a test watches that."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from iceshelves.cli.app import App
from iceshelves.cli.lazy import Lazy, LazyGroup
from iceshelves.cli.problems import ERROR, INTERRUPTED, report
from iceshelves.core.errors import IceShelvesError

PROGRAM: Final = "iceshelves"
#: what a shell sets when it asks for completions
COMPLETION: Final = "_ICESHELVES_COMPLETE"
_COMMANDS: Final = "iceshelves.cli.commands"

SECTIONS: Final[dict[str, dict[str, Lazy]]] = {
    "Deployments": {
        "deploy": Lazy(f"{_COMMANDS}.deploy:deploy", "Turn an egg into a running, configured instance."),
        "update": Lazy(f"{_COMMANDS}.deploy:update", "Put a new revision in place of the present one."),
        "rollback": Lazy(f"{_COMMANDS}.deploy:rollback", "Go back to an earlier revision."),
        "list": Lazy(f"{_COMMANDS}.deployments:list_", "List deployments."),
        "show": Lazy(f"{_COMMANDS}.deployments:show", "Show a deployment: its state, addresses and steps."),
        "logs": Lazy(f"{_COMMANDS}.logs:logs", "Print a deployment's log, the guest's own output included."),
        "exec": Lazy(
            f"{_COMMANDS}.guest:exec_", "Run a command in an instance; its exit status is passed on."
        ),
        "shell": Lazy(f"{_COMMANDS}.guest:shell", "Open a shell in an instance."),
        "cancel": Lazy(f"{_COMMANDS}.deployments:cancel", "Cancel what is being done to a deployment."),
        "retry": Lazy(f"{_COMMANDS}.deploy:retry", "Try a failed or cancelled deployment again."),
        "delete": Lazy(f"{_COMMANDS}.deployments:delete", "Delete an instance and what was made for it."),
        "revisions": Lazy(
            f"{_COMMANDS}.deployments:revisions", "List what a deployment was and is, the newest first."
        ),
        "operation": Lazy(f"{_COMMANDS}.operation:operation", "List, show and watch operations."),
    },
    "Eggs and clusters": {
        "egg": Lazy(f"{_COMMANDS}.egg:egg", "Write, check, pack and import eggs."),
        "instances": Lazy(
            f"{_COMMANDS}.instances:instances", "List the instances of all clusters, ours or not."
        ),
        "cluster": Lazy(f"{_COMMANDS}.cluster:cluster", "Connect, look at, change and test clusters."),
    },
    "Images": {
        "appliance": Lazy(
            f"{_COMMANDS}.appliance:appliance", "Write, check, import and try out recipes of images."
        ),
        "image": Lazy(f"{_COMMANDS}.image:image", "Build, publish, promote and look after images."),
    },
    "Server and access": {
        "serve": Lazy(f"{_COMMANDS}.serve:serve", "Run the server."),
        "agent": Lazy(f"{_COMMANDS}.agent:agent", "Serve a cluster from beside its hypervisor."),
        "admin-token": Lazy(f"{_COMMANDS}.serve:admin_token", "Renew the administrator's token."),
        "login": Lazy(f"{_COMMANDS}.contexts:login", "Log in to a server and remember it."),
        "context": Lazy(f"{_COMMANDS}.contexts:context", "List, choose and forget servers."),
        "user": Lazy(f"{_COMMANDS}.user:user", "Add, list and remove users, and renew their tokens."),
        "audit": Lazy(f"{_COMMANDS}.audit:audit", "List who did what, and what was refused."),
    },
    "Help": {
        "doctor": Lazy(f"{_COMMANDS}.doctor:doctor", "Check the set-up, and say what to do about it."),
        "completion": Lazy(f"{_COMMANDS}.completion:completion", "Print the completion script of a shell."),
        "version": Lazy(f"{_COMMANDS}.version:version", "Print the versions of the client and the server."),
    },
}


@click.group(
    cls=LazyGroup,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="New here?  serve, then login, then 'cluster add local', then 'deploy hello-web local:web'.",
)
@click.option("--context", "context_name", metavar="NAME", help="Use this server instead of the current one.")
@click.pass_context
def cli(ctx: click.Context, context_name: str | None) -> None:
    """IceShelves: deploy cloud-init packages ("eggs") to system containers and virtual machines.

    A deployment is addressed as CLUSTER:NAME, by NAME alone where that is unambiguous, or by its number.
    """
    app = ctx.ensure_object(App)
    if context_name:
        app.context_name = context_name


def run(arguments: Sequence[str], app: App | None = None) -> int:
    """Run one command line and return its exit status; failures are told on standard error."""
    plain = False if os.environ.get("NO_COLOR") else None
    app = app or App()
    if COMPLETION in os.environ:
        from iceshelves.cli import bash  # noqa: F401 - replaces click's completion for bash
    try:
        status = cli.main(list(arguments), prog_name=PROGRAM, standalone_mode=False, obj=app, color=plain)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except IceShelvesError as error:
        report(error)
        return ERROR
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    finally:
        app.close()
    return status if isinstance(status, int) else 0


def _reader_gone() -> int:
    """Whoever read our output has seen enough (``iceshelves list | head``): end without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def main() -> None:
    """The ``iceshelves`` program."""
    sys.exit(run(sys.argv[1:]))
