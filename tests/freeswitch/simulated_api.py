"""The api commands of a simulated switch, each answering as recorded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from freeswitch.legs import Leg, known_cause
from freeswitch.socket_session import encoded, json_of
from freeswitch.templates import ANSWERED, EARLY_MEDIA, PARKED, RINGING

if TYPE_CHECKING:
    from freeswitch.switch_simulator import SwitchSimulator

_OK = "+OK\n"
_GONE = "-ERR No such channel!\n"
_SCHEDULE_USAGE = "-USAGE: [+]<time> <uuid> [<cause>]\n"
_TRANSFER_USAGE = "-USAGE: <uuid> [-bleg|-both] <dest-exten> [<dialplan>] [<context>]\n"
#: The event by which a leg came to its phase, whose headers a dump then has.
_LAST_EVENT = {
    PARKED: "CHANNEL_PARK",
    RINGING: "CHANNEL_PROGRESS",
    EARLY_MEDIA: "CHANNEL_PROGRESS_MEDIA",
    ANSWERED: "CHANNEL_ANSWER",
}


class SimulatedApi:
    """Runs api commands on the switch. What a command does to a leg happens after its answer."""

    def __init__(self, switch: SwitchSimulator) -> None:
        self._switch = switch
        self._commands: dict[str, Callable[[str], str]] = {
            "uuid_kill": self._kill,
            "uuid_exists": lambda rest: str(self._leg(rest) is not None).lower(),
            "uuid_dump": self._dump,
            "uuid_getvar": self._get_variable,
            "uuid_setvar": self._set_variable,
            "uuid_setvar_multi": self._set_variables,
            "uuid_transfer": self._transfer,
            "uuid_broadcast": self._broadcast,
            "sched_hangup": self._schedule_hangup,
            "sched_api": self._schedule_api,
            "sched_broadcast": self._schedule_broadcast,
            "sched_del": self._delete_group,
            "unsched_api": self._delete_task,
            "show": self._show,
            "global_getvar": self._get_global,
            "global_setvar": self._set_global,
            "eval": lambda rest: rest.replace("${Core-UUID}", switch.core_uuid),
            "strepoch": lambda rest: str(switch.clock.now_us() // 1_000_000),
            "strmicroepoch": lambda rest: str(switch.clock.now_us()),
            "hupall": self._hang_up_all,
            "shutdown": self._shut_down,
        }
        self._globals: dict[str, str] = {}
        #: Every command that was run, for tests to look at.
        self.log: list[str] = []
        #: What to answer to a line, or to every one, instead of the truth.
        self.answers: dict[str, str] = {}
        self.answer_to_all: str | None = None
        #: Is told of each command before it is run.
        self.on_command: Callable[[str], None] | None = None

    def run(self, line: str) -> str:
        """Run a command and return its answer."""
        self.log.append(line)
        if self.on_command is not None:
            self.on_command(line)
        told = self.answers.get(line, self.answer_to_all)
        if told is not None:
            return told
        name, _, rest = line.partition(" ")
        command = self._commands.get(name)
        return f"-ERR {name} Command not found!\n" if command is None else command(rest)

    def _leg(self, uuid: str) -> Leg | None:
        return self._switch.legs.get(uuid)

    def _kill(self, rest: str) -> str:
        uuid, _, cause = rest.partition(" ")
        leg = self._leg(uuid)
        if leg is None:
            return _GONE
        self._switch.soon(
            lambda: self._switch.hang_up(leg, known_cause(cause or "NORMAL_CLEARING"))
        )
        return _OK

    def _dump(self, rest: str) -> str:
        uuid, _, form = rest.partition(" ")
        leg = self._leg(uuid)
        if leg is None:
            return _GONE
        is_bridged = leg.is_caller and leg.bridged_us > 0 and leg.other is not None
        template = "CHANNEL_BRIDGE" if is_bridged else _LAST_EVENT[leg.phase]
        headers = leg.headers("CHANNEL_DATA", template) | self._switch.moment()
        if form == "json":
            return json_of(headers).decode()
        return "".join(f"{name}: {encoded(str(value))}\n" for name, value in headers.items()) + "\n"

    def _get_variable(self, rest: str) -> str:
        uuid, _, name = rest.partition(" ")
        leg = self._leg(uuid)
        if leg is None:
            return _GONE
        value = leg.variables.get(name, "_undef_")
        return value if isinstance(value, str) else "ARRAY::" + "|:".join(value)

    def _set_variable(self, rest: str) -> str:
        uuid, _, assignment = rest.partition(" ")
        leg = self._leg(uuid)
        if leg is None:
            return _GONE
        name, _, value = assignment.partition(" ")
        self._assign(leg, name, value)
        return _OK

    def _set_variables(self, rest: str) -> str:
        uuid, _, assignments = rest.partition(" ")
        leg = self._leg(uuid)
        if leg is None:
            return _GONE
        for assignment in assignments.split(";"):
            name, _, value = assignment.partition("=")
            self._assign(leg, name, value)
        return _OK

    def _get_global(self, rest: str) -> str:
        return self._switch.core_uuid if rest == "core_uuid" else self._globals.get(rest, "")

    def _set_global(self, rest: str) -> str:
        name, _, value = rest.partition("=")
        self._globals[name] = value
        return _OK

    def _assign(self, leg: Leg, name: str, value: str) -> None:
        if value:
            leg.variables[name] = value
        else:
            leg.variables.pop(name, None)

    def _transfer(self, rest: str) -> str:
        inline = re.fullmatch(r"(\S+) (.+) inline", rest)
        words = [inline[1], inline[2]] if inline else rest.split(" ")
        if len(words) < 2:
            return _TRANSFER_USAGE
        leg = self._leg(words[0])
        if leg is None:
            return _GONE
        switch = self._switch
        if inline:
            applications = parse_inline(inline[2])
            switch.soon(lambda: leg.is_up and switch.run_applications(leg, applications))
        else:
            context = words[3] if len(words) > 3 else ""
            switch.soon(lambda: leg.is_up and switch.route(leg, words[1], context))
        return _OK

    def _broadcast(self, rest: str) -> str:
        uuid, _, path = rest.partition(" ")
        leg = self._leg(uuid)
        if leg is None:
            return _GONE
        application, separator, argument = path.partition(" ")[0].partition("::")
        if separator:
            self._switch.soon(lambda: self._switch.execute(leg, application, argument))
        return "+OK Message sent\n"

    def _schedule_hangup(self, rest: str) -> str:
        time, _, words = rest.partition(" ")
        uuid, _, cause = words.partition(" ")
        if not time or not uuid:
            return _SCHEDULE_USAGE
        leg = self._leg(uuid)
        if leg is None:
            return _GONE
        cause = known_cause(cause or "ALLOTTED_TIMEOUT")
        self._switch.scheduler.add(
            self._due(time),
            uuid,
            "switch_ivr_schedule_hangup",
            lambda: self._switch.hang_up(leg, cause),
        )
        return _OK

    def _schedule_api(self, rest: str) -> str:
        time, group, line = rest.split(" ", 2)
        number = self._switch.scheduler.add(
            self._due(time), group, "sched_api_function", lambda: self._run_quietly(line)
        )
        return f"+OK Added: {number}\n"

    def _schedule_broadcast(self, rest: str) -> str:
        time, uuid, path = rest.split(" ", 2)
        if self._leg(uuid) is None:
            return _GONE
        self._switch.scheduler.add(
            self._due(time),
            uuid,
            "switch_ivr_schedule_broadcast",
            lambda: self._run_quietly(f"uuid_broadcast {uuid} {path}"),
        )
        return "+OK Message scheduled\n"

    def _run_quietly(self, line: str) -> None:
        self.run(line)

    def _due(self, time: str) -> int:
        now = self._switch.clock.now_us() // 1_000_000
        # Without a plus it is a moment, and one long past.
        return now + int(time[1:]) if time.startswith("+") else int(time)

    def _delete_group(self, rest: str) -> str:
        return f"+OK Deleted: {self._switch.scheduler.delete_group(rest)}\n"

    def _delete_task(self, rest: str) -> str:
        self._switch.scheduler.delete(int(rest))
        return _OK

    def _show(self, rest: str) -> str:
        if rest == "channels as json":
            rows = [leg.row("fs-sim") for leg in self._switch.legs.values()]
            if not rows:
                return '{"row_count": 0}\n'
            return json.dumps({"row_count": len(rows), "rows": rows}, separators=(",", ":"))
        if rest == "tasks as json":
            return self._show_tasks()
        if rest == "channels count":
            return f"\n{len(self._switch.legs)} total.\n"
        return "-USAGE: codec|endpoint|...|channels [count|like <match string>]\n"

    def _show_tasks(self) -> str:
        tasks = self._switch.scheduler.tasks
        if not tasks:
            return '{"row_count":0}\n'
        rows = [
            {
                "task_id": str(task.number),
                "task_desc": task.description,
                "task_group": task.group,
                "task_runtime": str(task.due),
                "task_sql_manager": "0",
                "hostname": "vm",
            }
            for task in tasks
        ]
        return json.dumps({"row_count": len(rows), "rows": rows}, separators=(",", ":"))

    def _hang_up_all(self, rest: str) -> str:
        for leg in [leg for leg in self._switch.legs.values() if leg.is_caller]:
            self._switch.hang_up(leg, known_cause(rest or "MANAGER_REQUEST"))
        return "+OK hangup all channels\n"

    def _shut_down(self, rest: str) -> str:
        self._switch.spawn(self._switch.shut_down())
        return _OK


def parse_inline(text: str) -> list[tuple[str, str]]:
    """Return the applications of an inline dialplan, `'m:^:answer^respond:402 No'` for one."""
    if text.startswith("'m:"):
        separator = text[3]
        parts = text[5:].removesuffix("'").split(separator)
    else:
        parts = text.split(",")
    pairs = [part.partition(":") for part in parts]
    return [(name, argument.strip("'")) for name, _, argument in pairs]
