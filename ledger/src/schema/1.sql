-- Times are milliseconds since 1970-01-01T00:00Z, but analysis times, which are seconds.

CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    started INTEGER NOT NULL,
    ended INTEGER,
    -- Where it runs, and what tells whether it still does.
    host TEXT NOT NULL,
    process TEXT NOT NULL,
    version TEXT NOT NULL,
    -- SHA-256 of the plan.
    plan TEXT NOT NULL,
    exit_code INTEGER
) STRICT;

CREATE TABLE tasks (
    id INTEGER PRIMARY KEY,
    configuration TEXT NOT NULL,
    analysis_time INTEGER NOT NULL,
    member INTEGER NOT NULL,
    state TEXT NOT NULL,
    UNIQUE (analysis_time, configuration, member)
) STRICT;

-- How many tasks are in each state, kept so that the status of a year need not look at each.
CREATE TABLE counts (
    analysis_time INTEGER NOT NULL,
    configuration TEXT NOT NULL,
    state TEXT NOT NULL,
    tasks INTEGER NOT NULL,
    PRIMARY KEY (analysis_time, configuration, state)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER count_new AFTER INSERT ON tasks BEGIN
    INSERT INTO counts VALUES (new.analysis_time, new.configuration, new.state, 1)
        ON CONFLICT DO UPDATE SET tasks = tasks + 1;
END;

CREATE TRIGGER count_moved AFTER UPDATE OF state ON tasks WHEN old.state <> new.state BEGIN
    UPDATE counts SET tasks = tasks - 1 WHERE analysis_time = old.analysis_time
        AND configuration = old.configuration AND state = old.state;
    INSERT INTO counts VALUES (new.analysis_time, new.configuration, new.state, 1)
        ON CONFLICT DO UPDATE SET tasks = tasks + 1;
END;

CREATE TABLE attempts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    task INTEGER NOT NULL REFERENCES tasks (id),
    -- NULL for one that was found published.
    run INTEGER REFERENCES runs (id),
    number INTEGER NOT NULL,
    started INTEGER NOT NULL,
    ended INTEGER,
    -- NULL as long as it has not ended, or if it was killed.
    state TEXT,
    exit_code INTEGER,
    identity TEXT,
    error TEXT,
    log TEXT,
    bytes_in INTEGER NOT NULL DEFAULT 0,
    bytes_out INTEGER NOT NULL DEFAULT 0,
    peak_memory INTEGER,
    UNIQUE (task, number)
) STRICT;

CREATE INDEX attempts_under_way ON attempts (run) WHERE ended IS NULL;

CREATE TABLE phases (
    attempt INTEGER NOT NULL REFERENCES attempts (id),
    name TEXT NOT NULL,
    started INTEGER NOT NULL,
    -- NULL as long as it has not ended well.
    seconds REAL,
    bytes INTEGER,
    PRIMARY KEY (attempt, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE outputs (
    task INTEGER NOT NULL REFERENCES tasks (id),
    name TEXT NOT NULL,
    uri TEXT NOT NULL,
    manifest TEXT NOT NULL,
    -- Over all its objects.
    digest TEXT NOT NULL,
    PRIMARY KEY (task, name)
) STRICT, WITHOUT ROWID;
