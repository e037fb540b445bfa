"""Retention: what is older than the window goes, and everything in it can still be restored."""

import json
import unittest

from agent_process import Agent, error_is_helpful
from cluster import Postgres
from harness import StageCase, wait_until
from oracle import time_text

WINDOW_SECONDS = 25
RULES_MARK = "protect_min = 1\n"
RULES = RULES_MARK + 'window = "{window}s"\nexpire_grace = "{grace}s"\n\n'


def bytes_of(directory):
    return sum(path.stat().st_size for path in directory.rglob("*.pack"))


class RetentionTest(StageCase):
    def setUp(self):
        super().setUp()
        self.primary = Postgres.create(self.stage).start()
        self.agent = Agent(self.stage, self.primary)
        self.set_rules(window=3600, grace=0)  # until a test shortens it, nothing expires by itself
        self.agent.protect()
        self.primary.sql("create table life(n int primary key, filler text)")
        self.count = 0
        self.moments = []  # (microseconds of the server's clock, rows there were)

    def set_rules(self, **rules):
        """In the file; a running agent has them after take_rules()."""
        text = self.agent.config.read_text()
        head, mark, tail = text.partition(RULES_MARK)
        if not mark:
            head, _, tail = text.partition("[encryption]")
        else:
            tail = tail.partition("[encryption]")[2]
        self.agent.write_config(head + RULES.format(**rules) + "[encryption]" + tail)

    def take_rules(self):
        self.agent.reload(RULES_MARK, RULES_MARK)

    def expire(self):
        """One pass; the agent may be at one by itself."""
        for _ in range(50):
            done = self.agent.cli("-o", "json", "expire", expect=None)
            if done.returncode == 0:
                return json.loads(done.stdout)["places"][0]
            self.assertEqual(json.loads(done.stderr.strip().splitlines()[-1])["error"]["code"], "busy")
        raise AssertionError("retention was busy all the time")

    def live(self):
        """Some WAL that no chunk and no zstd makes small, and the moment behind it."""
        self.count += 1
        self.primary.sql("insert into life select " + str(self.count) + ", string_agg(md5(random()::text), '') "
                         "from generate_series(1, 40000)")
        micros = int(self.primary.sql("select (extract(epoch from clock_timestamp()) * 1000000)::bigint"))
        self.moments.append((micros, self.count))
        self.primary.sql("select pg_switch_wal()")

    def backup(self):
        return self.agent.json("backup", "--fast")["backup_id"]

    def server_micros(self):
        return int(self.primary.sql("select (extract(epoch from clock_timestamp()) * 1000000)::bigint"))

    def live_through_a_window(self):
        """Three more bases with WAL between, and a window's time of nothing; the last of them, by id."""
        for _ in range(3):
            self.live()
            base = self.backup()
        behind = self.server_micros()
        wait_until(lambda: self.server_micros() - behind > (WINDOW_SECONDS + 2) * 1_000_000,
                   "the window to pass", timeout=120, every=1)
        for _ in range(2):
            self.live()
        self.agent.wait_until_flushed()
        return base

    def rows_at(self, micros):
        restored = self.agent.restore(to=time_text(micros)).open()
        try:
            return int(restored.sql("select count(*) from life"))
        finally:
            restored.discard()

    def test_what_is_older_than_the_window_goes_and_the_rest_is_as_it_was(self):
        agent = self.agent
        anchor = self.live_through_a_window()
        before = bytes_of(agent.repo)
        self.set_rules(window=WINDOW_SECONDS, grace=0)
        shown = agent.json("expire", "--dry-run")["places"][0]
        self.assertEqual([base["backup_id"] for base in shown["bases"] if base["keep"]], [anchor])
        self.assertEqual(shown["condemned_bases"], 3)
        self.assertTrue(all(item["reason"] for item in shown["bases"] + shown["packs"]))
        self.assertGreater(shown["condemned_bytes"], 0)
        self.assertEqual(bytes_of(agent.repo), before)
        self.assertIn("goes", agent.cli("expire", "--dry-run").stdout)

        self.take_rules()
        self.expire()
        freed = self.metric("walvault_retention_freed_bytes_total")
        self.assertGreaterEqual(freed, shown["condemned_bytes"])
        self.assertEqual(bytes_of(agent.repo), before - freed)
        self.assertEqual([base["backup_id"] for base in agent.backups()], [anchor])
        self.assertEqual(self.metric("walvault_retention_condemned_bytes"), 0)

        # Behind the anchor every moment, exactly; before it none, and the error says what there is.
        last_micros, last_rows = self.moments[-2]  # one behind it proves that nothing is missing
        self.assertEqual(self.rows_at(last_micros), last_rows)
        quiet = (self.moments[2][0] + self.moments[3][0]) // 2
        self.assertEqual(self.rows_at(quiet), 3)
        for micros, _ in self.moments[:2]:
            error = agent.error("resolve", time_text(micros), expect=3)
            self.assertEqual(error["code"], "outside_window")
            self.assertTrue(error_is_helpful(error), error)
        error = agent.error("resolve", "backup:" + shown["bases"][0]["backup_id"], expect=3)
        self.assertTrue(error_is_helpful(error), error)

        for level in ("chunks", "wal"):
            self.assertTrue(agent.json("verify", "--level", level)["ok"])
        # Nothing more to do; and an index made anew says the same.
        self.assertEqual(self.expire()["condemned_packs"], 0)
        self.assertEqual(agent.stop(), 0)
        told = agent.json("info")
        agent.cli("repo", "rebuild-index")
        again = agent.json("info")
        for key in ("windows", "backups", "totals"):
            self.assertEqual(again[key], told[key])
        agent.check_log()

    def test_what_expired_waits_for_its_grace_and_is_out_of_sight(self):
        agent = self.agent
        anchor = self.live_through_a_window()
        before = bytes_of(agent.repo)
        self.set_rules(window=WINDOW_SECONDS, grace=3600)
        self.take_rules()
        self.expire()
        self.assertGreater(self.metric("walvault_retention_condemned_bytes"), 0)
        self.assertEqual(bytes_of(agent.repo), before)
        self.assertEqual([base["backup_id"] for base in agent.backups()], [anchor])
        self.assertTrue(agent.json("verify")["ok"])
        # Killed, started again: what was condemned still is.
        agent.kill9()
        agent.start()
        self.assertEqual([base["backup_id"] for base in agent.backups()], [anchor])
        self.set_rules(window=WINDOW_SECONDS, grace=0)
        self.take_rules()
        before = bytes_of(agent.repo)  # the tail of before the end is a pack by now
        done = self.expire()
        self.assertGreater(done["deleted_packs"], 0)
        self.assertEqual(bytes_of(agent.repo), before - done["freed_bytes"])
        last_micros, last_rows = self.moments[-2]  # one behind it proves that nothing is missing
        self.assertEqual(self.rows_at(last_micros), last_rows)

    def test_what_is_held_stays_until_it_is_released(self):
        agent = self.agent
        first = agent.backups()[0]["backup_id"]
        anchor = self.live_through_a_window()
        # A segment behind what is held stays as well.
        held_from, held_to = self.moments[0][0], self.moments[0][0] + 1000
        error = agent.error("hold", "--from", "2026-01-01", "--reason", "too old", expect=3)
        self.assertTrue(error_is_helpful(error), error)
        error = agent.error("hold", "--backup", "20200101T000000Z", "--reason", "none", expect=1)
        self.assertTrue(error_is_helpful(error), error)
        agent.error("hold", "--from", time_text(held_from), expect=2)  # no reason
        wanted = ("hold", "--from", time_text(held_from), "--to", time_text(held_to), "--reason", "case 4711")
        self.assertTrue(agent.json("--dry-run", *wanted)["dry_run"])
        self.assertEqual(agent.json("hold")["holds"], [])
        placed = agent.json(*wanted)
        self.assertEqual([hold["hold_id"] for hold in agent.json("hold")["holds"]], [placed["hold_id"]])
        self.assertIn("case 4711", agent.cli("hold").stdout)
        self.set_rules(window=WINDOW_SECONDS, grace=0)
        self.take_rules()
        self.expire()
        held = [base["backup_id"] for base in agent.backups()]
        self.assertEqual(held, [first, anchor])
        shown = agent.json("info")
        self.assertEqual([window.get("hold_id") for window in shown["windows"]], [placed["hold_id"], None])
        self.assertIn("case 4711", agent.cli("info").stdout)

        # Each moment of it, exactly; behind it nothing until the window begins.
        self.assertEqual(self.rows_at(held_from), 1)
        self.assertEqual(self.rows_at(held_to), 1)
        error = agent.error("resolve", time_text(self.moments[1][0]), expect=3)
        self.assertTrue(error_is_helpful(error), error)
        self.assertEqual(self.rows_at(self.moments[-2][0]), self.moments[-2][1])
        self.assertTrue(agent.json("verify", "--level", "wal")["ok"])
        agent.kill9()
        agent.start()
        self.assertEqual(self.expire()["condemned_packs"], 0)
        self.assertEqual([base["backup_id"] for base in agent.backups()], held)

        self.assertIn("--yes", agent.error("release", placed["hold_id"], "--reason", "x", expect=4)["hint"])
        self.assertEqual(agent.error("release", "H1", "--reason", "x", "--yes", expect=1)["code"], "not_found")
        agent.json("release", placed["hold_id"], "--reason", "case closed", "--yes")
        self.assertEqual(agent.json("hold")["holds"], [])
        self.expire()
        self.assertEqual([base["backup_id"] for base in agent.backups()], [anchor])
        agent.error("resolve", time_text(held_from), expect=3)

        # Where no agent runs; and one that is over holds nothing.
        self.assertEqual(agent.stop(), 0)
        placed = agent.json("hold", "--backup", anchor, "--for", "1s", "--reason", "for a moment")
        wait_until(lambda: agent.json("hold")["holds"][0]["over"], "the hold to be over")
        self.assertEqual(agent.json("info")["holds"][0]["hold_id"], placed["hold_id"])
        agent.json("release", placed["hold_id"], "--reason", "done", "--yes")
        self.assertEqual(agent.json("hold")["holds"], [])

    def change(self):
        """Other 8 MB in the place of those that were there; nothing of them is shared."""
        self.primary.sql("truncate life")
        self.count += 1
        self.primary.sql(f"insert into life select n + {self.count * 10000}, string_agg(md5(random()::text), '') "
                         "from generate_series(1, 1000) n, generate_series(1, 250) group by n")

    def test_packs_that_are_mostly_dead_are_rewritten_and_the_rest_of_them_stays_whole(self):
        agent = self.agent
        for _ in range(3):
            self.change()
            anchor = self.backup()
        behind = self.server_micros()
        wait_until(lambda: self.server_micros() - behind > (WINDOW_SECONDS + 2) * 1_000_000,
                   "the window to pass", timeout=120, every=1)
        rows = self.primary.sql("select md5(string_agg(n || filler, '' order by n)) from life")
        self.live()
        self.live()
        agent.wait_until_flushed()
        self.set_rules(window=WINDOW_SECONDS, grace=0)
        shown = agent.json("expire", "--dry-run")["places"][0]
        planned = [pack for pack in shown["packs"] if pack.get("rewritten")]
        self.assertTrue(planned, shown["packs"])
        self.assertTrue(all(pack["keep"] and "% of it is dead" in pack["reason"] for pack in planned), planned)
        self.assertEqual(shown["rewritten_packs"], len(planned))
        self.assertGreater(shown["rewritten_dead_bytes"], 3_000_000)
        self.assertIn("rewritten", agent.cli("expire", "--dry-run").stdout)
        before = bytes_of(agent.repo / "main" / "base")

        self.take_rules()
        self.expire()
        old = [agent.repo / pack["path"] for pack in planned]
        wait_until(lambda: not any(path.exists() for path in old), "the old packs to go", timeout=120)
        self.assertTrue(list((agent.repo / "main" / "base").glob("rewritten-*.pack")))
        self.assertLess(bytes_of(agent.repo / "main" / "base"), before - shown["rewritten_dead_bytes"])
        self.assertEqual([base["backup_id"] for base in agent.backups()], [anchor])
        for level in ("chunks", "wal"):
            self.assertTrue(agent.json("verify", "--level", level)["ok"])
        restored = agent.restore(to="backup:" + anchor).open()
        try:
            self.assertEqual(restored.sql("select md5(string_agg(n || filler, '' order by n)) from life"), rows)
        finally:
            restored.discard()
        # What is shared now is shared with the new packs; a base taken on top of them is whole.
        self.backup()
        self.assertTrue(agent.json("verify", "--level", "chunks")["ok"])
        agent.check_log()
        # An index made anew finds the chunks in the same places.
        self.assertEqual(agent.stop(), 0)
        agent.cli("repo", "rebuild-index")
        self.assertTrue(agent.json("verify", "--level", "chunks")["ok"])

    def test_without_an_agent_the_verb_does_it_and_without_a_window_nothing(self):
        agent = self.agent
        self.live_through_a_window()
        self.assertEqual(agent.stop(), 0)
        before = bytes_of(agent.repo)
        self.set_rules(window=WINDOW_SECONDS, grace=0)
        done = agent.json("expire")["places"][0]
        self.assertEqual(bytes_of(agent.repo), before - done["freed_bytes"])
        self.assertGreater(done["freed_bytes"], 0)
        agent.write_config(agent.config.read_text().replace(f'window = "{WINDOW_SECONDS}s"\n', ""))
        error = agent.error("expire", expect=4)
        self.assertIn("window", error["message"])

    def metric(self, name):
        values = [value for series, value in self.agent.metrics().items() if series.startswith(name + "{")]
        self.assertEqual(len(values), 1)
        return values[0]


if __name__ == "__main__":
    unittest.main()
