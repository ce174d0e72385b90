"""The database: who is let in, as whom and from where, and what each role may do: what its service needs, no more."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

import pytest

from acceptance.modules import LabHost
from acceptance.suite.cases import WITH_PASSWORD
from acceptance.suite.shop import Shop
from acceptance.suite.stage import Seat, Stage
from underlay.process import Completed
from underlay.topology import Program

#: psql(1), by what a service is told of its database, as its process has it. The words: the process, the password
#: (empty: none; "own": that of the service), and a role and a database instead of its own.
_LOGIN = r"""
eval "$(tr '\0' '\n' <"/proc/$1/environ" | sed -n "s/^\(DATABASE_[A-Z_]*\)=\(.*\)$/\1='\2'/p")"
if [ "$2" = own ]; then PGPASSWORD=$(cat "$DATABASE_PASSWORD_FILE"); else PGPASSWORD=$2; fi
test -z "$PGPASSWORD" || export PGPASSWORD
exec psql --no-psqlrc -wqtA -h "$DATABASE_HOST" -p "$DATABASE_PORT" -U "${3:-$DATABASE_USER}" -d "${4:-$DATABASE_NAME}"
"""
_OWN = "own"
#: What the database says of who is not let in: by pg_hba.conf, and by the password.
_NO_ENTRY, _WRONG, _NONE = "no pg_hba.conf entry", "password authentication failed", "no password supplied"

#: The roles of services are called like their programs.
_ROLES = frozenset(program.value for program in WITH_PASSWORD)
_PRIVILEGED = "(rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)"
#: Statements, and which programs' roles may have them succeed. Each is undone.
_STATEMENTS: Mapping[str, frozenset[Program]] = {
    "SELECT id, name, price, stock FROM products": frozenset({Program.PRODUCT, Program.ORDER}),
    "UPDATE products SET stock = stock": frozenset({Program.ORDER}),
    "UPDATE products SET price = price": frozenset(),
    "UPDATE products SET name = name": frozenset(),
    "INSERT INTO products VALUES (2000000000, 'none', 1, 1)": frozenset(),
    "DELETE FROM products": frozenset(),
    "TRUNCATE products CASCADE": frozenset(),
    "SELECT * FROM orders": frozenset({Program.ORDER}),
    "INSERT INTO orders (customer_id, product_id, quantity, unit_price, total_price) "
    "SELECT 1, id, 1, price, price FROM products LIMIT 1": frozenset({Program.ORDER}),
    "UPDATE orders SET quantity = quantity": frozenset(),
    "DELETE FROM orders": frozenset(),
    "TRUNCATE orders": frozenset(),
    "ALTER TABLE products ADD COLUMN more integer": frozenset(),
    "DROP TABLE orders": frozenset(),
    "CREATE TABLE another (id integer)": frozenset(),
    "CREATE TEMPORARY TABLE another (id integer)": frozenset(),
    "CREATE SCHEMA another": frozenset(),
    "CREATE ROLE another": frozenset(),
    "SELECT rolpassword FROM pg_authid": frozenset(),
    "SELECT pg_read_file('postgresql.conf')": frozenset(),
    "COPY products TO PROGRAM 'cat'": frozenset(),
}
#: PostgreSQL's documentation, appendix A: successful_completion, insufficient_privilege.
_DONE, _DENIED = "00000", "42501"

#: Logs a service in: with a password, as a role and to a database (empty: its own), and has it say statements.
Login = Callable[..., Completed]


@pytest.fixture
def login(stage: Stage, database_user: Seat) -> Login:
    """Return the way of one service to its database."""
    host, enter = stage.machine(database_user), stage.enter(database_user)
    pid = str(LabHost(host, stage.plan).namespace(database_user.space).processes[0])

    def log_in(password: str, role: str = "", database: str = "", say: str = "SELECT 1;") -> Completed:
        words = [*enter, "sh", "-c", _LOGIN, "sh", pid, password, role, database]
        return host.run(words, check=False, stdin=say)

    return log_in


def test_service_is_let_in_as_itself_with_its_password_alone(login: Login, database_user: Seat) -> None:
    name, own = database_user.name, database_user.service.program.value
    other = next(role for role in _ROLES if role != own)
    good = login(_OWN)
    assert (good.ok, good.stdout.strip()) == (True, "1"), f"{name}: expected: it is let in; seen: {good}"
    question = f"SELECT {_PRIVILEGED} FROM pg_roles WHERE rolname = current_user;"  # noqa: S608 - ours
    privileged = login(_OWN, say=question).stdout.strip()
    assert privileged == "f", f"{name}: expected: a role without privileges; seen: {privileged}"
    refused = {
        "without a password": (login(""), _NONE),
        "with a wrong password": (login(secrets.token_hex()), _WRONG),
        f"as {other}": (login(_OWN, other), _NO_ENTRY),
        "as postgres": (login(_OWN, "postgres"), _NO_ENTRY),
        "to the database postgres": (login(_OWN, "", "postgres"), _NO_ENTRY),
    }
    for way, (done, why) in refused.items():
        assert not done.ok, f"{name}: {way}: expected: refused; seen: let in"
        assert why in done.stderr, f"{name}: {way}: expected: refused, {why}; seen: {done.stderr.strip()}"


def test_role_may_do_what_its_service_needs_and_no_more(login: Login, database_user: Seat) -> None:
    name, program = database_user.name, database_user.service.program
    lines = [
        f"BEGIN;\n\\o /dev/null\n{statement};\n\\o\n\\echo {number} :SQLSTATE\nROLLBACK;"
        for number, statement in enumerate(_STATEMENTS)
    ]
    said = login(_OWN, say="\n".join(lines) + "\n")
    assert said.ok, f"{name}: expected: it is let in; seen: {said}"
    states = dict(line.split() for line in said.stdout.splitlines())
    for number, (statement, allowed) in enumerate(_STATEMENTS.items()):
        wanted, seen = _DONE if program in allowed else _DENIED, states.get(str(number))
        assert seen == wanted, f"{name}: {statement}: expected: SQLSTATE {wanted}; seen: {seen}: {said.stderr[-2000:]}"


def test_no_role_but_the_superuser_has_a_privilege(shop: Shop) -> None:
    if shop.database() is None:
        pytest.skip("the plan has no database")
    privileged = shop.query(
        f"SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles WHERE {_PRIVILEGED}"  # noqa: S608 - ours
    )
    assert privileged == "postgres", f"expected: postgres alone has privileges; seen: {privileged}"
    roles = shop.query("SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles WHERE rolcanlogin")
    wanted = " ".join(sorted({*_ROLES, "postgres"}))
    assert roles == wanted, f"expected: a role for each service, and the superuser: {wanted}; seen: {roles}"
    members = shop.query(
        "SELECT count(*) FROM pg_auth_members "
        "WHERE member IN (SELECT oid FROM pg_roles WHERE NOT rolsuper AND rolcanlogin)"
    )
    assert members == "0", f"expected: no service is a member of another role; seen: {members}"
