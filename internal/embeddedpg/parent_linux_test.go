package embeddedpg

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A killed caller takes its server along, cleanly, and the next caller may
// start at once: it waits for the old server's end.
func TestKilledParent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd, pid := startHolder(t, dir)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // "killed", as it should be

	s := startServer(t, Options{Dir: dir})
	query(t, s, "SELECT 1")
	pids, err := serversIn(filepath.Join(dir, "data"), 0)
	if err != nil || slices.Contains(pids, pid) || !slices.Contains(pids, s.PID()) {
		t.Errorf("servers %v run (%v), wanted the new %d and not the old %d", pids, err, s.PID(), pid)
	}
	log := readFile(t, filepath.Join(dir, "postgres.log"))
	if !strings.Contains(log, "received fast shutdown request") || strings.Contains(log, "not properly shut down") {
		t.Errorf("the old server was not shut down cleanly:\n%s", log)
	}
}

// startHolder runs this test binary as the owner of a server.
func startHolder(t *testing.T, dir string) (*exec.Cmd, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), holdEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the holder did not start its server: %v", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return cmd, pid
}

// The kernel ties a child to the thread that forked it. A caller's thread that
// ends must not take the child along.
func TestOutlivesThread(t *testing.T) {
	t.Parallel()
	cmd := account{}.command("/bin/cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var p *process
	thread := make(chan int)
	onEndingThread(func() {
		p, err = startProcess(cmd, syscall.SIGKILL, nil)
		thread <- syscall.Gettid()
	})
	awaitThreadEnd(t, <-thread)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("alive\n")); err != nil {
		t.Errorf("the child went with the thread: %v", err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "alive\n" {
		t.Errorf("the child went with the thread: %q, %v", line, err)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	await(t, p.done)
}

// onEndingThread runs f on a thread that ends after it. The process's first
// thread never does, so it is passed over.
func onEndingThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if syscall.Gettid() == syscall.Getpid() {
			defer runtime.UnlockOSThread()
			done := make(chan struct{})
			onEndingThread(func() { defer close(done); f() })
			<-done
			return
		}
		f() // and never unlocks
	}()
}

func awaitThreadEnd(t *testing.T, tid int) {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(filepath.Join("/proc/self/task", strconv.Itoa(tid))); err != nil {
			return
		}
	}
	t.Fatalf("thread %d does not end", tid)
}
