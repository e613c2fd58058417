//go:build linux

package bed

import (
	"bytes"
	"net"
	"os/exec"
	"testing"
	"time"
)

// echo answers every packet with itself.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := l.ReadFromUDP(buf)
			if err != nil {
				return
			}
			_, _ = l.WriteToUDP(buf[:n], from)
		}
	}()
	return l.LocalAddr().String()
}

// through sends packets through a proxy and counts what comes back.
func through(t *testing.T, p *Proxy, packets int) int {
	t.Helper()
	c, err := net.Dial("udp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	written := make(chan struct{})
	go func() { // While they are read: the sockets' buffers are small.
		for i := range packets {
			if _, err := c.Write([]byte{byte(i), 1, 2, 3}); err != nil { //nolint:gosec // a number of any kind.
				t.Error(err)
			}
			time.Sleep(time.Millisecond)
		}
		close(written)
	}()
	came := 0
	buf := make([]byte, 64)
	for {
		_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := c.Read(buf)
		if err != nil {
			select {
			case <-written:
				return came
			default:
				continue
			}
		}
		if !bytes.Equal(buf[1:n], []byte{1, 2, 3}) {
			t.Error("a packet was changed")
		}
		came++
	}
}

func TestTheWeatherIsAsItIsSet(t *testing.T) {
	t.Parallel()
	p, err := NewProxy(echo(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	const packets = 100
	p.Set(Weather{})
	if n := through(t, p, packets); n != packets {
		t.Errorf("%d of %d packets came through a network that loses none", n, packets)
	}
	p.Set(Dark)
	if n := through(t, p, packets); n != 0 {
		t.Errorf("%d packets came through a network that loses all", n)
	}
	p.Set(Weather{Double: 1})
	if n := through(t, p, packets); n != 4*packets { // There and back.
		t.Errorf("%d packets came of %d that are doubled each way", n, packets)
	}
	p.Set(Weather{Drop: 0.5, Delay: 0.5, Most: 20 * time.Millisecond})
	if n := through(t, p, packets); n == 0 || n > packets/2 {
		t.Errorf("%d of %d packets came through a network that loses half, each way", n, packets)
	}
}

func TestNothingOfAKilledTreeIsLeft(t *testing.T) {
	t.Parallel()
	p, err := spawn(exec.Command("sh", "-c", "sleep 100 & sleep 100 & sleep 100")) //nolint:noctx // killed below.
	if err != nil {
		t.Fatal(err)
	}
	pid := p.cmd.Process.Pid
	kids := children(pid)
	for end := time.Now().Add(10 * time.Second); len(kids) < 3 && time.Now().Before(end); kids = children(pid) {
		time.Sleep(time.Millisecond)
	}
	if len(kids) != 3 || p.ended() {
		t.Fatalf("children %v", kids)
	}
	if err := killTree(pid); err != nil {
		t.Fatal(err)
	}
	<-p.done
	for _, k := range kids {
		if running(k) {
			t.Errorf("child %d lives", k)
		}
	}
}
