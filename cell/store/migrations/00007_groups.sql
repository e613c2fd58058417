-- +goose Up

-- remove_first: devices that were revoked while they were in the channel's MLS group; nothing but a Commit that removes
-- them is taken. muted: accounts that may not write, because the other one of a direct channel blocks them. retention_sec,
-- history (0 the policy's, 1 on, 2 off): the channel's own. epoch_seq: of the Commit that began the epoch. purged_seq: up to
-- here messages were deleted because every device had acknowledged them.
ALTER TABLE channels
    ADD COLUMN epoch_seq     bigint   NOT NULL DEFAULT 0,
    ADD COLUMN remove_first  uuid[],
    ADD COLUMN muted         uuid[],
    ADD COLUMN retention_sec integer,
    ADD COLUMN history       smallint NOT NULL DEFAULT 0,
    ADD COLUMN purged_seq    bigint   NOT NULL DEFAULT 0;
CREATE INDEX channels_by_retention ON channels (retention_sec) WHERE retention_sec IS NOT NULL;

-- role: 1 member, 2 moderator, 3 admin.
ALTER TABLE channel_members
    ADD COLUMN role      smallint    NOT NULL DEFAULT 1,
    ADD COLUMN joined_at timestamptz NOT NULL DEFAULT now();

-- state_sealed: the public state of the MLS group; null while it is what group_info shows. proposals: how many it holds.
ALTER TABLE groups
    ADD COLUMN proposals    integer NOT NULL DEFAULT 0,
    ADD COLUMN state_sealed bytea;

-- until_seq: of the Commit that removed the device, which reads up to it and writes nothing. Null: it is in the group.
-- gaps: pairs of sequences, after one up to another: what the device does not read, because it was not in the group then, and had
-- not read up to its removal when it came back.
ALTER TABLE cursors
    ADD COLUMN until_seq bigint,
    ADD COLUMN gaps      bigint[];
CREATE INDEX cursors_ended ON cursors (channel_id) WHERE until_seq IS NOT NULL;
CREATE INDEX IF NOT EXISTS cursors_by_channel ON cursors (channel_id);

-- subscription: how many subscriptions the device has begun; the latest one counts, at whichever process.
ALTER TABLE devices ADD COLUMN subscription bigint NOT NULL DEFAULT 0;

CREATE TABLE generation_votes (
    channel_id uuid        NOT NULL REFERENCES channels ON DELETE CASCADE,
    generation integer     NOT NULL,
    account_id uuid        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    voted_at   timestamptz NOT NULL,
    PRIMARY KEY (channel_id, generation, account_id)
);
CREATE INDEX generation_votes_by_account ON generation_votes (account_id);

-- How two accounts stand to each other. state: 0 nobody has asked, 1 asker has asked, 2 accepted. asks: how often asker
-- has asked since asks_since.
CREATE TABLE contacts (
    account_low  uuid        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    account_high uuid        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    state        smallint    NOT NULL DEFAULT 0,
    asker        uuid,
    low_blocks   boolean     NOT NULL DEFAULT false,
    high_blocks  boolean     NOT NULL DEFAULT false,
    since        timestamptz NOT NULL,
    asks         integer     NOT NULL DEFAULT 0,
    asks_since   timestamptz NOT NULL,
    PRIMARY KEY (account_low, account_high),
    CHECK (account_low < account_high)
);
CREATE INDEX contacts_by_high ON contacts (account_high, account_low);
CREATE INDEX contacts_by_asker ON contacts (asker) WHERE state = 1;

-- Devices whose one-time KeyPackages run out, until they upload more.
CREATE TABLE key_packages_low (
    device_id uuid PRIMARY KEY REFERENCES devices ON DELETE CASCADE
);

-- By which claims of an account's KeyPackages are counted.
CREATE INDEX IF NOT EXISTS key_package_claims_by_account ON key_package_claims (account_id);
