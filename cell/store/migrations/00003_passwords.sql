-- +goose Up

-- Which of the cell's OPAQUE keys an account's password is registered under: the first had the id 1.
-- skeleton_index is an HMAC of what the name looks like; without it, the account is older than the rule that no two look alike.
ALTER TABLE accounts
    ADD COLUMN opaque_key_id  bigint NOT NULL DEFAULT 1,
    ADD COLUMN skeleton_index bytea UNIQUE;

-- What recognizes a recovery code: a public key that follows from it. Without a wrapped root key it is a reset code.
CREATE TABLE recovery_codes (
    recovery_key        bytea       PRIMARY KEY,
    account_id          uuid        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    wrapped_root_sealed bytea,
    created_at          timestamptz NOT NULL,
    expires_at          timestamptz
);
CREATE INDEX recovery_codes_by_account ON recovery_codes (account_id);

-- Invitations that nobody has used yet, as hashes.
CREATE TABLE invitations (
    code_hash  bytea       PRIMARY KEY,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);

-- Logins that were begun and not (yet) finished well, by an HMAC of whom they count against. A row is of no more use
-- after forget_at.
CREATE TABLE login_attempts (
    subject   bytea       PRIMARY KEY,
    failures  integer     NOT NULL,
    last_at   timestamptz NOT NULL,
    forget_at timestamptz NOT NULL
) WITH (fillfactor = 70);

-- Where an account's people have logged in from, as HMACs of addresses: there, strangers' failures do not hold them up.
CREATE TABLE known_addresses (
    account_id    uuid        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    address_index bytea       NOT NULL,
    until         timestamptz NOT NULL,
    PRIMARY KEY (account_id, address_index)
);
