"""What a real FreeSWITCH 1.10.12 said and was told, byte by byte.

`tests/data/freeswitch.tar.xz` holds one file for each recorded scenario; INDEX.txt in it has a line
for each. A file is a heading of `#` lines, then chunks: a line `<direction> <channel> +<seconds>
len=<n>`, n raw bytes and a line end; `>>>` is the recording client, `<<<` FreeSWITCH. Lines that
begin with `###` are notes. Channels: `esl…` and `osock` are event sockets (in and out), `sip-A` and
`sip-B` the caller's and the callee's leg, `http` the web hooks.
"""

from __future__ import annotations

import functools
import re
import tarfile
from pathlib import Path
from typing import NamedTuple

ARCHIVE = Path(__file__).resolve().parents[1] / "data" / "freeswitch.tar.xz"
_CHUNK = re.compile(rb"(>>>|<<<) (\S+) \+([0-9.]+) len=(\d+)")
_NOTE = re.compile(rb"### (?:\+([0-9.]+) )?(.*)")
#: Files of measurements, without traffic.
_NO_TRAFFIC = {"02a_cause_to_sip_table", "08_bench", "08_latency", "INDEX"}


class Chunk(NamedTuple):
    """Bytes that went over one channel at once, `at_seconds` after the recording's begin."""

    from_switch: bool
    channel: str
    at_seconds: float
    data: bytes


class Note(NamedTuple):
    """What the recording client remarked."""

    at_seconds: float
    text: str


class Transcript(NamedTuple):
    """One scenario. `items` are its chunks and notes in order."""

    name: str
    title: str
    items: tuple[Chunk | Note, ...]

    @property
    def chunks(self) -> list[Chunk]:
        """All that was transmitted."""
        return [item for item in self.items if isinstance(item, Chunk)]

    @property
    def event_sockets(self) -> list[str]:
        """The channels of the event socket, in the order in which they were opened."""
        names = dict.fromkeys(chunk.channel for chunk in self.chunks)
        return [name for name in names if name.startswith("esl") or name == "osock"]

    def said(self, channel: str, *, by_switch: bool) -> bytes:
        """Return all that one side said on a channel."""
        return b"".join(
            chunk.data
            for chunk in self.chunks
            if chunk.channel == channel and chunk.from_switch == by_switch
        )

    def was_closed_by_switch(self, channel: str) -> bool:
        """Whether FreeSWITCH closed the channel's connection."""
        text = f"{channel}: TCP connection closed by FreeSWITCH"
        return any(isinstance(item, Note) and item.text == text for item in self.items)


def parse(name: str, data: bytes) -> Transcript:
    """Read a transcript. Raises ValueError at the first thing that is none."""
    items: list[Chunk | Note] = []
    title: list[str] = []
    position = 0
    while position < len(data):
        end = data.index(b"\n", position)
        line = data[position:end]
        position = end + 1
        if chunk := _CHUNK.fullmatch(line):
            length = int(chunk[4])
            body = data[position : position + length]
            position += length
            if data[position : position + 1] != b"\n":
                raise ValueError(f"{name}: the chunk at {chunk[3].decode()} has no end")
            position += 1
            direction = chunk[1] == b"<<<"
            items.append(Chunk(direction, chunk[2].decode(), float(chunk[3]), body))
        elif note := _NOTE.fullmatch(line):
            items.append(Note(float(note[1] or 0), note[2].decode()))
        elif line.startswith(b"#"):
            title.append(line[1:].strip().decode())
        elif line:
            raise ValueError(f"{name}: neither a chunk nor a note: {line[:60]!r}")
    return Transcript(name, " ".join(title), tuple(items))


@functools.cache
def _files() -> dict[str, bytes]:
    with tarfile.open(ARCHIVE) as archive:
        members = {Path(member.name).stem: archive.extractfile(member) for member in archive}
        return {name: file.read() for name, file in members.items() if file is not None}


@functools.cache
def load(prefix: str) -> Transcript:
    """Return the transcript whose name begins with `prefix`, `01c` for one."""
    names = [name for name in names_of_all() if name.startswith(prefix)]
    if len(names) != 1:
        raise LookupError(f"{len(names)} transcripts begin with {prefix!r}")
    return parse(names[0], _files()[names[0]])


def names_of_all() -> list[str]:
    """Return the names of all transcripts with traffic."""
    return sorted(set(_files()) - _NO_TRAFFIC)


def event_socket_names() -> list[str]:
    """Return the names of the transcripts that have traffic of an event socket."""
    return [name for name in names_of_all() if load(name).event_sockets]
