"""The database: who is let in, as whom and from where, and what each role may do: what its service needs, no more."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

import pytest

from acceptance.modules import LabHost
from acceptance.suite.shop import Shop
from acceptance.suite.stage import WITH_PASSWORD, Seat, Stage
from underlay.process import Completed
from underlay.topology import Program

#: psql(1), by what a service is told of its database, as its process has it. The words: the process, the password
#: (empty: none; "own": that of the service), a role and a database instead of its own, and the only way in which the
#: password may be shown (empty: any).
_LOGIN = r"""
eval "$(tr '\0' '\n' <"/proc/$1/environ" | sed -n "s/^\(DATABASE_[A-Z_]*\)=\(.*\)$/\1='\2'/p")"
if [ "$2" = own ]; then PGPASSWORD=$(cat "/proc/$1/root$DATABASE_PASSWORD_FILE"); else PGPASSWORD=$2; fi
test -z "$PGPASSWORD" || export PGPASSWORD
test -z "$5" || export PGREQUIREAUTH="$5"
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
#: What is granted to anybody but the superuser: to whom, what, on what (PostgreSQL's documentation, "Privileges").
_RIGHTS = """
SELECT string_agg(DISTINCT concat_ws(' ', coalesce(r.rolname, 'public'), granted.privilege, granted.what), '|')
FROM (
    SELECT a.grantee, a.privilege_type, c.relname FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.relnamespace = 'public'::regnamespace
    UNION ALL SELECT a.grantee, a.privilege_type, c.relname || '.' || t.attname
        FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid, aclexplode(t.attacl) a
        WHERE c.relnamespace = 'public'::regnamespace
    UNION ALL SELECT a.grantee, a.privilege_type, 'schema ' || n.nspname FROM pg_namespace n, aclexplode(n.nspacl) a
        WHERE n.nspname !~ '^(pg_|information_schema)'
    UNION ALL SELECT a.grantee, a.privilege_type, 'database'
        FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
        WHERE d.datname = current_database()
) AS granted (grantee, privilege, what) LEFT JOIN pg_roles r ON r.oid = granted.grantee
WHERE r.rolname IS DISTINCT FROM 'postgres'
""".replace("\n", " ")
_GRANTED = frozenset(
    {
        "product SELECT products",
        "order SELECT products",
        "order UPDATE products.stock",
        "order SELECT orders",
        "order INSERT orders",
        "public CONNECT database",
        "public USAGE schema public",
        "pg_database_owner USAGE schema public",
        "pg_database_owner CREATE schema public",
    }
)
#: PostgreSQL's documentation, appendix A: successful_completion, insufficient_privilege.
_DONE, _DENIED = "00000", "42501"

#: Logs a service in: with a password, as a role and to a database (empty: its own), and has it say statements.
Login = Callable[..., Completed]


@pytest.fixture
def login(stage: Stage, database_user: Seat) -> Login:
    """Return the way of one service to its database."""
    host, enter = stage.machine(database_user), stage.enter(database_user)
    pid = str(LabHost(host, stage.plan).namespace(database_user.space).processes[0])

    def log_in(
        password: str, role: str = "", database: str = "", say: str = "SELECT 1;", method: str = ""
    ) -> Completed:
        words = [*enter, "sh", "-c", _LOGIN, "sh", pid, password, role, database, method]
        return host.run(words, check=False, stdin=say)

    return log_in


def test_service_is_let_in_as_itself_with_its_password_alone(login: Login, database_user: Seat) -> None:
    name, own = database_user.name, database_user.service.program.value
    other = next(role for role in _ROLES if role != own)
    good = login(_OWN, method="scram-sha-256")  # never by the password itself, which the wire would show
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


def test_rights_are_the_planned_ones_and_no_others(shop: Shop) -> None:
    if shop.database() is None:
        pytest.skip("the plan has no database")
    seen = frozenset(shop.query(_RIGHTS).split("|"))
    assert seen == _GRANTED, f"missing: {sorted(_GRANTED - seen)}; not planned: {sorted(seen - _GRANTED)}"


def test_only_the_superusers_own_users_get_in_by_the_socket(stage: Stage, shop: Shop) -> None:
    database = shop.database()
    if database is None:
        pytest.skip("the plan has no database")
    host, own = stage.machine(database), stage.user(database)
    sockets, port = shop.query("SHOW unix_socket_directories"), shop.query("SHOW port")

    def enter(user: str, role: str) -> Completed:
        place = ["-h", sockets, "-p", port, "-U", role, "-d", "postgres"]
        return host.run(
            [*stage.become(database, user), "psql", "--no-psqlrc", "-wqtA", *place, "-c", "SELECT 1"], check=False
        )

    users = {"root", own, *(stage.user(seat) for seat in stage.seats(database.host))}
    for user in sorted(users):
        for role in ("postgres", *sorted(_ROLES)):
            wanted = role == "postgres" and user in stage.superusers(database)
            seen = enter(user, role)
            assert seen.ok == wanted, (
                f"{host.name}: user {user} as {role}: expected: {'let in' if wanted else 'refused'}; seen: {seen}"
            )


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
