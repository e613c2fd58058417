package peer

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of times in /proc, which the kernel's ABI fixes at 1/100 s.
const clockTick = 10 * time.Millisecond

// stat is one process of /proc.
type stat struct {
	pid, parent int
	cpu         time.Duration // Its own, and that of its children that were waited for.
}

// CPUTime is the processor time that processes and all that descend from them have used.
func CPUTime(roots []int) (time.Duration, error) {
	family, err := family(roots)
	var sum time.Duration
	for _, s := range family {
		sum += s.cpu
	}
	return sum, err
}

// Family lists processes and all that descend from them.
func Family(roots []int) ([]int, error) {
	family, err := family(roots)
	pids := make([]int, 0, len(family))
	for pid := range family {
		pids = append(pids, pid)
	}
	return pids, err
}

func family(roots []int) (map[int]stat, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	found := map[int]stat{}
	for _, pid := range roots {
		s, ok := all[pid]
		if !ok {
			return nil, fmt.Errorf("process %d is gone", pid)
		}
		found[pid] = s
	}
	for grown := true; grown; {
		grown = false
		for pid, s := range all {
			if _, in := found[pid]; in {
				continue
			}
			if _, in := found[s.parent]; in {
				found[pid], grown = s, true
			}
		}
	}
	return found, nil
}

func processes() (map[int]stat, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	all := make(map[int]stat, len(files))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // It has ended.
		}
		s, err := parseStat(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		all[s.pid] = s
	}
	return all, nil
}

// parseStat reads /proc/PID/stat (proc_pid_stat(5)). The name in parentheses may hold anything.
func parseStat(b []byte) (stat, error) {
	end := bytes.LastIndexByte(b, ')')
	open := bytes.IndexByte(b, ' ')
	if open < 0 || end < 0 {
		return stat{}, fmt.Errorf("%q is no process", b)
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 15 {
		return stat{}, fmt.Errorf("%q is no process", b)
	}
	var s stat
	var err error
	if s.pid, err = strconv.Atoi(string(b[:open])); err != nil {
		return s, err
	}
	if s.parent, err = strconv.Atoi(f[1]); err != nil {
		return s, err
	}
	for _, field := range f[11:15] { // utime, stime, cutime, cstime.
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return s, err
		}
		s.cpu += time.Duration(ticks) * clockTick
	}
	return s, nil
}

// Memory is the most physical memory that each of the processes and their descendants has had, in bytes, added up.
// Pages that processes share are counted more than once.
func Memory(roots []int) (int64, error) {
	pids, err := Family(roots)
	var sum int64
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
				kib, _ := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
				sum += kib << 10
			}
		}
	}
	return sum, err
}
