//go:build linux

// Package history runs clients against real cells over a real PostgreSQL while these are killed, drained and paused, their
// network is bad and their disk loses its power, and has everything that the clients saw judged (package check).
//
//	test/history/run                      # bounded: what `make test` runs
//	test/history/run -long -for 1h        # rounds with ever other seeds
//	test/history/run -seed 7 -rounds 1    # the same plan again
//	test/history/run -check FILE          # judge a history that was kept
package history
