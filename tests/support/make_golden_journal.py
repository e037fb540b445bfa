"""Makes tests/golden/v1/journal, a repository with row journals, and the answers it gave on the day it was made.

Run by hand, as make_golden_repository.py is.

    WALVAULT_BUILD=build/debug PYTHONPATH=tests/integration \\
        /usr/bin/python3 tests/support/make_golden_journal.py EMPTY-DIRECTORY
"""

import pathlib
import sys

from agent_process import Agent
from golden_repository import journal_answers
from harness import Stage, lsn_number, wait_until
from make_golden_repository import asked_copy, keep, make_server, name_the_host

CONFIG = """
[class.people]
tables = ["public.people"]

[server.main.journal]
databases = ["postgres"]
flush_interval = "50ms"
mask = ["public.people.email", "public.people.card=drop"]
"""
SCHEMA = '''
create type mood as enum ('fine', 'so so');
create table orders (id int primary key, state text, note text, price numeric(10,2), at timestamptz, tags text[],
                     doc jsonb, ref uuid, code bytea, feeling mood, days daterange, alone boolean);
alter table orders alter note set storage external;
create table lines (order_id int, number int, body text, primary key (order_id, number));
create table notes (body text);
create table "Odd ""name""" ("a b" int primary key, v text);
create table people (id int primary key, name text, email text, card text);
create table bulk (id int primary key, body text);
create table parts (id int, part int, v text, primary key (id, part)) partition by list (part);
create table parts_1 partition of parts for values in (1);
create table parts_2 partition of parts for values in (2);
insert into orders select g, 'new', null, g * 1.25, '2026-11-01 10:00:00+00', array['a', 'b c', null],
    '{"n": 1}', '123e4567-e89b-12d3-a456-426614174000', '\\x00ff', 'fine', '[2026-01-01,2026-02-01)', true
    from generate_series(1, 200) g;
update orders set note = repeat('n', 9000) where id = 7;
insert into lines select g, 1, 'line ' || g from generate_series(1, 50) g;
insert into people values (1, 'Ada', 'ada@example.org', '4000'), (2, 'Bob', 'bob@example.org', '4001');
insert into parts values (1, 1, 'one'), (2, 2, 'two');
'''
# One transaction each; their numbers are asked for afterwards.
BEFORE = (
    "insert into orders (id, state) values (4711, 'new'); update orders set state = 'paid' where id = 7",
    "update orders set id = 4712 where id = 4711; delete from lines where order_id between 10 and 19",
    "insert into notes select 'note ' || g from generate_series(1, 20) g; update people set email = 'x', name = 'Eve'",
    "begin; savepoint a; insert into lines values (1, 2, 'kept'); release a; savepoint b; "
    "insert into lines values (1, 3, 'not'); rollback to b; commit",
    "insert into bulk select g, repeat('a large one ', 20) || g from generate_series(1, 6000) g",
    f"insert into bulk values (-1, repeat('x', {9_000_000}))",
    "update \"Odd \"\"name\"\"\" set v = 'none'; "
    "insert into \"Odd \"\"name\"\"\" values (1, E'tab\\t, quote '' and \\n')",
    "alter table lines add column late int default 3",
    "update lines set late = order_id where order_id < 5",
    "update parts set part = 2 where id = 1; truncate notes",
)
BEHIND = (
    "update orders set price = price + 1, doc = null where id < 6",
    "delete from orders where id = 4712; delete from people where id = 2",
    "delete from bulk where id > 5900",
)


def journal(agent):
    return (agent.status().get("journals") or [{}])[0]


def is_journaled(agent, lsn):
    found = journal(agent)
    return (found.get("connected") and found.get("tables") and found.get("waiting_snapshots") == 0
            and lsn_number(found["stored_lsn"]) >= lsn_number(lsn))


def run_all(server, agent, statements):
    """[[xid, LSN behind it]] of each."""
    done = []
    for each in statements:
        text = each.removeprefix("begin; ").removesuffix("; commit")
        xid = server.sql(f"begin; {text}; select pg_current_xact_id(); commit;").splitlines()[-1]
        lsn = server.sql("select pg_logical_emit_message(true, 'golden', 'behind it'), pg_current_wal_lsn()")
        done.append([int(xid), lsn.split("\t")[-1].split("|")[-1]])
        wait_until(lambda: is_journaled(agent, done[-1][1]), "the journal to have it", every=0.1)
    return done


def tell_the_story(server, agent):
    """Packs and an open tail, of two classes, with each kind of record that this version writes."""
    server.sql(SCHEMA)
    agent.protect()
    lsn = server.sql("select pg_current_wal_lsn()")
    wait_until(lambda: is_journaled(agent, lsn), "the tables to be read", every=0.1)
    done = run_all(server, agent, BEFORE)
    server.sql("begin; insert into lines values (900, 1, 'in two steps', 1); prepare transaction 'two'")
    server.sql("commit prepared 'two'")
    agent.wait_until_flushed()
    agent.stop()  # closes the packs
    agent.start()
    done += run_all(server, agent, BEHIND)
    agent.wait_until_flushed()
    agent.kill9()
    wait_until(lambda: server.sql("select count(*) from pg_replication_slots where active") == "0",
               "the slots to be free")
    return done


def main():
    out = pathlib.Path(sys.argv[1]).resolve()
    name_the_host()
    stage = Stage("golden", base="/tmp")
    server = make_server(stage, wal_level="logical", logical_decoding_work_mem="'64kB'")
    agent = Agent(stage, server, name="agent")
    agent.write_config(agent.config.read_text().replace(
        'reserve = "0%"', 'reserve = "0%"\nwal_level = 19\nbase_level = 19') + CONFIG)
    agent.allowed_events.add("journal.tables_not_whole")
    done = tell_the_story(server, agent)
    asked = asked_copy(stage, agent)
    answers = journal_answers(asked, done)
    server.stop("immediate")
    keep(agent, out, "journal", {"transactions": done, "answers": answers})
    stage.close()


if __name__ == "__main__":
    main()
