package pki

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// The files that Save writes.
const (
	// CertFile is the CA certificate, which everyone may have.
	CertFile = "ca.crt"
	// KeyFile is the CA's private key, mode 0600.
	KeyFile = "ca.key"
)

const (
	certBlock = "CERTIFICATE"
	keyBlock  = "PRIVATE KEY"
)

// CertPEM is the CA's certificate.
func (ca *CA) CertPEM() []byte { return encodeCert(ca.cert) }

// KeyPEM is the CA's private key in PKCS #8.
func (ca *CA) KeyPEM() ([]byte, error) { return encodeKey(ca.key) }

// ParseCA reads what CertPEM and KeyPEM wrote, and checks that they belong
// together.
func ParseCA(certPEM, keyPEM []byte) (*CA, error) {
	cert, err := ParseCertificate(certPEM)
	if err != nil {
		return nil, err
	}
	if !cert.IsCA {
		return nil, fmt.Errorf("the certificate %q is not one of a CA", cert.Subject.CommonName)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("the private key does not belong to the CA certificate %q", cert.Subject.CommonName)
	}
	return &CA{cert: cert, key: key}, nil
}

// ParseCertificate reads the first certificate of a PEM text.
func ParseCertificate(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != certBlock {
		return nil, errors.New(`no PEM certificate found (a text that begins "-----BEGIN CERTIFICATE-----" is expected)`)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading a certificate: %w", err)
	}
	return cert, nil
}

func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != keyBlock {
		return nil, errors.New(`no PEM private key found (a text that begins "-----BEGIN PRIVATE KEY-----" is expected)`)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading a private key: %w", err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the private key is a %T, an ECDSA key is expected", key)
	}
	return ec, nil
}

func encodeCert(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: cert.Raw})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), nil
}

// Save writes CertFile and KeyFile to dir, which must exist. The certificate
// comes last: where it is, the key is.
func (ca *CA) Save(dir string) error {
	key, err := ca.KeyPEM()
	if err != nil {
		return err
	}
	if err := WriteFile(filepath.Join(dir, KeyFile), key, 0o600); err != nil {
		return err
	}
	return WriteFile(filepath.Join(dir, CertFile), ca.CertPEM(), 0o644)
}

// Load reads what Save wrote. If there is no CA in dir, the error matches
// fs.ErrNotExist.
func Load(dir string) (*CA, error) {
	certPEM, err := os.ReadFile(filepath.Join(dir, CertFile))
	if err != nil {
		return nil, fmt.Errorf("reading the CA: %w", err)
	}
	keyPEM, err := readSecret(filepath.Join(dir, KeyFile))
	if err != nil {
		return nil, fmt.Errorf("reading the CA's key: %w", err)
	}
	ca, err := ParseCA(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("the CA in %s: %w", dir, err)
	}
	return ca, nil
}

func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("others may read %s: chmod 600 it, and make a new CA if they did", path)
	}
	return io.ReadAll(f)
}

// WriteFile replaces a file durably, with exactly the given permissions from
// the first moment: a reader sees the old content or the new.
func WriteFile(path string, content []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}
