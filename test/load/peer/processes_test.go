package peer

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

func TestAProcessIsReadWhateverItsName(t *testing.T) {
	t.Parallel()
	s, err := parseStat([]byte("42 (a ) (b) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 99 1 1 1\n"))
	if want := (stat{42, 7, 26 * clockTick}); err != nil || s != want {
		t.Errorf("%+v, %v; want %+v", s, err, want)
	}
	for _, bad := range []string{"", "42", "42 (x", "42 (x) S 7", "x (x) S 7 0 0 0 0 0 0 0 0 0 1 2 3 4 0 0"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestTheFamilyHasTheChildren(t *testing.T) {
	t.Parallel()
	child := exec.CommandContext(t.Context(), "sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	})
	pids, err := Family([]int{os.Getpid()})
	if err != nil || !slices.Contains(pids, child.Process.Pid) || !slices.Contains(pids, os.Getpid()) {
		t.Errorf("%v, %v: without the child %d", pids, err, child.Process.Pid)
	}
	if _, err := Family([]int{1 << 30}); err == nil {
		t.Error("a process that is not there was found")
	}
}

func TestCPUTimeGrows(t *testing.T) { //nolint:paralleltest // it measures itself.
	before, err := CPUTime([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; {
		now, err := CPUTime([]int{os.Getpid()})
		if err != nil {
			t.Fatal(err)
		}
		if now > before {
			return
		}
		if time.Now().After(end) {
			t.Fatal("ten busy seconds were not counted")
		}
	}
}
