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
