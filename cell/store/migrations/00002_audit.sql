-- +goose Up

-- The audit log. Rows of audit_events, audit_checkpoints and audit_checkpoint_heads are added and read, never changed:
-- the server's role needs INSERT and SELECT, and the triggers below refuse the rest to everybody who does not take them away first.
-- Package audit of the cell says what the columns hold.

-- The key of each account's pseudonyms, sealed. It goes with its account.
CREATE TABLE audit_subjects (
    account_id uuid  PRIMARY KEY REFERENCES accounts ON DELETE CASCADE,
    ref_index  bytea NOT NULL UNIQUE,
    key_sealed bytea NOT NULL
);

-- The keys that addresses are hashed with, one for each period; sealed, and deleted after some periods.
CREATE TABLE audit_address_keys (
    period     bigint PRIMARY KEY,
    key_sealed bytea  NOT NULL
);

CREATE TABLE audit_events (
    writer    uuid   NOT NULL,
    seq       bigint NOT NULL CHECK (seq > 0),
    prev_hash bytea  NOT NULL,
    body      bytea  NOT NULL,
    hash      bytea  NOT NULL,
    mac       bytea  NOT NULL,
    PRIMARY KEY (writer, seq)
);

-- What was last recorded of the cell's own state, by the kind and time in a record: keys (410) and policies (605).
CREATE INDEX audit_events_of_state ON audit_events (substring(body FROM 2 FOR 2), substring(body FROM 8 FOR 8))
    WHERE substring(body FROM 2 FOR 2) IN ('\x019a'::bytea, '\x025d'::bytea);

CREATE TABLE audit_checkpoints (
    number     bigint      PRIMARY KEY CHECK (number > 0),
    at         timestamptz NOT NULL,
    body       bytea       NOT NULL,
    public_key bytea       NOT NULL,
    signature  bytea       NOT NULL
);

-- What is in a checkpoint's body too, so that a chain's last signed row is found.
CREATE TABLE audit_checkpoint_heads (
    writer uuid   NOT NULL,
    seq    bigint NOT NULL,
    number bigint NOT NULL,
    hash   bytea  NOT NULL,
    PRIMARY KEY (writer, seq)
);
CREATE INDEX audit_checkpoint_heads_by_number ON audit_checkpoint_heads (number);

-- What was removed on purpose: everything up to a checkpoint. Only the owner adds rows.
CREATE TABLE audit_prunings (
    checkpoint bigint      PRIMARY KEY,
    at         timestamptz NOT NULL,
    body       bytea       NOT NULL,
    public_key bytea       NOT NULL,
    signature  bytea       NOT NULL
);

-- +goose StatementBegin
CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is added to, never changed: % of % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END $$;
-- +goose StatementEnd

-- What a recorded pruning covers may go, and nothing else.
-- +goose StatementBegin
CREATE FUNCTION audit_refuse_delete() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    pruned bigint := (SELECT max(checkpoint) FROM audit_prunings);
    gone   boolean;
BEGIN
    IF TG_TABLE_NAME = 'audit_events' THEN
        gone := EXISTS (SELECT FROM audit_checkpoint_heads h WHERE h.writer = OLD.writer AND h.seq >= OLD.seq AND h.number <= pruned);
    ELSE
        gone := OLD.number <= pruned;
    END IF;
    IF gone IS NOT TRUE THEN
        RAISE EXCEPTION 'the audit log is added to, never changed: DELETE of % is refused but for what was pruned', TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN OLD;
END $$;
-- +goose StatementEnd

CREATE TRIGGER audit_refuse BEFORE UPDATE OR TRUNCATE ON audit_events FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_refuse BEFORE UPDATE OR TRUNCATE ON audit_checkpoints FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_refuse BEFORE UPDATE OR TRUNCATE ON audit_checkpoint_heads FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_prunings FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_refuse_delete BEFORE DELETE ON audit_events FOR EACH ROW EXECUTE FUNCTION audit_refuse_delete();
CREATE TRIGGER audit_refuse_delete BEFORE DELETE ON audit_checkpoints FOR EACH ROW EXECUTE FUNCTION audit_refuse_delete();
CREATE TRIGGER audit_refuse_delete BEFORE DELETE ON audit_checkpoint_heads FOR EACH ROW EXECUTE FUNCTION audit_refuse_delete();
