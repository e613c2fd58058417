package main

import (
	"context"
	"os"
	"time"

	"quicproquo.dev/test/interop/node"
	"quicproquo.dev/test/interop/tsmls"
)

// buildTime is how long ts-mls may take to build a group, or to measure.
const buildTime = 5 * time.Minute

// tsMLS measures itself inside a node process, by performance.now.
type tsMLS struct{ process *node.Process }

func newTSMLS(ctx context.Context) (*tsMLS, error) {
	dir, err := tsmls.Install(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	p, err := node.Start(node.Folder("bench.mjs"), dir)
	if err != nil {
		return nil, err
	}
	return &tsMLS{process: p}, nil
}

func (t *tsMLS) name() string { return tsmls.Name }
func (t *tsMLS) close() error { return t.process.Close() }

func (t *tsMLS) build(n int) (group, error) {
	return t, t.process.CallWithin(buildTime, map[string]any{"op": "build", "n": n}, nil)
}

func (t *tsMLS) invite(to *foreign) error {
	var kp []byte
	if err := t.process.CallWithin(buildTime, map[string]any{"op": "guest"}, &kp); err != nil {
		return err
	}
	full, unmerged, err := to.welcomes(kp)
	if err != nil {
		return err
	}
	return t.process.CallWithin(buildTime, map[string]any{"op": "invite", "full": full, "unmerged": unmerged}, nil)
}

func (t *tsMLS) measure(op string, budget time.Duration) (sample, bool, error) {
	var result struct{ NS int64 }
	err := t.process.CallWithin(buildTime, map[string]any{
		"op": "measure", "name": op, "ms": float64(budget) / float64(time.Millisecond),
	}, &result)
	return sample{time: time.Duration(result.NS)}, result.NS != 0, err
}
