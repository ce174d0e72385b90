"""Settings: every mistake at once, and exit code 2."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.applications import Starlette

from services.common import logs
from services.common.serve import config
from services.common.settings import ServerSettings, SettingsError
from services.gateway.settings import Settings as GatewaySettings
from services.order.settings import Settings as OrderSettings
from services.product.settings import Settings as ProductSettings

ROOT = Path(__file__).parents[2]
SERVER = {"BIND_ADDRESS": "127.0.0.1", "PORT": "5000", "REPLICA": "product-1"}
REDIS = {"REDIS_HOST": "redis", "REDIS_PORT": "6379"}


@pytest.fixture
def database(tmp_path: Path) -> dict[str, str]:
    secret = tmp_path / "password"
    secret.write_text("hidden\n")
    return {
        "DATABASE_HOST": "postgres",
        "DATABASE_PORT": "5432",
        "DATABASE_NAME": "shop",
        "DATABASE_USER": "product",
        "DATABASE_PASSWORD_FILE": str(secret),
        "DATABASE_CONNECT_TIMEOUT": "2",
        "DATABASE_WAIT_TIMEOUT": "2",
        "DATABASE_STATEMENT_TIMEOUT": "2",
    }


def test_good_settings(database: dict[str, str]) -> None:
    settings = ProductSettings.read({**SERVER, **REDIS, **database, "CACHE_TTL": "60"})
    assert settings.server == ServerSettings("127.0.0.1", 5000, "product-1", 10, "info")
    assert settings.cache is not None
    assert (settings.cache.ttl, settings.cache.backoff) == (60, 2)
    assert ProductSettings.read({**SERVER, **database}).cache is None
    assert settings.database.password == "hidden"
    assert "hidden" not in repr(settings)
    assert OrderSettings.read({**SERVER, **database}).database == settings.database


def test_all_mistakes_are_told_at_once(database: dict[str, str], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    wrong = {
        **database,
        "BIND_ADDRESS": "localhost",
        "PORT": "65536",
        "GRACEFUL_TIMEOUT": "\u0663",
        "LOG_LEVEL": "loud",
        "DATABASE_PASSWORD_FILE": str(empty),
        "REDIS_TIMEOUT": "-1",
        "REDIS_BACKOFF": "nan",
        "REDIS_PORT": "9" * 5000,
        "CACHE_TTL": "soon",
    }
    with pytest.raises(SettingsError) as caught:
        ProductSettings.read(wrong)
    assert [mistake.split(":")[0] for mistake in caught.value.mistakes] == [
        "BIND_ADDRESS",
        "PORT",
        "GRACEFUL_TIMEOUT",
        "LOG_LEVEL",
        "DATABASE_PASSWORD_FILE",
        "REDIS_HOST",
        "REDIS_PORT",
        "REDIS_TIMEOUT",
        "REDIS_BACKOFF",
        "CACHE_TTL",
    ]
    assert caught.value.mistakes[1] == "PORT: expected a whole number from 1 to 65535, seen '65536'"


@pytest.mark.parametrize("url", ["product", "https://product:5000", "http://product", "http://p:5/x", "http://p:x"])
def test_an_upstream_needs_a_name_and_a_port(url: str) -> None:
    with pytest.raises(SettingsError, match="PRODUCT_URL: expected http://NAME:PORT"):
        GatewaySettings.read({**SERVER, "PRODUCT_URL": url, "ORDER_URL": "http://order:5000"})


@pytest.mark.parametrize("service", ["gateway", "product", "order"])
def test_a_service_with_wrong_settings_ends_with_2_and_no_traceback(service: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"services.{service}"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2
    assert f"{service}: BIND_ADDRESS: it is not set; set it in the environment\n" in done.stderr
    assert f"{service}: PORT: it is not set; set it in the environment\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_log_line_is_json_with_the_request() -> None:
    record = logging.makeLogRecord({"name": "x", "levelno": 20, "levelname": "INFO", "msg": "a\nb", "status": 200})
    token = logs.request_id.set("r-1")
    line = logs.JsonFormatter("product", "product-1").format(record)
    logs.request_id.reset(token)
    assert "\n" not in line
    told = json.loads(line)
    assert (told["message"], told["request_id"], told["status"]) == ("a\nb", "r-1", 200)
    assert (told["service"], told["replica"], told["level"]) == ("product", "product-1", "info")


def test_a_service_keeps_idle_connections_longer_than_the_edge_does() -> None:
    """Who closes first never sends on a connection that is just being closed."""
    template = (ROOT / "services" / "edge" / "nginx.conf.template").read_text(encoding="utf-8")
    upstream = template[template.index("upstream gateways {") :]
    found = re.search(r"keepalive_timeout (\d+)s;", upstream)
    assert found is not None
    settings = ServerSettings("127.0.0.1", 5000, "product-1", 10, "info")
    assert config(settings, Starlette()).timeout_keep_alive > int(found[1])


def test_an_address_that_is_taken_is_told_and_ends_with_3(database: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "services.order"],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], **SERVER, **database, "PORT": port},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("order: cannot listen on 127.0.0.1: ")
    assert "Traceback" not in done.stderr


def test_lines_that_nobody_takes_are_told_of_once_and_do_not_keep_the_loop_busy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Broken(io.StringIO):
        flushes = 0

        def flush(self) -> None:
            self.flushes += 1
            raise BrokenPipeError

    async def serve(stream: Broken) -> None:
        handler = logs.Handler(stream)
        for _ in range(3):
            handler.emit(logging.makeLogRecord({"msg": "a line"}))
            turned = asyncio.Event()
            asyncio.get_running_loop().call_soon(turned.set)
            await turned.wait()

    stream = Broken()
    asyncio.run(serve(stream))
    assert stream.flushes == 3
    assert capsys.readouterr().err.count("Logging error") == 1


def test_what_one_turn_of_the_loop_logs_is_written_at_once_and_nothing_is_kept_back() -> None:
    class Collector(io.StringIO):
        flushes = 0

        def flush(self) -> None:
            self.flushes += 1

    async def serve(handler: logs.Handler) -> list[int]:
        for _ in range(10):
            handler.emit(logging.makeLogRecord({"msg": "a line"}))
        before = collector.flushes
        turned = asyncio.Event()
        asyncio.get_running_loop().call_soon(turned.set)
        await turned.wait()
        return [before, collector.flushes]

    collector = Collector()
    handler = logs.Handler(collector)
    assert asyncio.run(serve(handler)) == [0, 1]
    assert collector.getvalue() == "a line\n" * 10
    handler.emit(logging.makeLogRecord({"msg": "outside"}))
    assert collector.flushes == 2
