"""Store URLs: what they mean, what is refused and how, and that secrets stay secret."""

from __future__ import annotations

import traceback

import pytest

from authz.errors import ConfigError
from authz.store.url import StoreAddress, TlsOptions, parse_store_url, unix_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://localhost", StoreAddress(host="localhost")),
        ("redis://10.0.0.1:7000/3", StoreAddress(host="10.0.0.1", port=7000, database=3)),
        ("redis://h/?db=4", StoreAddress(host="h", database=4)),
        ("redis://[::1]:7000", StoreAddress(host="::1", port=7000)),
        ("redis://:pw@h", StoreAddress(host="h", password="pw")),
        (
            "redis://us%40er:p%2F%3F%23%40%3A%25w@h:1",
            StoreAddress(host="h", port=1, username="us@er", password="p/?#@:%w"),
        ),
        (
            "redis://h?username=u&password=p%26w",
            StoreAddress(host="h", username="u", password="p&w"),
        ),
        ("rediss://h", StoreAddress(host="h", tls_options=TlsOptions())),
        (
            "rediss://h?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem"
            "&ssl_check_hostname=false",
            StoreAddress(
                host="h",
                tls_options=TlsOptions(
                    ca_file="/ca.pem",
                    certificate_file="/c.pem",
                    key_file="/k.pem",
                    verify_hostname=False,
                ),
            ),
        ),
        (
            "rediss://h?ssl_cert_reqs=none",
            StoreAddress(host="h", tls_options=TlsOptions(verify_certificate=False)),
        ),
        ("unix:///run/store.sock", StoreAddress(socket_path="/run/store.sock")),
        (
            "unix://u:p@/run/a%20b.sock?db=2",
            StoreAddress(socket_path="/run/a b.sock", database=2, username="u", password="p"),
        ),
    ],
)
def test_meaning(url: str, address: StoreAddress) -> None:
    assert parse_store_url(url) == address


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "must start with redis://"),
        ("localhost:6379", "must start with redis://"),
        ("http://h", "must start with redis://"),
        ("redis:/h", "must start with redis://"),
        ("redis://", "host is missing"),
        ("redis://:6379", "host is missing"),
        ("redis://h:port", "port must be a number"),
        ("redis://h:0", "port must be a number"),
        ("redis://h:65536", "port must be a number"),
        ("redis://[::1", "host part cannot be read"),
        ("redis://h/one", "database must be a number"),
        ("redis://h/-1", "database must be a number"),
        ("redis://h/1?db=2", "given twice, as path and as db="),
        ("redis://h?db=1&db=2", "db is given twice"),
        ("redis://h?db=", "db is empty"),
        ("redis://h?db", "name=value pairs"),
        ("redis://h#part", "has a # part"),
        ("redis://h?pasword=x", "did you mean password"),
        ("redis://h?colour=x", "known: db, username, password"),
        ("redis://h?ssl_ca_certs=/ca.pem", "it needs rediss://"),
        ("redis://user@h", "user without a password"),
        ("redis://:a@h?password=b", "password is given twice"),
        ("redis://u:a@h?username=b", "username is given twice"),
        ("rediss://h?ssl_keyfile=/k.pem", "ssl_keyfile needs ssl_certfile"),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs must be"),
        ("rediss://h?ssl_check_hostname=1", "ssl_check_hostname must be"),
        ("unix://run/store.sock", "three slashes"),
        ("unix:///", "path is missing"),
        ("unix:///" + "x" * 107, "has 108 bytes"),
    ],
)
def test_refused_with_what_is_wrong(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=r"^store\.url: ") as caught:
        parse_store_url(url)
    assert problem in str(caught.value)


@pytest.mark.parametrize("separator", ["/", "?", "#", "[", "]", "[]", "%", "&", "=", ":", "@", " "])
@pytest.mark.parametrize("start", ["sesame", "12"])
@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix"])
def test_password_that_is_not_encoded_is_never_told(
    scheme: str, start: str, separator: str
) -> None:
    url = f"{scheme}://user:{start}{separator}wonder@host/x"
    with pytest.raises(ConfigError) as caught:
        parse_store_url(url)
    told = "".join(traceback.format_exception(caught.value))
    assert "wonder" not in told
    assert "sesame" not in told


def test_password_is_not_shown() -> None:
    address = parse_store_url("rediss://user:sesame@h:7000/3")
    assert "sesame" not in repr(address)
    assert address.display == "rediss://h:7000/3"
    assert parse_store_url("unix://u:sesame@/run/s?db=1").display == "unix:///run/s?db=1"
    assert parse_store_url("redis://[::1]:1").display == "redis://[::1]:1"


def test_tls_files_that_do_not_exist_are_named() -> None:
    for option in ("ssl_ca_certs=/no/ca.pem", "ssl_certfile=/no/own.pem&ssl_keyfile=/no/key.pem"):
        with pytest.raises(ConfigError, match="/no/"):
            parse_store_url(f"rediss://h?{option}").ssl_context()
    assert parse_store_url("redis://h").ssl_context() is None


def test_path_of_a_socket_survives_its_url() -> None:
    path = "/run/a b%c?d#e/é.sock"
    assert parse_store_url(unix_url(path)).socket_path == path
