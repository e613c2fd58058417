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

// changed reads the file again and returns the policy in it, or nil when that is the one in use.
func (f *policyFile) changed() (*policy.Policy, error) {
	p, err := readPolicy(f.path)
	if err != nil || p.Hash() == f.hash() {
		return nil, err
	}
	return p, nil
}

// use makes p the policy in use.
func (f *policyFile) use(p *policy.Policy) { f.value.Store(p) }
