"""Commit to flushed, seen from the server: how long after the server had flushed a position did a
receiver report it as flushed. Sampled inside the server, so that one clock tells both times."""

import subprocess

import measure
import server as servers

SAMPLE_SECONDS = 0.005

# Commits in each round, so that no snapshot is held and the load is not disturbed; nothing is written
# while it samples. pg_stat_get_wal_senders is the view's own source without the join.
SAMPLER = """
CREATE OR REPLACE PROCEDURE bench_sample_lag(seconds float8) LANGUAGE plpgsql AS $$
DECLARE
    ends timestamptz := clock_timestamp() + seconds * interval '1 second';
    sampled timestamptz;
    current_lsn pg_lsn;
    flushed_lsn pg_lsn;
    line text[] := '{{}}';
BEGIN
    WHILE clock_timestamp() < ends LOOP
        current_lsn := pg_current_wal_flush_lsn();
        SELECT max(flush_lsn) INTO flushed_lsn FROM pg_stat_get_wal_senders();
        sampled := clock_timestamp();
        line := line || (extract(epoch FROM sampled) || ' ' || current_lsn || ' ' ||
                         coalesce(flushed_lsn, '0/0'));
        COMMIT;
        PERFORM pg_sleep({interval});
    END LOOP;
    RAISE INFO E'%', array_to_string(line, E'\\n');
END $$;
"""


def install(server):
    server.sql(SAMPLER.format(interval=SAMPLE_SECONDS))


def start(server, seconds):
    command = [f"{servers.BIN}/psql", "-XAtq", "-d", server.conninfo(),
               "-c", f"CALL bench_sample_lag({seconds})"]
    return subprocess.Popen(["setpriv", f"--reuid={measure.USER}", f"--regid={measure.USER}", "--init-groups",
                             "--"] + command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=measure.environment(), cwd="/")


def samples_of(text):
    """(seconds, server's flushed LSN, receiver's flushed LSN) for each sample."""
    samples = []
    for line in text.splitlines():
        fields = line.removeprefix("INFO:").split()
        if len(fields) == 3 and "/" in fields[1]:
            samples.append((float(fields[0]), servers.lsn_value(fields[1]), servers.lsn_value(fields[2])))
    return samples


def lags(samples):
    """For each sample, seconds until the receiver had reported what the server had flushed then."""
    result = []
    later = 0
    for at, wanted, _ in samples:
        while later < len(samples) and samples[later][2] < wanted:
            later += 1
        if later == len(samples):
            break
        result.append(max(0.0, samples[later][0] - at))
    return sorted(result)


def quantile(ordered, share):
    """None when there is nothing to tell."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
