package server

import (
	"fmt"
	"os"
	"sync/atomic"

	"quicproquo.dev/cell/policy"
)

// policyFile is the policy in use and where it came from.
type policyFile struct {
	path  string
	value atomic.Pointer[policy.Policy]
}

func loadPolicy(path string) (*policyFile, error) {
	p, err := readPolicy(path)
	if err != nil {
		return nil, err
	}
	f := &policyFile{path: path}
	f.value.Store(p)
	return f, nil
}

func readPolicy(path string) (*policy.Policy, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the policy: %w", err)
	}
	p, err := policy.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

func (f *policyFile) current() *policy.Policy { return f.value.Load() }

func (f *policyFile) hash() string { return f.current().Hash() }

// reload reads the file again and reports whether the policy changed. An invalid file never replaces a good one.
func (f *policyFile) reload() (changed bool, err error) {
	p, err := readPolicy(f.path)
	if err != nil {
		return false, err
	}
	if p.Hash() == f.hash() {
		return false, nil
	}
	f.value.Store(p)
	return true, nil
}
