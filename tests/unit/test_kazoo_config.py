"""Settings of the Kazoo agent: what is refused, and what queues and zones follow from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from authz.config import load_settings
from authz.config.broker_url import BrokerUrl, parse_broker_url
from authz.config.kazoo import BrokerSettings, KazooSettings
from authz.errors import ConfigError
from authz.hooks.kazoo.topology import KAZOO_ARGUMENTS, ROUTES, Source, queue_plan

URL = "amqp://authz:secret@rabbit.example.net/kazoo"


def load(directory: Path, text: str) -> KazooSettings:
    path = directory / "authz.toml"
    path.write_text(f"[kazoo]\n{text}\n", encoding="utf-8")
    return load_settings(path, {"STATE_DIRECTORY": str(directory)}).kazoo


def test_without_a_broker_there_is_nothing_to_do(tmp_path: Path) -> None:
    assert not load(tmp_path, "").is_used
    assert load(tmp_path, f'brokers = [{{ url = "{URL}" }}]').is_used


def test_whoever_starts_decides_nothing_yet(tmp_path: Path) -> None:
    assert load(tmp_path, f'brokers = [{{ url = "{URL}" }}]').mode == "shadow"


def test_brokers_of_one_zone_are_alternatives(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        'brokers = [{ url = "amqp://a", zone = "west" }, { url = "amqp://b", zone = "east" },'
        ' { url = "amqp://c", zone = "west" }]',
    )
    assert settings.zones == {"west": ("amqp://a", "amqp://c"), "east": ("amqp://b",)}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('brokers = [{ url = "http://x" }]', "broker 1: url does not start with amqp://"),
        ('brokers = [{ url = "amqp://" }]', "broker 1: url does not start with amqp://"),
        ('brokers = [{ url = "amqp://x:y" }]', "broker 1: url: Port"),
        ('brokers = [{ url = "amqp://x" }, { url = "" }]', "broker 2"),
        ('brokers = [{ zone = "x" }]', "url"),
        ('brokers = [{ url = "amqp://x", zone = "a b" }]', "zone"),
        ('rate_queue = "jonny5_listener"', "two of its queues are called jonny5_listener"),
        ('request_queue = ""', "request_queue"),
        ('mode = "passive"', "mode"),
        ("deciding_max = 0", "deciding_max"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert complaint in str(caught.value)
    assert "secret" not in str(caught.value)


def test_shared_queues_are_jonny5s_to_the_letter() -> None:
    settings = KazooSettings(brokers=(BrokerSettings(url=URL),), mode="active", deciding_max=7)
    plan = queue_plan(Source.REQUESTS, settings)
    assert plan == ("jonny5_listener", KAZOO_ARGUMENTS, 7, False, True)
    assert queue_plan(Source.RATES, settings)[:2] == ("hotornot_listener", KAZOO_ARGUMENTS)
    assert KAZOO_ARGUMENTS == {"x-max-length": 100, "x-message-ttl": 60_000}


def test_the_queue_of_hangups_outlives_our_processes_and_the_broker() -> None:
    settings = KazooSettings(brokers=(BrokerSettings(url=URL),), mode="active")
    plan = queue_plan(Source.HANGUPS, settings)
    assert plan.is_durable
    assert not plan.is_auto_delete
    assert plan.arguments["x-message-ttl"] == plan.arguments["x-expires"] == 86_400_000


@pytest.mark.parametrize("source", Source)
def test_shadow_mode_has_no_queue_that_others_know(source: Source) -> None:
    plan = queue_plan(source, KazooSettings(brokers=(BrokerSettings(url=URL),)))
    assert plan.name == ""
    assert plan.is_auto_delete


def test_every_message_is_of_the_kind_that_its_route_says() -> None:
    for (_, category, name), route in ROUTES.items():
        kind = route.body.kind
        assert kind in ((category, name), ("call_event", ""))


def test_calls_must_be_seen_to_live_within_half_a_chunk(tmp_path: Path) -> None:
    used = f'brokers = [{{ url = "{URL}" }}]\nquery_seconds = 5\n[calls]\nchunk_seconds = '
    assert load(tmp_path, f"{used}11").query_seconds == 5
    with pytest.raises(ConfigError, match="query_seconds: 5 must be below half"):
        load(tmp_path, f"{used}10")


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("amqps://u:secret@h?cafile=/ca.pem", "'cafile' is none of its options"),
        ("amqp://u:secret@h?cacertfile=/ca.pem", "cacertfile needs amqps://"),
        ("amqp://u:secret@h?verify=verify_none", "verify needs amqps://"),
        ("amqps://u:secret@h?keyfile=/own.key", "keyfile needs certfile"),
        ("amqps://u:secret@h?verify=no", "verify must be one of verify_peer, verify_none"),
        ("amqps://u:secret@h?cacertfile=", "cacertfile is given twice or is empty"),
        ("amqp://u:secret@h?heartbeat=1&heartbeat=2", "heartbeat is given twice"),
        ("amqp://u:secret@h?heartbeat=0", "heartbeat must be from 1 to 600"),
        ("amqp://u:secret@h?heartbeat=-5", "heartbeat must be from 1 to 600"),
    ],
)
def test_options_of_a_url_that_cannot_work_are_refused(
    tmp_path: Path, url: str, complaint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f'brokers = [{{ url = "{url}" }}]')
    assert f"broker 1: url: {complaint}" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_options_of_a_url() -> None:
    url = parse_broker_url(
        "amqps://u:p%40@h:5671/%2F?cacertfile=/ca.pem&certfile=/own.pem&keyfile=/own.key"
        "&verify=verify_none&heartbeat=30"
    )
    assert url == BrokerUrl(
        address="amqps://u:p%40@h:5671/%2F",
        is_encrypted=True,
        ca_file="/ca.pem",
        certificate_file="/own.pem",
        key_file="/own.key",
        is_verified=False,
        heartbeat_seconds=30,
    )
    assert parse_broker_url("amqp://h") == BrokerUrl(address="amqp://h", is_encrypted=False)
