"""What the commands about events share: the service on the archive that their session opens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from authz.admin.services import Services
from authz.cli.lazy_archive import LazyArchive
from authz.errors import InvariantError
from authz.validation import invalid_input

if TYPE_CHECKING:
    from authz.events.service import EventService

T = TypeVar("T", bound=msgspec.Struct)


async def event_service(services: Services) -> EventService:
    """Return the service; raises ArchiveUnavailable where no archive is."""
    # Its database's library takes longer to import than most commands to run.
    from authz.events.service import EventService

    if not isinstance(services.archive, LazyArchive):
        raise InvariantError("the session of a command opens its archive when it is asked")
    archive = await services.archive.opened()
    return EventService(lambda: archive.database, services.webhooks)


def checked(words: Mapping[str, Any], kind: type[T]) -> T:
    """Return what the options of a command say; raises InvalidInput naming one that is wrong."""
    try:
        return msgspec.convert(
            {name: word for name, word in words.items() if word is not None}, kind
        )
    except msgspec.ValidationError as error:
        raise invalid_input(error) from None
