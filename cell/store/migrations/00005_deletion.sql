-- +goose Up

-- disabled_at: the admin shut the account out. deleting_at: the account is being deleted; what is left of it is ids, and
-- the server removes them step by step.
ALTER TABLE accounts
    ADD COLUMN disabled_at timestamptz,
    ADD COLUMN deleting_at timestamptz;
CREATE INDEX accounts_deleting ON accounts (deleting_at) WHERE deleting_at IS NOT NULL;

-- A closed channel takes no messages: an account of it was deleted. The row goes once all its messages have expired, by then.
ALTER TABLE channels ADD COLUMN closed_until timestamptz;
CREATE INDEX channels_closed ON channels (closed_until) WHERE closed_until IS NOT NULL;

-- Devices of deleted accounts whose messages others may still read, with the account's id, which leads nowhere else.
CREATE TABLE departed_senders (
    device_id      uuid        PRIMARY KEY,
    account_sealed bytea       NOT NULL,
    until          timestamptz NOT NULL
);
CREATE INDEX departed_senders_by_time ON departed_senders (until);

-- Null: the device's account was deleted.
ALTER TABLE groups ALTER COLUMN creator_id DROP NOT NULL;

-- By which deletion finds rows, and PostgreSQL that none are left.
CREATE INDEX groups_by_creator ON groups (creator_id);
CREATE INDEX cursors_by_channel ON cursors (channel_id);
CREATE INDEX direct_channels_by_high ON direct_channels (account_high);
CREATE INDEX key_package_claims_by_account ON key_package_claims (account_id);
