package controllers

import (
	"context"
	"fmt"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"

	"quicproquo.dev/controllers/resources"
	"quicproquo.dev/internal/admintoken"
)

// adminTokenLife is how long an admin token is valid. It is renewed at half of
// it: whoever reads the Secret has hours left, and whoever has lost the right
// to read it is out within a day.
const adminTokenLife = 23 * time.Hour

// reconcileAdminTokens keeps valid admin tokens in a Secret of the cell: who
// may read it, may administer the cell. They are signed with a key of the
// cell's, so that servers need not be told.
func reconcileAdminTokens(ctx context.Context, s *scope) (ctrl.Result, error) {
	if s.keys == nil {
		return ctrl.Result{}, nil // A condition says why.
	}
	keys, err := admintoken.New(s.keys.tokens)
	if err != nil {
		return ctrl.Result{}, err
	}
	live, err := s.ownSecret(ctx, resources.AdminName(s.cell))
	if err != nil {
		return ctrl.Result{}, err
	}
	data := map[string][]byte{}
	if live != nil {
		data = live.Data
	}
	token, first, err := s.adminToken(keys, data, resources.AdminTokenKey, admintoken.CellAdmin)
	if err != nil {
		return ctrl.Result{}, err
	}
	auditor, second, err := s.adminToken(keys, data, resources.AuditorTokenKey, admintoken.Auditor)
	if err != nil {
		return ctrl.Result{}, err
	}
	if _, err := apply(ctx, s, resources.AdminTokens(s.cell, token, auditor)); err != nil {
		return ctrl.Result{}, err
	}
	return again(max(min(first, second), time.Second)), nil
}

// adminToken returns the token that there is, while it is worth keeping, or
// else a fresh one, and how long it stays worth keeping.
func (s *scope) adminToken(keys *admintoken.Keys, data map[string][]byte, key string, role admintoken.Role) (text string, renewal time.Duration, err error) {
	name := fmt.Sprintf("%s/%s", resources.AdminName(s.cell), key) // At most 60 characters.
	text = string(data[key])
	token, err := admintoken.Parse(text)
	if err != nil || !keys.Fresh(token, role, name, s.now) {
		if token, err = keys.Mint(role, name, s.now, adminTokenLife); err != nil {
			return "", 0, err
		}
		text = admintoken.Format(token)
	}
	claims, err := keys.Verify(token, s.now)
	return text, admintoken.Renewal(claims).Sub(s.now), err
}
