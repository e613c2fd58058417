package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// GrantServer gives a database role what `cell serve` needs and no more, so that migrations and pruning are left to the role that calls this, the owner:
// of the audit log it may read all, and add events and checkpoints. The owner must be a superuser or a member of the
// role; the role must be neither. Call it after each migration. It returns the statements that it ran; with dry it runs none.
func (s *Store) GrantServer(ctx context.Context, role string, dry bool) ([]string, error) {
	if err := s.checkServerRole(ctx, role); err != nil {
		return nil, err
	}
	var statements []string
	err := s.tx(ctx, func(tx pgx.Tx) error {
		tables, err := ownTables(ctx, tx)
		if err != nil {
			return err
		}
		statements = serverGrants(pgx.Identifier{role}.Sanitize(), tables)
		if dry {
			return nil
		}
		for _, sql := range statements {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
		return nil
	})
	return statements, err
}

// checkServerRole refuses roles that could do as they like whatever they are granted.
func (s *Store) checkServerRole(ctx context.Context, role string) error {
	var super, member bool
	err := s.pool.QueryRow(ctx, `SELECT rolsuper, pg_has_role(rolname, (SELECT relowner FROM pg_class WHERE oid = 'audit_events'::regclass), 'MEMBER')
		FROM pg_roles WHERE rolname = $1`, role).Scan(&super, &member)
	switch err = classify(err); {
	case err != nil:
		return fmt.Errorf("looking for the role %q: %w", role, err)
	case super:
		return fmt.Errorf("the role %q is a superuser, whom no grant binds; create an ordinary one", role)
	case member:
		return fmt.Errorf("the role %q owns the audit log, or is a member of who does; create one that is not", role)
	}
	return nil
}

// table is a table of the schema, and whether the server must own it: it makes and removes its partitions.
type table struct {
	name        string
	partitioned bool
}

func ownTables(ctx context.Context, tx pgx.Tx) ([]table, error) {
	rows, err := tx.Query(ctx, `SELECT relname, relkind = 'p' OR EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid) FROM pg_class c
		WHERE relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'audit_events'::regclass) AND relkind IN ('r', 'p')
		ORDER BY relname`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (t table, err error) {
		err = row.Scan(&t.name, &t.partitioned)
		return t, err
	})
}

// auditGrants are the rights of the server on the tables of the audit log.
var auditGrants = map[string]string{
	"audit_events":           "SELECT, INSERT",
	"audit_checkpoints":      "SELECT, INSERT",
	"audit_checkpoint_heads": "SELECT, INSERT",
	"audit_prunings":         "SELECT",
	"audit_subjects":         "SELECT, INSERT, DELETE, UPDATE (key_sealed)", // To seal it anew.
	"audit_address_keys":     "SELECT, INSERT, DELETE, UPDATE (key_sealed)",
	"goose_db_version":       "SELECT",
	"cell":                   "SELECT",
}

func serverGrants(role string, tables []table) []string {
	list := []string{"GRANT USAGE, CREATE ON SCHEMA public TO " + role}
	for _, t := range tables {
		name := pgx.Identifier{t.name}.Sanitize()
		if t.partitioned {
			list = append(list, fmt.Sprintf("ALTER TABLE %s OWNER TO %s", name, role))
			continue
		}
		rights, ok := auditGrants[t.name]
		if !ok {
			rights = "SELECT, INSERT, UPDATE, DELETE"
		}
		list = append(list, fmt.Sprintf("REVOKE ALL ON %s FROM %s, PUBLIC", name, role), fmt.Sprintf("GRANT %s ON %s TO %s", rights, name, role))
	}
	return list
}
