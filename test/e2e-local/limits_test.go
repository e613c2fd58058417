package e2elocal

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/client"
	"quicproquo.dev/client/conn"
)

// A client that is told to wait waits, and people notice nothing but that it takes longer.
func TestLowLimits(t *testing.T) {
	t.Parallel()
	c := makeCell(t, func(p *policy.Policy) { p.Limits.RequestsPerSecond, p.Limits.RequestBurst = 5, 8 })
	alice, bob := c.signup("alice"), c.signup("bob")
	begin := time.Now()
	var texts []string
	for i := range 12 {
		texts = append(texts, fmt.Sprint("message ", i))
		alice.dm(bob, texts[i])
	}
	if took := time.Since(begin); took < 2*time.Second {
		t.Errorf("12 messages took %s: the limit was not felt", took)
	}
	bob.expect(texts...)
	bob.expect() // All were acknowledged, too.
}

// A person whose place is taken is told so, in words, and gets it once it is free.
func TestNoPlaceForAConnection(t *testing.T) {
	t.Parallel()
	c := makeCell(t, func(p *policy.Policy) { p.Limits.ConnectionsPerIP = 1 })
	alice := c.signup("alice") // Keeps its connection.
	o := c.options()
	o.RetryFor = 1500 * time.Millisecond
	begin := time.Now()
	_, err := client.Signup(t.Context(), o, "bob")
	var refused *conn.RefusedError
	if !errors.As(err, &refused) || !client.Retryable(err) || client.Code(err) != "connectionRefused" {
		t.Fatalf("bob signs up: %v", err)
	}
	expectNoProfile(t, o)
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %s to find out", took)
	}
	o.RetryFor = 30 * time.Second
	time.AfterFunc(time.Second, alice.Close)
	bob, err := client.Signup(t.Context(), o, "bob")
	if err != nil {
		t.Fatalf("bob signs up when there is a place: %v", err)
	}
	bob.Close()
}

// A client is served while strangers' handshakes fill what is taken without proof.
func TestClientsProveTheirAddress(t *testing.T) {
	t.Parallel()
	c := makeCell(t, func(p *policy.Policy) {
		p.Limits.HandshakesBeforeRetry = 1
		p.Limits.TrustedRanges = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	})
	to, err := net.ResolveUDPAddr("udp", c.addr)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)}, to)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	packet := make([]byte, 1200) // The first of a handshake that leads nowhere.
	copy(packet, []byte{0xc0, 0, 0, 0, 1, 8, 14: 8, 24: 0x44, 25: 0x96})
	if _, err := stranger.Write(packet); err != nil {
		t.Fatal(err)
	}
	alice, bob := c.signup("alice"), c.signup("bob")
	alice.dm(bob, "hello")
	bob.expect("hello")
}
