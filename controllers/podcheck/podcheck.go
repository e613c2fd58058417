// Package podcheck asks the pods of a cell, at their own addresses, what they
// use: the policy on the ops port, the certificate on the QUIC endpoint.
package podcheck

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
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

// maxReport bounds a report in JSON.
const maxReport = 16 << 10

// Pods asks pods. The zero value asks nobody: both ports are needed. It may be
// used from any goroutine.
type Pods struct {
	// QUICPort and OpsPort are the ports of every pod.
	QUICPort, OpsPort int
}

// Policy returns the hash of the policy in use at a pod's address.
func (p Pods) Policy(ctx context.Context, ip string) (string, error) {
	body, err := p.get(ctx, ip, "/policy", maxAnswer)
	return strings.TrimSpace(string(body)), err
}

// Durability returns what is wrong with the settings of the database that the
// server at a pod's address uses, and what to do; nothing when they are safe.
func (p Pods) Durability(ctx context.Context, ip string) (string, error) {
	body, err := p.get(ctx, ip, "/durability", maxReport)
	if err != nil {
		return "", err
	}
	var report struct {
		Reduced  bool
		Problems []struct{ Setting, Value, Message string }
	}
	if err := json.Unmarshal(body, &report); err != nil {
		return "", fmt.Errorf("the answer about durability is not as it should be: %w", err)
	}
	if !report.Reduced {
		return "", nil
	}
	var texts []string
	for _, problem := range report.Problems {
		texts = append(texts, fmt.Sprintf("%s is %q: %s", problem.Setting, problem.Value, problem.Message))
	}
	return cmp.Or(strings.Join(texts, "; "), "the database's settings are such that it may lose what it has acknowledged"), nil
}

// get asks the ops port.
func (p Pods) get(ctx context.Context, ip, path string, most int64) ([]byte, error) {
	url := "http://" + net.JoinHostPort(ip, strconv.Itoa(p.OpsPort)) + path
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	// Each question is one of a kind: nothing is kept open.
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", url, response.Status)
	}
	return io.ReadAll(io.LimitReader(response.Body, most))
}

// errNoTLS cannot happen: QUIC has no connections without TLS.
var errNoTLS = errors.New("the server presented no certificate")

// Chain returns the certificates, DER, leaf first, that the server at a pod's
// address presents to a client that asks for host. It does not judge them. That
// the server then asks for a certificate, of which there is none here, is no
// error: its own has been seen.
func (p Pods) Chain(ctx context.Context, ip, host string) ([][]byte, error) {
	var chain [][]byte
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{alpn},
		ServerName: host,
		// The caller judges what is presented; nothing is sent.
		InsecureSkipVerify: true, //nolint:gosec // See above.
		VerifyConnection: func(s tls.ConnectionState) error {
			for _, cert := range s.PeerCertificates {
				chain = append(chain, cert.Raw)
			}
			return nil
		},
	}
	conn, err := quic.DialAddr(ctx, net.JoinHostPort(ip, strconv.Itoa(p.QUICPort)), config, nil)
	if err == nil {
		err = conn.CloseWithError(0, "")
	}
	if err != nil && !asksForCertificate(err) {
		return nil, err
	}
	if len(chain) == 0 {
		return nil, errNoTLS
	}
	return chain, nil
}

// certificateRequired is the alert of RFC 8446 §6.2 as QUIC has it (RFC 9001
// §4.8). It comes encrypted: the server has shown that its certificate is its
// own.
const certificateRequired quic.TransportErrorCode = 0x100 + 116

func asksForCertificate(err error) bool {
	var transport *quic.TransportError
	return errors.As(err, &transport) && transport.Remote && transport.ErrorCode == certificateRequired
}
