"""Tables of every kind, and random transactions on them, for tests of the row journal."""

SCHEMA = """
create type mood as enum ('sad', 'ok', 'it''s fine');
create domain positive as int check (value > 0);
create type pair as (a int, b text);
create schema "Odd schema";
create table "Odd schema"."Odd name's" ("The id" int, "a ""quoted"" column" text, "Kind" mood,
    primary key ("The id"));
create table everything (
    id bigint generated always as identity primary key,
    bo bool, i2 smallint, i4 int, i8 bigint, nu numeric, nd numeric(12, 3), f4 real, f8 double precision, mo money,
    te text, vc varchar(40), ch char(5), na name, "by" bytea, da date, ti time, tz timetz, ts timestamp,
    tstz timestamptz, iv interval, uu uuid, js json, jb jsonb, xm xml, ia int[], ta text[][], ir int4range,
    tr tstzrange, mr nummultirange, po point, li line, ls lseg, bx box, pa path, pg polygon, ci circle, cd cidr,
    ie inet, ma macaddr, m8 macaddr8, bt bit(5), vb varbit, tv tsvector, tq tsquery, en mood, dm positive, co pair,
    cos pair[], pl pg_lsn, oi oid, rc regclass, jp jsonpath,
    ge int generated always as (i4 / 2) stored);
create table parted (id int, k int, v text, primary key (id, k)) partition by list (k);
create table parted_0 partition of parted for values in (0);
create table parted_1 partition of parted for values in (1);
create table parted_rest partition of parted default;
create table big (id int primary key, payload text, other text, n int);
alter table big alter payload set storage external, alter other set storage external;
create table by_index (a int not null, b text not null, c text);
create unique index by_index_key on by_index (b, a);
alter table by_index replica identity using index by_index_key;
create table full_identity (a int, b text, c jsonb);
alter table full_identity replica identity full;
create table evolving (id int primary key, v text);
create table no_key (a int, b text);
"""

# Tables of which every change is journaled, and how their rows are told apart.
WHOLE = ["everything", '"Odd schema"."Odd name\'s"', "parted_0", "parted_1", "parted_rest", "big", "by_index",
         "full_identity", "evolving"]

TEXTS = ["", "plain", "tab\there", "line\nbreak", "back\\slash", "\\N", "quote '' \" ", "ünïcödé €", "\r",
         "x" * 200]


class Workload:
    """Random transactions in one session; deterministic for a seed but for what the server makes itself."""

    def __init__(self, server, random, database="postgres"):
        self.server = server
        self.random = random
        self.database = database
        self.session = server.session() if database == "postgres" else None
        self.columns = 0
        self.gids = 0
        self.transactions = 0

    def _e(self, text):
        return "e'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    def any_text(self):
        return "null" if self.random.random() < 0.1 else self._e(self.random.choice(TEXTS))

    def everything_values(self):
        """Columns and expressions; some are left out, so NULL."""
        n = self.random.randrange(-10**6, 10**6)
        word = self.any_text()
        every = {
            "bo": "true", "i2": str(n % 1000), "i4": str(n), "i8": f"{n}::bigint * 4000000000", "nu": f"{n} / 7.0",
            "nd": f"{n % 1000}.125", "f4": f"{n} / 3.0::real", "f8": f"{n} / 3.0::float8", "mo": f"({n % 999})::money",
            "te": word, "vc": f"left({word}, 40)", "ch": f"left({word}, 4)", "na": "'a name'",
            "\"by\"": f"decode(md5('{n}'), 'hex')", "da": f"date '2000-01-01' + {n % 9999}",
            "ti": f"time '00:00' + {n % 86400} * interval '1 second'", "tz": "'12:34:56.789+02'",
            "ts": f"timestamp '2020-02-03 04:05:06.7' + {n} * interval '1 second'",
            "tstz": f"timestamptz '2020-02-03 04:05:06.7+00' + {n} * interval '1 second'",
            "iv": f"{n} * interval '1 day 2.5 hours'", "uu": f"md5('{n}')::uuid",
            "js": f"json_build_object('n', {n}, 'w', {word}::text)",
            "jb": f"jsonb_build_object('n', {n}, 'w', {word}::text)",
            "xm": f"xmlelement(name a, '{n}')", "ia": f"array[{n}, null, 3]",
            "ta": f"array[[{word}, 'b'], ['c, \"d', null]]::text[]", "ir": f"int4range({n}, {n} + 5)",
            "tr": "tstzrange('2020-01-01+00', null)",
            "mr": f"nummultirange(numrange({n}, {n} + 1), numrange({n} + 3, {n} + 4))",
            "po": f"point({n}, 2.5)", "li": "line '{1,2,3}'", "ls": "lseg '[(0,0),(1,1)]'", "bx": "box '(2,2),(0,0)'",
            "pa": "path '[(0,0),(1,1)]'", "pg": "polygon '((0,0),(1,1),(2,0))'", "ci": "circle '<(0,0),3>'",
            "cd": "cidr '10.1.0.0/16'", "ie": "inet '::1/64'", "ma": "macaddr '08:00:2b:01:02:03'",
            "m8": "macaddr8 '08:00:2b:01:02:03:04:05'", "bt": "b'10101'", "vb": "b'110'",
            "tv": "to_tsvector('simple', 'a fat cat')", "tq": "to_tsquery('simple', 'fat & !rat')",
            "en": self.random.choice(["'sad'", "'ok'", "'it''s fine'"]), "dm": str(abs(n) + 1),
            "co": f"row({n}, {word})::pair", "cos": f"array[row(1, {word})::pair]", "pl": "'1/ABCDEF'",
            "oi": str(abs(n)),
            "rc": "'pg_class'::regclass", "jp": "'$.a[*] ? (@ > 1)'",
        }
        kept = [name for name in every if self.random.random() < 0.8] or ["te"]
        return kept, [every[name] for name in kept]

    def statement(self):
        """One statement that changes rows."""
        r = self.random
        table = r.choice(["everything", "odd", "parted", "big", "by_index", "full_identity", "evolving", "no_key"])
        key = r.randrange(40)
        kind = r.random()
        if table == "everything":
            columns, values = self.everything_values()
            if kind < 0.5:
                return f"insert into everything ({', '.join(columns)}) values ({', '.join(values)});"
            which = "id = (select id from everything order by md5(id::text) limit 1)"
            if kind < 0.85:
                pairs = ", ".join(f"{c} = {v}" for c, v in zip(columns, values))
                return f"update everything set {pairs} where {which};"
            return f"delete from everything where {which};"
        if table == "odd":
            name = '"Odd schema"."Odd name\'s"'
            if kind < 0.6:
                return (f'insert into {name} values ({key}, {self.any_text()}, \'ok\') '
                        f'on conflict ("The id") do update set "a ""quoted"" column" = excluded."a ""quoted"" column";')
            if kind < 0.8:
                return (f'update {name} set "The id" = {key + 100 + r.randrange(10**6)} where "The id" = {key};')
            return f'delete from {name} where "The id" = {key};'
        if table == "parted":
            if kind < 0.5:
                return f"insert into parted values ({key}, {r.randrange(4)}, {self.any_text()}) on conflict do nothing;"
            if kind < 0.8:  # moves rows from one partition to another
                return f"update parted set k = k + 10, v = {self.any_text()} where id = {key} and k < 10;"
            return f"delete from parted where id = {key};"
        if table == "big":
            size = r.choice([10, 3000, 9000])
            payload = (f"(select string_agg(md5(g::text || '{r.random()}'), '') "
                       f"from generate_series(1, {size // 32 + 1}) g)")
            if kind < 0.4:
                return (f"insert into big values ({key}, {payload}, {payload}, 0) on conflict (id) do update "
                        f"set n = big.n + 1;")
            if kind < 0.9:  # most columns are not touched, and so not sent
                what = r.choice(["n = n + 1", f"payload = {payload}", f"id = {key + 1000 + r.randrange(10**6)}"])
                return f"update big set {what} where id = {key};"
            return f"delete from big where id = {key};"
        if table == "by_index":
            if kind < 0.6:
                return (f"insert into by_index values ({key}, {self._e(r.choice(TEXTS))}, {self.any_text()}) "
                        f"on conflict do nothing;")
            if kind < 0.85:
                return f"update by_index set c = {self.any_text()} where a = {key};"
            return f"delete from by_index where a = {key};"
        if table == "full_identity":
            if kind < 0.6:  # equal rows are allowed here
                return f"insert into full_identity values ({key % 5}, {self.any_text()}, '{{\"a\": {key}}}');"
            if kind < 0.8:
                return f"update full_identity set b = {self.any_text()} where a = {key % 5};"
            return f"delete from full_identity where ctid = (select min(ctid) from full_identity where a = {key % 5});"
        if table == "evolving":
            if kind < 0.6:
                return (f"insert into evolving (id, v) values ({key}, {self.any_text()}) "
                        f"on conflict (id) do update set v = excluded.v;")
            return f"delete from evolving where id = {key};"
        return (f"insert into no_key values ({key}, {self.any_text()});" if kind < 0.5 else
                f"update no_key set b = {self.any_text()} where a = {key};" if kind < 0.8 else
                f"delete from no_key where a = {key};")

    def ddl(self):
        r = self.random
        self.columns += 1
        choice = r.random()
        if choice < 0.5:
            # What a new column has in rows that nothing changes is not decoded: so all are changed.
            return (f"alter table evolving add column c{self.columns} {r.choice(['int', 'text', 'mood'])}; "
                    f"update evolving set v = v;")
        if choice < 0.7:
            return "alter table evolving alter v type varchar(500);"
        if choice < 0.85:
            other = f"v_{self.columns}"
            return f"alter table evolving rename v to {other}; alter table evolving rename {other} to v;"
        return "analyze evolving;"

    def transaction(self):
        """One transaction, committed unless it is one that is rolled back."""
        r = self.random
        execute = self.session.execute
        choice = r.random()
        self.transactions += 1
        if choice < 0.02:
            execute(f"truncate {r.choice(['full_identity', 'by_index', 'parted', 'big, evolving'])};")
        elif choice < 0.05:
            execute(f"begin; {self.statement()} {self.ddl()} {self.statement()} commit;")
        elif choice < 0.12:
            execute(f"begin; {self.statement()} savepoint a; {self.statement()} {self.statement()} rollback to a; "
                    f"{self.statement()} savepoint b; {self.statement()} release b; commit;")
        elif choice < 0.16:
            self.gids += 1
            end = r.choice(["commit", "commit", "rollback"])
            execute(f"begin; {self.statement()} {self.statement()} prepare transaction 'g{self.gids}';")
            # Of a table whose rows nobody locks.
            execute(f"insert into no_key values ({self.gids}, 'between');")
            # Where a key was there twice, it was rolled back instead.
            if execute(f"select gid from pg_prepared_xacts where gid = 'g{self.gids}';"):
                execute(f"{end} prepared 'g{self.gids}';")
        elif choice < 0.2:
            execute(f"begin; {self.statement()} rollback;")
        else:
            execute(f"begin; {' '.join(self.statement() for _ in range(r.randrange(1, 6)))} commit;")
