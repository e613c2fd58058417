// Package podcheck asks the pods of a cell, at their own addresses, what they
// use: the policy on the ops port, the certificate on the QUIC endpoint.
package podcheck

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/quic-go/quic-go"
)

// alpn is the protocol that servers ask for in the handshake.
const alpn = "qpq/1"

// maxAnswer bounds what is read of an answer: a hash in hex and a newline.
const maxAnswer = 256

// Pods asks pods. The zero value asks nobody: both ports are needed. It may be
// used from any goroutine.
type Pods struct {
	// QUICPort and OpsPort are the ports of every pod.
	QUICPort, OpsPort int
}

// Policy returns the hash of the policy in use at a pod's address.
func (p Pods) Policy(ctx context.Context, ip string) (string, error) {
	url := "http://" + net.JoinHostPort(ip, strconv.Itoa(p.OpsPort)) + "/policy"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	// Each question is one of a kind: nothing is kept open.
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answers %s", url, response.Status)
	}
	return strings.TrimSpace(string(body)), nil
}

// errNoTLS cannot happen: QUIC has no connections without TLS.
var errNoTLS = errors.New("the server presented no certificate")

// Chain returns the certificates, DER, leaf first, that the server at a pod's
// address presents to a client that asks for host. It does not judge them.
func (p Pods) Chain(ctx context.Context, ip, host string) ([][]byte, error) {
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{alpn},
		ServerName: host,
		// The caller judges what is presented; nothing is sent.
		InsecureSkipVerify: true, //nolint:gosec // See above.
	}
	conn, err := quic.DialAddr(ctx, net.JoinHostPort(ip, strconv.Itoa(p.QUICPort)), config, nil)
	if err != nil {
		return nil, err
	}
	peers := conn.ConnectionState().TLS.PeerCertificates
	if err := conn.CloseWithError(0, ""); err != nil {
		return nil, err
	}
	if len(peers) == 0 {
		return nil, errNoTLS
	}
	chain := make([][]byte, len(peers))
	for i, cert := range peers {
		chain[i] = cert.Raw
	}
	return chain, nil
}
