package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"time"
)

// peakHeap returns by how much a task makes the live heap grow at most, in bytes: the
// median of several runs.
func peakHeap(t task) (uint64, error) {
	defer debug.SetGCPercent(debug.SetGCPercent(2)) // collect at each small growth
	peaks := make([]uint64, 5)
	for i := range peaks {
		var err error
		if peaks[i], err = t.peakHeap(); err != nil {
			return 0, err
		}
	}
	slices.Sort(peaks)
	return peaks[len(peaks)/2], nil
}

// peakHeap runs the task once, and asks all the while what the last collection found.
func (t task) peakHeap() (uint64, error) {
	if t.reset != nil {
		if err := t.reset(); err != nil {
			return 0, err
		}
	}
	runtime.GC()
	base := liveHeap()
	stop, peak := make(chan struct{}), make(chan uint64)
	go func() {
		most := base
		for {
			select {
			case <-stop:
				peak <- max(most, liveHeap())
				return
			case <-time.After(100 * time.Microsecond):
				most = max(most, liveHeap())
			}
		}
	}()
	err := t.run()
	close(stop)
	return <-peak - base, err
}

// liveHeap is what the last collection found alive.
func liveHeap() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
