package main

import (
	"fmt"
	"runtime"
	"time"
)

// The operations, from and to the bytes on the wire.
const (
	opAdd          = "add-commit"
	opAddPath      = "add-commit, with path"
	opJoin         = "join"
	opJoinFull     = "join, full tree"
	opJoinUnmerged = "join, unmerged"
	opProcess      = "process add-commit"
	opProcessPath  = "process add-commit, with path"
	opUpdate       = "update-commit"
	opEncrypt      = "encrypt 1 KiB"
	opDecrypt      = "decrypt 1 KiB"
)

// joins are the operations that are judged by their memory as well.
var joins = []string{opJoin, opJoinFull, opJoinUnmerged}

var operations = []string{opAdd, opAddPath, opJoin, opJoinFull, opJoinUnmerged, opProcess, opProcessPath, opUpdate, opEncrypt, opDecrypt}

const textSize = 1024

// engine builds groups.
type engine interface {
	name() string
	// build makes a group of n members, ready for every operation: the creator has
	// added all others by one Commit, and then made one with a path.
	build(n int) (group, error)
	close() error
}

// group is measured.
type group interface {
	// measure repeats an operation for about a budget of time, at least once. It
	// returns false if the engine does not offer the operation.
	measure(op string, budget time.Duration) (sample, bool, error)
	// invite takes the Welcomes to be joined in opJoinFull and opJoinUnmerged.
	invite(to *foreign) error
}

// people makes n clients of an engine.
func people[C any](name string, n int, makeOne func(string) (C, error)) ([]C, error) {
	all := make([]C, n)
	for i := range all {
		var err error
		if all[i], err = makeOne(fmt.Sprintf("%s-%d", name, i)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// sample is the mean of one measurement.
type sample struct {
	time time.Duration
	// bytes is what was allocated by one run, 0 if unknown.
	bytes uint64
}

// task is an operation of a Go engine that can be repeated.
type task struct {
	// reset brings the group back to where the operation begins; it is not timed. It
	// may be nil.
	reset func() error
	run   func() error
}

// tasks are by operation.
type tasks map[string]task

func (t tasks) task(op string) task { return t[op] }

func (t tasks) measure(op string, budget time.Duration) (sample, bool, error) {
	one, ok := t[op]
	if !ok {
		return sample{}, false, nil
	}
	runtime.GC() // what the others left behind
	bytes, err := one.allocated()
	if err != nil {
		return sample{}, true, err
	}
	var spent time.Duration
	runs := 0
	begin := time.Now()
	for runs == 0 || spent < budget && time.Since(begin) < 5*budget {
		if one.reset != nil {
			if err := one.reset(); err != nil {
				return sample{}, true, err
			}
		}
		start := time.Now()
		err := one.run()
		spent += time.Since(start)
		if err != nil {
			return sample{}, true, err
		}
		runs++
	}
	return sample{time: spent / time.Duration(runs), bytes: bytes}, true, nil
}

// allocated runs the task once, and returns how many bytes it allocated.
func (t task) allocated() (uint64, error) {
	if t.reset != nil {
		if err := t.reset(); err != nil {
			return 0, err
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := t.run()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc, err
}
