-- +goose Up

-- One row: what this database is, and which releases may use it. A release whose own schema version is below
-- min_compatible refuses to start; only a contracting migration raises it.
CREATE TABLE cell (
    singleton      boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    cell_id        uuid    NOT NULL DEFAULT gen_random_uuid(),
    restore_epoch  bigint  NOT NULL DEFAULT 1,
    min_compatible integer NOT NULL DEFAULT 1
);
INSERT INTO cell DEFAULT VALUES;

-- Columns named *_sealed are AES-256-GCM under the cell's sealing keys; name_index is an HMAC of the prepared name.
CREATE TABLE accounts (
    account_id            uuid        PRIMARY KEY,
    name_index            bytea       NOT NULL UNIQUE,
    name_sealed           bytea       NOT NULL,
    root_key              bytea       NOT NULL,
    opaque_record_sealed  bytea       NOT NULL,
    wrapped_root_sealed   bytea       NOT NULL,
    created_at            timestamptz NOT NULL
);

CREATE TABLE devices (
    device_id   uuid        PRIMARY KEY,
    account_id  uuid        NOT NULL REFERENCES accounts,
    device_key  bytea       NOT NULL,
    certificate bytea       NOT NULL,
    name_sealed bytea       NOT NULL,
    created_at  timestamptz NOT NULL,
    revoked_at  timestamptz
);
CREATE INDEX devices_by_account ON devices (account_id);

CREATE TABLE sessions (
    session_id    uuid        PRIMARY KEY,
    device_id     uuid        NOT NULL REFERENCES devices,
    refresh_hash  bytea       NOT NULL,
    previous_hash bytea,
    created_at    timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    revoked_at    timestamptz
);
CREATE INDEX sessions_by_device ON sessions (device_id);

CREATE TABLE key_packages (
    ref         bytea       PRIMARY KEY,
    device_id   uuid        NOT NULL REFERENCES devices,
    last_resort boolean     NOT NULL,
    expires_at  timestamptz NOT NULL,
    package     bytea       NOT NULL
);
CREATE INDEX key_packages_by_device ON key_packages (device_id, last_resort, expires_at);

-- Every KeyPackage and init key ever uploaded, until it has expired: none comes back.
CREATE TABLE key_packages_seen (
    ref        bytea       PRIMARY KEY,
    init_key   bytea       NOT NULL UNIQUE,
    expires_at timestamptz NOT NULL
);
CREATE INDEX key_packages_seen_by_expiry ON key_packages_seen (expires_at);

-- What a claim handed out, so that the same request id hands out the same again.
CREATE TABLE key_package_claims (
    claimer_id  uuid        NOT NULL REFERENCES devices,
    request_id  uuid        NOT NULL,
    account_id  uuid        NOT NULL,
    device_ids  uuid[]      NOT NULL,
    packages    bytea[]     NOT NULL,
    last_resort boolean[]   NOT NULL,
    claimed_at  timestamptz NOT NULL,
    PRIMARY KEY (claimer_id, request_id)
);
CREATE INDEX key_package_claims_by_time ON key_package_claims (claimed_at);

-- kind: 1 direct, 2 group, 3 the inbox of the device with the same id.
CREATE TABLE channels (
    channel_id uuid        PRIMARY KEY,
    kind       smallint    NOT NULL,
    generation integer     NOT NULL DEFAULT 0,
    epoch      bigint      NOT NULL DEFAULT 0,
    last_seq   bigint      NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE direct_channels (
    account_low  uuid NOT NULL REFERENCES accounts,
    account_high uuid NOT NULL REFERENCES accounts,
    channel_id   uuid NOT NULL UNIQUE REFERENCES channels,
    PRIMARY KEY (account_low, account_high),
    CHECK (account_low < account_high)
);

CREATE TABLE channel_members (
    channel_id uuid NOT NULL REFERENCES channels,
    account_id uuid NOT NULL REFERENCES accounts,
    PRIMARY KEY (channel_id, account_id)
);
CREATE INDEX channel_members_by_account ON channel_members (account_id);

CREATE TABLE groups (
    channel_id        uuid        NOT NULL REFERENCES channels,
    generation        integer     NOT NULL,
    epoch             bigint      NOT NULL,
    start_seq         bigint      NOT NULL,
    group_info_sealed bytea       NOT NULL,
    creator_id        uuid        NOT NULL REFERENCES devices,
    created_at        timestamptz NOT NULL,
    PRIMARY KEY (channel_id, generation)
);

-- The channels a device reads, and how far it has acknowledged each. A row is also the right to enqueue.
CREATE TABLE cursors (
    device_id  uuid   NOT NULL REFERENCES devices,
    channel_id uuid   NOT NULL REFERENCES channels,
    acked_seq  bigint NOT NULL,
    PRIMARY KEY (device_id, channel_id)
) WITH (fillfactor = 50);

-- One row per message, in partitions by day of expiry.
CREATE TABLE messages (
    channel_id    uuid        NOT NULL,
    seq           bigint      NOT NULL,
    expires_at    timestamptz NOT NULL,
    accepted_at   timestamptz NOT NULL,
    sender_id     uuid        NOT NULL,
    delivery_id   uuid        NOT NULL,
    about_channel uuid,
    generation    integer     NOT NULL,
    kind          smallint    NOT NULL,
    checksum      bytea       NOT NULL,
    payload       bytea       NOT NULL,
    PRIMARY KEY (channel_id, seq, expires_at)
) PARTITION BY RANGE (expires_at);
ALTER TABLE messages ALTER COLUMN payload SET STORAGE EXTERNAL;

-- Where each delivery id was stored, in partitions by day of the id's own time.
CREATE TABLE delivery_ids (
    sender_id   uuid        NOT NULL,
    delivery_id uuid        NOT NULL,
    id_time     timestamptz NOT NULL,
    channel_id  uuid        NOT NULL,
    seq         bigint      NOT NULL,
    accepted_at timestamptz NOT NULL,
    fingerprint bytea       NOT NULL,
    PRIMARY KEY (sender_id, delivery_id, id_time)
) PARTITION BY RANGE (id_time);
