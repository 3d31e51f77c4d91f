"""What we say to FreeSWITCH: the bytes of its commands, with nothing in them that was not meant.

The event socket ends a command by an empty line, and words of its api by a blank, so that a number
or a name that comes from a caller could become a command of its own. Every part is therefore
checked here for what it is: a word, a value, or a line. InvalidInput names the part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from authz.errors import InvalidInput

#: Characters that no word of a command has, and that mean something to FreeSWITCH's parsers:
#: blanks, quotes, separators, escapes, and the dollar of a variable or function to expand.
_WORD: Final = re.compile(r"[^\s'\"\\;,|^$`{}\[\]()<>\x00-\x20\x7f]{1,256}")
#: A channel's uuid; `origination_uuid` lets an operator choose others than random ones.
_UUID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@-]{0,127}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
#: What begins an expansion, by which a value could run a command on the switch, or an escape.
_EXPANSION: Final = re.compile(r"\$\{|\\")
#: What separates or escapes in a list of assignments.
_ASSIGNMENT_SPECIAL: Final = re.compile(r"[;'\"]|^[ ^]")
LINE_CHARACTERS_MAX: Final = 65_536
#: A year; FreeSWITCH's scheduler takes more, but nothing of ours is meant to last as long.
SCHEDULE_SECONDS_MAX: Final = 366 * 24 * 3_600

CONNECT: Final = b"connect\n\n"
EXIT: Final = b"exit\n\n"
#: Wakes the switch's listener from its 20 ms pause and asks for nothing.
NUDGE: Final = b"\n"


# The event socket's own commands.


def auth(password: str) -> bytes:
    """Log in on an inbound connection."""
    return _command(f"auth {_line('password', password)}")


def api(line: str) -> bytes:
    """Run an api command and wait for its answer."""
    return _command(f"api {_line('command', line)}")


def background_api(line: str, job_uuid: str) -> bytes:
    """Run an api command in a thread; the answer is a BACKGROUND_JOB event with this Job-UUID."""
    return _command(f"bgapi {_line('command', line)}", {"Job-UUID": uuid_word(job_uuid)})


def subscribe(names: Iterable[str], subclasses: Iterable[str] = ()) -> bytes:
    """Ask for events in JSON. Subclasses of CUSTOM come last: all words after it are taken so."""
    words = [word("event", name) for name in names]
    if "CUSTOM" in words:
        raise InvalidInput("event", "CUSTOM is asked for by its subclasses")
    custom = [word("subclass", name) for name in subclasses]
    if not words and not custom:
        raise InvalidInput("event", "no event is named")
    return _command(" ".join(["event json", *words, *(["CUSTOM", *custom] if custom else ())]))


def my_events() -> bytes:
    """Ask for all events of the leg that an outbound socket controls, in JSON."""
    return _command("myevents json")


def linger(seconds: int) -> bytes:
    """Ask an outbound socket to stay open after the hang-up, for the events that follow it."""
    if not 0 < seconds <= 3_600:
        raise InvalidInput("seconds", f"cannot linger {seconds} seconds")
    return _command(f"linger {seconds}")


def execute(
    application: str,
    argument: str = "",
    *,
    uuid: str = "",
    event_lock: bool = False,
) -> bytes:
    """Run a dialplan application on a leg (by `uuid`, or the outbound socket's own).

    With `event_lock` what follows waits until the application ends, a hang-up included: answered
    `+OK` and not run. The switch expands variables in `argument`; `value` refuses to let any in.
    """
    headers = {"call-command": "execute", "execute-app-name": word("application", application)}
    if argument:
        headers["execute-app-arg"] = _line("argument", argument)
    if event_lock:
        headers["event-lock"] = "true"
    return _send_message(uuid, headers)


def hang_up(cause: str, *, uuid: str = "") -> bytes:
    """Hang up a leg by a message; it waits behind a locked application. See `uuid_kill`."""
    return _send_message(uuid, {"call-command": "hangup", "hangup-cause": word("cause", cause)})


# Lines for `api` and `background_api`.


def uuid_kill(uuid: str, cause: str) -> str:
    """Hang up a leg at once."""
    return f"uuid_kill {uuid_word(uuid)} {word('cause', cause)}"


def uuid_exists(uuid: str) -> str:
    """Ask whether a channel lives: `true` or `false`."""
    return f"uuid_exists {uuid_word(uuid)}"


def uuid_dump(uuid: str) -> str:
    """Ask for all that a channel is, in JSON."""
    return f"uuid_dump {uuid_word(uuid)} json"


def uuid_setvar(uuid: str, name: str, text: str) -> str:
    """Set a channel variable; an empty text unsets it."""
    assigned = f" {value(name, text)}" if text else ""
    return f"uuid_setvar {uuid_word(uuid)} {_variable_name(name)}{assigned}"


def uuid_setvar_multi(uuid: str, variables: Mapping[str, str]) -> str:
    """Set several channel variables at once.

    A value with a semicolon, a quote or a backslash is refused: escapes in such a list do not
    work on every switch. Such a one goes by `uuid_setvar`.
    """
    if not variables:
        raise InvalidInput("variables", "none is given")
    parts = []
    for name, text in variables.items():
        if _ASSIGNMENT_SPECIAL.search(value(name, text)):
            raise InvalidInput(name, "has a character that cannot stand in a list of variables")
        parts.append(f"{_variable_name(name)}={text}")
    return f"uuid_setvar_multi {uuid_word(uuid)} {';'.join(parts)}"


def uuid_transfer(uuid: str, extension: str, dialplan: str = "XML", context: str = "") -> str:
    """Send a leg to an extension of the dialplan."""
    words = [uuid_word(uuid), word("extension", extension), word("dialplan", dialplan)]
    return " ".join(["uuid_transfer", *words, *([word("context", context)] if context else ())])


def uuid_transfer_inline(uuid: str, applications: Iterable[tuple[str, str]]) -> str:
    """Send a leg through applications and their arguments, one after the other."""
    parts = []
    for application, argument in applications:
        if "^" in value(application, argument) or "'" in argument:
            raise InvalidInput(application, "has a character that separates applications")
        name = word("application", application)
        parts.append(f"{name}:{argument}" if argument else name)
    if not parts:
        raise InvalidInput("applications", "none is given")
    return f"uuid_transfer {uuid_word(uuid)} 'm:^:{'^'.join(parts)}' inline"


def uuid_broadcast(uuid: str, path: str) -> str:
    """Play a file or a tone to the leg itself."""
    return f"uuid_broadcast {uuid_word(uuid)} {_path(path)} aleg"


def sched_hangup(seconds: int, uuid: str, cause: str = "allotted_timeout") -> str:
    """Hang up later. Of several on one leg the earliest wins; `sched_del` of its uuid undoes all.

    The switch counts whole seconds of its clock: it cuts `seconds` - 1 to + 0.5 s from now.
    """
    return f"sched_hangup +{_later(seconds)} {uuid_word(uuid)} {word('cause', cause)}"


def sched_kill(seconds: int, group: str, uuid: str, cause: str = "ALLOTTED_TIMEOUT") -> str:
    """Hang up later by a task of a group of its own, so that it can be replaced without a gap."""
    return f"sched_api +{_later(seconds)} {word('group', group)} {uuid_kill(uuid, cause)}"


def sched_del(group: str) -> str:
    """Undo all that is scheduled in a group; a leg's uuid is the group of its own tasks."""
    return f"sched_del {word('group', group)}"


def mark_served(owner: str) -> str:
    """Write on the switch itself which process serves it; `SERVED_BY` reads it."""
    return f"global_setvar {_SERVED_BY}={word('owner', owner)}"


_SERVED_BY: Final = "authz_served_by"
SERVED_BY: Final = f"global_getvar {_SERVED_BY}"
CORE_UUID: Final = "global_getvar core_uuid"
SHOW_CHANNELS: Final = "show channels as json"
#: Asks for nothing and changes nothing: answered while the switch lives.
PROBE: Final = "strepoch"


# What a part may hold.


def word(field: str, text: str) -> str:
    """Return a text that is one word to every parser of the switch. Raises InvalidInput."""
    if not _WORD.fullmatch(text):
        raise InvalidInput(field, "is no plain word of 1 to 256 characters")
    return text


def uuid_word(text: str) -> str:
    """Return a text that can be a channel's uuid. Raises InvalidInput."""
    if not _UUID.fullmatch(text):
        raise InvalidInput("uuid", "is no uuid of a channel")
    return text


def value(field: str, text: str) -> str:
    """Return a text that the switch takes as it stands: one line that expands to nothing else."""
    if _EXPANSION.search(_line(field, text)):
        raise InvalidInput(field, "has a ${ or a backslash, which the switch would expand")
    return text


def _line(field: str, text: str) -> str:
    if _CONTROL.search(text):
        raise InvalidInput(field, "has a control character")
    if len(text) > LINE_CHARACTERS_MAX:
        raise InvalidInput(field, f"is longer than {LINE_CHARACTERS_MAX} characters")
    return text


def _variable_name(name: str) -> str:
    if "=" in word("variable", name):
        raise InvalidInput("variable", "has an equals sign in its name")
    return name


def _path(path: str) -> str:
    if not path or " " in value("path", path):
        raise InvalidInput("path", "is empty or has a blank")
    return path


def _later(seconds: int) -> int:
    # `+0`, and a time without `+`, cut the call at once and answer +OK.
    if not 0 < seconds <= SCHEDULE_SECONDS_MAX:
        raise InvalidInput("seconds", f"cannot schedule in {seconds} seconds")
    return seconds


def _send_message(uuid: str, headers: Mapping[str, str]) -> bytes:
    return _command(f"sendmsg {uuid_word(uuid)}" if uuid else "sendmsg", headers)


def _command(line: str, headers: Mapping[str, str] | None = None) -> bytes:
    lines = [line, *(f"{name}: {text}" for name, text in (headers or {}).items())]
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")
