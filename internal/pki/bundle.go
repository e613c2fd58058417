package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// MaxBundle is how many CAs a bundle can have: each handshake tells a client
// of all of them.
const MaxBundle = 64

// ParseCAs reads a PEM file with the certificates of CAs and nothing else: what
// was put into it by mistake must not be trusted, nor silently passed over.
func ParseCAs(text []byte) ([]*x509.Certificate, error) {
	var cas []*x509.Certificate
	for rest := bytes.TrimSpace(text); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		if block, rest = nextBlock(rest); block == nil {
			return nil, errors.New("there is something that is no PEM; write CA certificates in PEM, one after the other")
		}
		if block.Type != certBlock {
			return nil, fmt.Errorf("there is a PEM block %.32q; write CA certificates only", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d cannot be read: %w", len(cas)+1, err)
		}
		if !cert.BasicConstraintsValid || !cert.IsCA {
			return nil, fmt.Errorf("certificate %d, of %.80q, is not a CA's; write the certificates of the CAs that issue client certificates", len(cas)+1, cert.Subject)
		}
		if cas = append(cas, cert); len(cas) > MaxBundle {
			return nil, fmt.Errorf("there are more than %d certificates; write fewer", MaxBundle)
		}
	}
	if len(cas) == 0 {
		return nil, errors.New("there is no certificate; write CA certificates in PEM")
	}
	return cas, nil
}

// nextBlock is pem.Decode for a text that must begin with a block, or with
// lines that begin with a #, as bundles have to tell which CA it is.
func nextBlock(text []byte) (*pem.Block, []byte) {
	for bytes.HasPrefix(text, []byte("#")) {
		_, text, _ = bytes.Cut(text, []byte("\n"))
		text = bytes.TrimSpace(text)
	}
	if !bytes.HasPrefix(text, []byte("-----BEGIN ")) {
		return nil, nil
	}
	return pem.Decode(text)
}
