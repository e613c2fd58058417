-- +goose Up

-- What was revoked lately, for the servers to refuse its access tokens and to end its connections. kind: 1 session,
-- 2 device, 3 account, 4 account that is taken back. added_by is the transaction that added the row: a server asks for
-- the rows of all transactions that had not ended when it asked before, however late they commit.
CREATE TABLE revocations (
    revocation_id bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind          smallint    NOT NULL,
    subject       uuid        NOT NULL,
    at            timestamptz NOT NULL,
    added_by      xid8        NOT NULL DEFAULT pg_current_xact_id()
);
CREATE INDEX revocations_by_transaction ON revocations (added_by);
CREATE INDEX revocations_by_time ON revocations (at);

-- To the day, so that it costs a write a day; null: never since this column is there.
ALTER TABLE devices ADD COLUMN last_seen date;

-- New devices that wait for another device of an account to approve them. What follows account_id is null until then;
-- finished_at is when the device was added: the row stays, without offer and approval, for an answer that was lost.
CREATE TABLE device_links (
    link_id         uuid        PRIMARY KEY,
    address_index   bytea,
    offer_sealed    bytea,
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,
    account_id      uuid        REFERENCES accounts ON DELETE CASCADE,
    certificate     bytea,
    name_sealed     bytea,
    approval        bytea,
    finished_at     timestamptz
);
CREATE INDEX device_links_by_expiry ON device_links (expires_at);
CREATE INDEX device_links_by_address ON device_links (address_index);
CREATE INDEX device_links_by_account ON device_links (account_id);
