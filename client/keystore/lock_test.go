package keystore

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
)

const (
	childEnv = "KEYSTORE_TEST_CHILD"
	rounds   = 40
)

// TestMain lets the test binary be the other process.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := countUp(dir, rounds); err != nil {
			println(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// countUp adds 1 to a record, n times, each in an Update of its own.
func countUp(dir string, n int) error {
	s, err := Open(dir, passphrase)
	if err != nil {
		return err
	}
	for range n {
		err := s.Update(context.Background(), func(tx *Tx) error {
			b, err := tx.Get("counter")
			if err != nil {
				return err
			}
			v, err := strconv.Atoi(string(b))
			if err != nil {
				return err
			}
			return tx.Put("counter", []byte(strconv.Itoa(v+1)))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func TestTwoProcessesLoseNoUpdate(t *testing.T) {
	t.Parallel()
	s := makeStore(t)
	put(t, s, "counter", "0")
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			child := exec.Command(os.Args[0]) //nolint:gosec // this very test.
			child.Env = append(os.Environ(), childEnv+"="+s.dir)
			if out, err := child.CombinedOutput(); err != nil {
				t.Errorf("child: %v: %s", err, out)
			}
		})
	}
	wg.Go(func() {
		if err := countUp(s.dir, rounds); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
	if got := get(t, s, "counter"); got != strconv.Itoa(3*rounds) {
		t.Errorf("counter = %s, want %d", got, 3*rounds)
	}
	expectFiles(t, s, "counter")
}

func TestReadersNeverSeeAWipedFile(t *testing.T) {
	t.Parallel()
	s := makeStore(t)
	put(t, s, "counter", "0")
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := countUp(s.dir, rounds); err != nil {
			t.Error(err)
		}
	}()
	for {
		get(t, s, "counter")
		select {
		case <-done:
			return
		default:
		}
	}
}

func TestNamedLocks(t *testing.T) {
	t.Parallel()
	s := makeStore(t)
	ctx := t.Context()
	unlock, err := s.Share(ctx, "reader")
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Share(ctx, "reader")
	if err != nil {
		t.Fatal(err)
	}
	again()
	if got, err := s.TryLock("reader"); got != nil || err != nil {
		t.Errorf("TryLock of a shared lock succeeded (%v)", err)
	}
	unlock()
	got, err := s.TryLock("reader")
	if got == nil || err != nil {
		t.Fatalf("TryLock of a free lock: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Lock(ended, "reader"); !errors.Is(err, context.Canceled) {
		t.Errorf("Lock with a context that ended: %v", err)
	}
	got()
}
