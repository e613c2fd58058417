-- +goose Up

-- Which sealing keys rows may be under. A key's row goes when it has long sealed nothing and a look at every row has
-- found none under it.
CREATE TABLE sealing_keys (
    key_id     bigint      PRIMARY KEY,
    sealed_at  timestamptz NOT NULL
);

-- Which sealing keys the processes that run now have: a key seals once all have it.
CREATE TABLE sealing_processes (
    process_id uuid        PRIMARY KEY,
    key_ids    bigint[]    NOT NULL,
    seen_at    timestamptz NOT NULL
);
