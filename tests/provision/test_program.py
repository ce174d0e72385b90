"""The configuration that supervisord reads for a program."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

from provision.resource import Write
from provision.resources.file import TextFile
from provision.resources.program import Program
from tests.provision.plans import PHASE1, as_on_a_host
from tests.topology.golden import compare

GOLDEN = Path(__file__).parent / "golden"


def written(program: Program) -> Write:
    step = program.say(PHASE1)[0]
    assert isinstance(step, Write)
    return step


def settings(program: Program) -> dict[str, str]:
    """The settings as supervisord reads them: its options are interpolated as Python's configparser does."""
    parser = ConfigParser(inline_comment_prefixes=(";", " #"), interpolation=None)
    parser.read_string(written(program).text)
    return dict(parser[f"program:{program.name}"])


def test_configuration() -> None:
    program = Program(
        "gateway-1",
        "gateway-1",
        "shop",
        ("python3", "-m", "services.gateway", "--words", "two words"),
        environment=(("PORT", "3000"), ("PRODUCT_URL", "http://product:5000")),
        directory="/vagrant",
        inputs=(TextFile(Path("/a"), "one"), TextFile(Path("/b"), "two")),
        stop_signal="QUIT",
        stop_wait=7,
    )
    assert written(program).path == "/etc/supervisor/conf.d/gateway-1.conf"
    compare(GOLDEN / "program.conf", as_on_a_host(written(program).text))


def test_program_of_the_host_itself_needs_no_other_program() -> None:
    assert settings(Program("dns", None, "root", ("dnsmasq", "--keep")))["command"] == "dnsmasq --keep"


def test_program_without_environment_has_no_such_line() -> None:
    assert "environment" not in settings(Program("dns", None, "root", ("dnsmasq",)))


def test_percent_is_doubled_where_supervisord_replaces_words() -> None:
    program = Program("a-1", None, "root", ("date", "+%H:%M"), environment=(("FORMAT", "100%"),))
    seen = settings(program)
    assert seen["command"] % {} == "date +%H:%M"
    assert seen["environment"] % {} == 'FORMAT="100%"'


def test_changed_inputs_change_the_configuration() -> None:
    texts = [
        written(Program("a-1", None, "root", ("a",), inputs=tuple(TextFile(Path("/a"), text) for text in inputs))).text
        for inputs in ((), ("x",), ("y",), ("x", "y"), ("xy",))
    ]
    assert len(set(texts)) == len(texts)


def test_programs_are_started_by_us_and_again_when_they_die() -> None:
    seen = settings(Program("a-1", None, "root", ("a",)))
    assert seen["autostart"] == "false"
    assert seen["autorestart"] == "true"
