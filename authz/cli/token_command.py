"""`authz token`: who may use the admin API."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from authz.admin.roles import Role
from authz.admin.services import Services
from authz.admin.tokens import NewToken, TokenList, TokenRequest
from authz.cli.changing import run_change
from authz.cli.main import Invocation
from authz.cli.output import json_option, print_hint, print_json, print_table
from authz.cli.session import run
from authz.errors import Conflict, NotFound
from authz.validation import invalid_input


@click.group("token")
def command() -> None:
    """Keep the tokens of the admin API.

    As soon as there is one, nobody uses the API without. Roles: `read` looks at everything,
    `operate` also moves money, changes accounts and ends calls, `admin` also keeps decks, tokens
    and webhooks and closes accounts. A token of an account reads that account and those below
    it, and changes only those below.

    \b
    Examples:
      authz token create billing --role operate
      authz token create acme-portal --role read --account acme --expires 2030-01-01T00:00:00Z
      authz token list
      authz token revoke acme-portal
    """


@command.command("create")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice([role.label for role in Role]),
    required=True,
    help="What it may do.",
)
@click.option("--account", metavar="ID", help="Only this account and those below it.")
@click.option(
    "--expires",
    "expires_at",
    metavar="TIME",
    help="When it ends, as 2030-01-01T00:00:00Z (default never).",
)
@json_option
@click.pass_obj
def create(invocation: Invocation, /, as_json: bool, **words: Any) -> None:
    """Make a token called NAME and print it, this once: only its digest is kept.

    \b
    Examples:
      authz token create grafana --role read
      authz token create acme-portal --role operate --account acme
    """
    try:
        request = msgspec.convert(words, TokenRequest)
    except msgspec.ValidationError as error:
        raise invalid_input(error) from None

    async def work(services: Services) -> NewToken:
        return await services.tokens.create(request)

    made = run_change(invocation, "token create", request.name, work, {"body": request})
    if as_json:
        print_json(made)
        return
    click.echo(made.token)
    reach = "every account" if made.account is None else f"{made.account} and what is below it"
    print_hint(f"Role {made.role} for {reach}. It is not shown again; revoke it as {made.name}.")


@command.command("list")
@json_option
@click.pass_obj
def list_tokens(invocation: Invocation, as_json: bool) -> None:
    """List all tokens, also expired ones, without their secrets.

    \b
    Example:
      authz token list
    """

    async def work(services: Services) -> TokenList:
        return await services.tokens.all()

    tokens = run(invocation, work).tokens
    if as_json:
        print_json(tokens)
        return
    print_table(
        ("id", "name", "role", "account", "created at", "expires at", "last used on"),
        [
            (
                one.id,
                one.name,
                one.role,
                one.account,
                one.created_at,
                one.expires_at,
                one.last_used_on,
            )
            for one in tokens
        ],
    )


@command.command("revoke")
@click.argument("name", metavar="NAME|ID")
@click.pass_obj
def revoke(invocation: Invocation, name: str) -> None:
    """End a token at once, by its name or id; every process refuses it from then on.

    \b
    Example:
      authz token revoke acme-portal
    """

    async def work(services: Services) -> str:
        tokens = (await services.tokens.all()).tokens
        found = [one.id for one in tokens if name in (one.id, one.name)]
        if not found:
            raise NotFound(f"no token {name}; `authz token list` names those there are")
        if len(found) > 1:
            raise Conflict(f"{len(found)} tokens are called {name}; give the id of one")
        await services.tokens.revoke(found[0])
        return found[0]

    token_id = run_change(invocation, "token revoke", name, work)
    click.echo(f"{name} ({token_id}) is revoked.")
