"""Events: one line each, no secrets, no full numbers."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from authz import log
from authz.errors import ConfigError


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level, log.LOGGER.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    log.LOGGER.setLevel(before[2])
    logging.captureWarnings(False)


def configured(**changes: Any) -> io.StringIO:
    stream = io.StringIO()
    options: dict[str, Any] = {"level": "info", "format": "auto", "mask_numbers": True}
    log.configure(**{**options, **changes}, process="worker-1", stream=stream)
    return stream


def test_an_event_is_one_json_object_with_its_facts() -> None:
    stream = configured()
    log.event("call_denied", account="acme", seconds=None, listeners={"hook": "x"})
    line = json.loads(stream.getvalue())
    assert line.items() >= {
        "event": "call_denied", "level": "info", "process": "worker-1", "account": "acme",
        "seconds": None, "listeners": {"hook": "x"},
    }.items()  # fmt: skip
    assert line["time"].endswith("Z")
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("field", ["to", "from", "number", "rate_number", "caller"])
def test_numbers_are_masked_unless_asked_for(field: str) -> None:
    stream = configured()
    log.event("x", **{field: "+14155550100"})
    assert json.loads(stream.getvalue())[field] == "+1415555****"
    stream = configured(mask_numbers=False)
    log.event("x", **{field: "+14155550100"})
    assert json.loads(stream.getvalue())[field] == "+14155550100"


def test_service_codes_identify_nobody() -> None:
    assert [log.mask_number(one) for one in ("911", "*72", "116117")] == ["911", "*72", "116117"]


def test_secrets_are_never_written() -> None:
    stream = configured(mask_numbers=False)
    log.event("x", token="geheim", url="redis://me:geheim@host/0", other=["a"])
    assert "geheim" not in stream.getvalue()
    assert json.loads(stream.getvalue())["url"] == "redis://***@host/0"


def test_what_a_peer_has_sent_makes_no_line_without_end() -> None:
    stream = configured()
    flood = "x" * 3_000_000
    log.event("a", account=flood, reason=ValueError(flood), error=ValueError(flood))
    line = json.loads(stream.getvalue())
    assert len(stream.getvalue()) < 30_000
    assert line["account"] == "x" * 2_000 + "… (3000000 characters)"
    assert line["reason"] == line["account"]


def test_text_cannot_be_forged_by_a_value() -> None:
    stream = configured(format="text")
    log.event("x", account="a b", detail="line\nlevel=error \x1b[31m", empty="")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    assert "account='a b'" in stream.getvalue()


def test_the_level_decides_what_is_written() -> None:
    stream = configured(level="warning")
    log.event("quiet")
    log.event("loud", level="warning")
    assert json.loads(stream.getvalue())["event"] == "loud"


def test_an_expected_error_has_no_traceback_and_an_unexpected_one_has() -> None:
    stream = configured()
    log.event("x", level="error", error=ConfigError("hook.token: no"))
    line = json.loads(stream.getvalue())
    assert line["error"] == "ConfigError: hook.token: no"
    assert "traceback" not in line
    try:
        raise KeyError("k")
    except KeyError as error:
        log.event("y", level="error", error=error)
    assert "raise KeyError" in json.loads(stream.getvalue().splitlines()[1])["traceback"]


def test_records_of_other_packages_come_in_the_same_form() -> None:
    stream = configured()
    logging.getLogger("aiohttp.server").warning("odd %s", "thing")
    line = json.loads(stream.getvalue())
    assert (line["event"], line["logger"], line["message"]) == (
        "log",
        "aiohttp.server",
        "odd thing",
    )


def test_warnings_of_the_interpreter_come_in_the_same_form() -> None:
    stream = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "old" in json.loads(stream.getvalue())["message"]
