"""The `authz` command. Each subcommand lives in a module that is imported only when it is used.

Exit status: 0 done, 1 failed, 2 wrong usage or a wrong setting, 130 interrupted.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from authz.cli.output import print_error
from authz.errors import AuthzError, ConfigError

if TYPE_CHECKING:
    from authz.config import LoadedSettings, Settings

EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130


class Subcommand(NamedTuple):
    """Where a subcommand is (its module's attribute `command`) and its line in the help."""

    module: str
    help: str


SUBCOMMANDS: Final[dict[str, Subcommand]] = {
    "serve": Subcommand("authz.cli.serve", "Run the daemon."),
    "demo": Subcommand("authz.cli.demo_command", "Show a daemon at work on a store of its own."),
    "health": Subcommand("authz.cli.health_command", "Ask whether the daemon answers."),
    "config": Subcommand("authz.cli.config_command", "Show every setting, its value and meaning."),
    "account": Subcommand("authz.cli.account_command", "Keep accounts."),
    "credit": Subcommand("authz.cli.credit_command", "Give an account money."),
    "debit": Subcommand("authz.cli.debit_command", "Charge an account for what is no call."),
    "deck": Subcommand("authz.cli.deck_command", "Import, export and look into rate tables."),
    "price": Subcommand("authz.cli.price_command", "Say what a call would cost."),
    "call": Subcommand("authz.cli.call_command", "Look at calls, and end them."),
    "event": Subcommand("authz.cli.event_command", "Look at alerts and recharge requests."),
    "recharge": Subcommand("authz.cli.recharge_command", "Answer recharges that are asked for."),
    "webhook": Subcommand("authz.cli.webhook_command", "Keep the programs told of events."),
    "delivery": Subcommand("authz.cli.delivery_command", "See who was told; tell them again."),
    "token": Subcommand("authz.cli.token_command", "Say who may use the admin API."),
    "changes": Subcommand("authz.cli.changes_command", "List what was changed by whom."),
    "freeswitch": Subcommand(
        "authz.cli.freeswitch_command", "Book what a FreeSWITCH could not deliver."
    ),
    "kazoo": Subcommand("authz.cli.kazoo_command", "Take over limits and rates from Kazoo."),
    "show": Subcommand("authz.cli.show_command", "Print any record of the store, decoded."),
    "archive": Subcommand("authz.cli.archive_command", "Look after the archive of the ledger."),
    "audit": Subcommand("authz.cli.audit_command", "Check that every invariant holds."),
}


class Invocation:
    """What the options before the subcommand say; subcommands get it by `click.pass_obj`."""

    def __init__(self, config_path: Path | None, *, has_process: bool = False) -> None:
        """Take the path of the settings file, if one was given.

        `has_process`: the process does this command and nothing else.
        """
        self._config_path = config_path
        self.has_process = has_process

    def load(self, options: Mapping[str, tuple[str, Any]] | None = None) -> LoadedSettings:
        """Read the settings; `options` are a subcommand's own: key to (option, value or None).

        Raises ConfigError.
        """
        # Not at the top: the help needs no settings.
        from authz.config import load_with_origins
        from authz.config.load import Written

        overrides = {
            key: Written(value, option)
            for key, (option, value) in (options or {}).items()
            if value is not None
        }
        return load_with_origins(self._config_path, os.environ, overrides)

    @property
    def settings(self) -> Settings:
        """The settings as file and environment have them. Raises ConfigError."""
        return self.load().settings


class LazyGroup(click.Group):
    """A group that knows its subcommands by name and imports one when it is called."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the names, in the order of the table."""
        return list(SUBCOMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Import a subcommand; a wrong name is answered with the nearest."""
        if name not in SUBCOMMANDS:
            near = difflib.get_close_matches(name, SUBCOMMANDS, n=1)
            hint = f"; did you mean {near[0]}?" if near else f": {', '.join(SUBCOMMANDS)}"
            raise click.UsageError(f"there is no command {name}{hint}", context)
        command: click.Command = importlib.import_module(SUBCOMMANDS[name].module).command
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of subcommands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.help) for name, one in SUBCOMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Settings come from --config, then the environment; `authz config` lists them.",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="AUTHZ_CONFIG",
    metavar="PATH",
    help="Settings file in TOML (also AUTHZ_CONFIG).",
)
@click.version_option(package_name="authz", message="authz %(version)s")
@click.pass_context
def cli(context: click.Context, config_path: Path | None) -> None:
    """Authorize calls and charge them to prepaid accounts.

    \b
    Examples:
      authz serve                              # the daemon with its own store
      authz --config /etc/authz.toml serve     # with settings from a file
      authz config --toml > authz.toml         # a settings file to begin with
    """
    context.obj = Invocation(config_path, has_process=context.obj is True)


def main() -> None:
    """Run the command line and exit with its status."""
    sys.exit(run(sys.argv[1:], has_process=True))


def run(arguments: list[str], *, has_process: bool = False) -> int:
    """Run a command line; return the exit status. `has_process` is told to the Invocation."""
    try:
        status = cli.main(arguments, prog_name="authz", standalone_mode=False, obj=has_process)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return EXIT_INTERRUPTED
    except ConfigError as error:
        print_error(str(error))
        return EXIT_USAGE
    except AuthzError as error:
        print_error(str(error))
        return EXIT_FAILURE
    except BrokenPipeError:
        # Who reads has seen enough; the interpreter must not complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    return status if isinstance(status, int) else 0
