"""Makes tests/golden/v1/repository from a real server, and the answers it gave on the day it was made.

Run by hand, once for each version of the format, and never again for the same one: a golden file that is
made anew proves nothing.

    WALVAULT_BUILD=build/debug PYTHONPATH=tests/integration \\
        /usr/bin/python3 tests/support/make_golden_repository.py EMPTY-DIRECTORY
"""

import ctypes
import hashlib
import json
import os
import pathlib
import shutil
import socket
import sys

from agent_process import Agent
from cluster import SETTINGS, Postgres
from golden_repository import answers_of, restored_files
from harness import PG_BIN, Stage, lsn_number, lsn_text, wait_until
from oracle import read_transactions, time_text

CLONE_NEWUTS = 0x04000000
SMALL = {"autovacuum": "off", "wal_keep_size": "'1GB'", "max_prepared_transactions": "5",
         "shared_preload_libraries": "''"}
# What a base backup would hold of a database that nobody uses.
UNUSED = ("drop schema information_schema cascade", "delete from pg_description",
          "delete from pg_shdescription",
          "delete from pg_collation where oid >= 12000", "delete from pg_ts_config_map where mapcfg > 3748",
          "delete from pg_ts_config where oid > 3748", "delete from pg_ts_dict where oid > 3765",
          "delete from pg_init_privs", "delete from pg_conversion")


def name_the_host():
    """The ledger names the host: not the one this is made on."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUTS) != 0:
        sys.exit("needs root, for a host name of its own")
    socket.sethostname("golden")


def make_server(stage, **settings):
    """A small cluster on timeline 2, so that a timeline's history belongs to what is stored."""
    server = Postgres(stage, "primary", stage.make_directory("pg") / "primary")
    stage.run([PG_BIN / "initdb", "-k", "-N", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C",
               "--wal-segsize=1", "-D", server.data])
    server.configure({**SETTINGS, **SMALL, **settings, "port": server.port,
                      "unix_socket_directories": f"'{server.socket_directory}'"})
    stage.write(server.data / "standby.signal", "")
    server.start()
    server.sql("select pg_promote()")
    wait_until(lambda: server.sql("select pg_is_in_recovery()") == "f", "the promotion")
    server.sql("update pg_database set datistemplate = false")
    for name in ("template1", "template0"):
        server.sql(f"drop database {name}")
    server.configure({"allow_system_table_mods": "on"})
    server.stop()
    server.start()
    for statement in UNUSED:
        server.sql(statement)
    server.sql("vacuum full")
    server.sql("checkpoint")
    return server


def make_table(server, name, rows):
    """Like the one of the other tests, of rows that compress well."""
    server.sql(f"create table {name} (id int primary key, body text);"
               f"insert into {name} select g, 'a row of this table ' || g from generate_series(1, {rows}) g")


def tell_the_story(stage, server, agent):
    """What the repository is to hold: each kind of file, mark and event that this version writes."""
    agent.protect()
    make_table(server, "first", 2000)
    server.sql("begin; savepoint a; insert into first values (0, 'nested'); release a; commit")
    server.sql("begin; insert into first values (-1, 'never'); rollback")
    server.sql("begin; insert into first values (-2, 'in two steps'); prepare transaction 'two'")
    server.sql("commit prepared 'two'")
    server.sql("select pg_create_restore_point('between the bases')")
    make_table(server, "doomed", 1500)
    server.sql("delete from doomed")
    server.sql("truncate doomed")
    server.sql("drop table doomed")
    for number in range(3):
        make_table(server, f"bulk{number}", 6000)
    agent.wait_until_flushed()
    agent.cli("backup", "--fast", "--label", "the second")
    cut_a_backup_off(stage, server, agent)
    make_table(server, "late", 300)
    agent.wait_until_flushed()
    agent.cli("verify", "--level", "wal")
    agent.restore(to="latest").discard()
    quiet = max(t.micros for t in transactions_after_the_base(server, stage, agent)) + 1_000_000
    wait_until(lambda: agent.cli("resolve", time_text(quiet), expect=None).returncode == 0,
               "a quiet second to be proved", every=0.2)
    # Killed: the last WAL stays in an open tail. Then the slot goes, which is entered without an agent.
    agent.kill9()
    wait_until(lambda: server.sql("select count(*) from pg_replication_slots where active") == "0",
               "the slot to be free")
    agent.cli("detach", "--yes")


def cut_a_backup_off(stage, server, agent):
    """The agent dies in it: the next one enters that it failed."""
    config = agent.config.read_text()
    agent.stop()
    agent.write_config(config.replace('checkpoint = "fast"', 'checkpoint = "fast"\nmax_rate = "1MiB/s"'))
    agent.start()
    stage.start([stage.walvault, "-c", agent.config, "backup", "--fast"], log=stage.directory / "backup.log")
    wait_until(lambda: server.sql("select count(*) from pg_stat_progress_basebackup"
                                  " where phase = 'streaming database files'") == "1", "the backup to stream")
    agent.kill9()
    agent.write_config(config)
    agent.start()


def transactions_after_the_base(server, stage, agent):
    return read_transactions(server, stage, lsn_number(agent.backups()[0]["stop_lsn"]), timeline=2)


def targets_of(server, stage, agent):
    """A few targets of each form, as arguments of resolve."""
    inside = [t for t in transactions_after_the_base(server, stage, agent) if t.committed]
    some = inside[:: max(1, len(inside) // 4)]
    found = [["latest"], ["name:between the bases"], ["--before", "name:between the bases"]]
    found += [[f"backup:{backup['backup_id']}"] for backup in agent.backups()]
    for transaction in some:
        found += [[time_text(transaction.micros)], ["--before", time_text(transaction.micros)],
                  [f"xid:{transaction.xid}"], ["--before", "lsn:" + lsn_text(transaction.lsn)]]
    return found


def check_against_the_server(server, agent, answers):
    """The WAL that the answers vouch for is PostgreSQL's own, the bases are what its tool accepts."""
    whole = list(answers["wal"])[:-1]
    assert len(whole) >= 3, whole
    for name in whole:
        own = hashlib.sha256(server.wal_file(name).read_bytes()).hexdigest()
        assert own == answers["wal"][name], name
    for target in answers["restores"]:
        restored = agent.restore(to=target)
        if target.startswith("backup:"):
            command = [PG_BIN / "pg_verifybackup", "-n"]
            for name in ("postgresql.auto.conf", "recovery.signal", "walvault_restore.json", "pg_wal",
                         "tablespace_map"):
                command += ["-i", name]
            agent.stage.run([*command, restored.data])
        restored.discard()


def keep(agent, out, name, answers):
    """The repository, its key and what it answered, each by `name`; what readers make anew is left out."""
    for path in sorted(agent.repo.rglob("*")):
        inside = path.relative_to(agent.repo)
        if path.is_file() and inside.parts[0] not in ("index", "lock"):
            (out / name / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / name / inside)
    shutil.copyfile(agent.key, out / f"{name}.key")
    (out / f"{name}.json").write_text(json.dumps(answers, indent=1) + "\n")
    os.chmod(out / f"{name}.key", 0o644)


def asked_copy(stage, agent):
    """Reading verbs enter that they were there: they are asked of a copy."""
    asked = Agent(stage, None, name="asked", repo=stage.directory / "asked-repo", key=agent.key)
    stage.copy_tree(agent.repo, asked.repo)
    shutil.rmtree(asked.repo / "index", ignore_errors=True)
    return asked


def main():
    out = pathlib.Path(sys.argv[1]).resolve()
    name_the_host()
    stage = Stage("golden", base="/tmp")
    server = make_server(stage)
    agent = Agent(stage, server, name="agent")
    agent.write_config(agent.config.read_text().replace(
        'reserve = "0%"', 'reserve = "0%"\nwal_level = 19\nbase_level = 19'))
    tell_the_story(stage, server, agent)
    asked = asked_copy(stage, agent)
    targets = targets_of(server, stage, asked)
    backups = [f"backup:{backup['backup_id']}" for backup in asked.backups()]
    answers = answers_of(asked, targets)
    answers["restores"] = {target: restored_files(asked, target)
                           for target in [*backups, "name:between the bases", "latest"]}
    check_against_the_server(server, asked, answers)
    server.stop("immediate")
    keep(agent, out, "repository", answers)
    stage.close()


if __name__ == "__main__":
    main()
