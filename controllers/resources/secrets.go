package resources

import (
	"fmt"
	"net"
	"net/url"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"quicproquo.dev/api/v1alpha1"
)

// Keys is the Secret with the keys file of internal/cellkeys. It outlives the
// cell: without it no password can be checked and no sealed column opened.
func Keys(cell *v1alpha1.MessagingCell, file []byte) *corev1.Secret {
	return secret(cell, KeysName(cell), ComponentServer, corev1.SecretTypeOpaque, map[string][]byte{KeysKey: file})
}

// CAPair is the Secret with the cell's own CA, certificate and key in PEM. It
// outlives the cell: clients have pinned it.
func CAPair(cell *v1alpha1.MessagingCell, certPEM, keyPEM []byte) *corev1.Secret {
	return secret(cell, CAKeyName(cell), ComponentServer, corev1.SecretTypeOpaque, map[string][]byte{CAKey: certPEM, CAPrivateKey: keyPEM})
}

// TLS is the Secret with the certificate that the servers present, the CA's
// appended to it, and its key.
func TLS(cell *v1alpha1.MessagingCell, chainPEM, keyPEM []byte) *corev1.Secret {
	return secret(cell, TLSName(cell), ComponentServer, corev1.SecretTypeTLS, map[string][]byte{
		corev1.TLSCertKey: chainPEM, corev1.TLSPrivateKeyKey: keyPEM,
	})
}

// AdminTokens is the Secret with the present admin tokens of internal/admintoken:
// one that may everything, one that may look.
func AdminTokens(cell *v1alpha1.MessagingCell, token, auditor string) *corev1.Secret {
	return secret(cell, AdminName(cell), ComponentServer, corev1.SecretTypeOpaque, map[string][]byte{
		AdminTokenKey: []byte(token), AuditorTokenKey: []byte(auditor),
	})
}

// Names inside the embedded PostgreSQL.
const (
	postgresUser     = "quicproquo"
	postgresDatabase = "quicproquo"
)

// Database is the Secret with the way into the embedded PostgreSQL. The
// password consists of letters and digits alone.
func Database(cell *v1alpha1.MessagingCell, password string) *corev1.Secret {
	uri := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(postgresUser, password),
		Host:     net.JoinHostPort(fmt.Sprintf("%s.%s.svc", PostgresName(cell), cell.Namespace), strconv.Itoa(PostgresPort)),
		Path:     "/" + postgresDatabase,
		RawQuery: "sslmode=disable", // It does not leave the cluster, and only the two speak on it.
	}
	return secret(cell, DatabaseName(cell), ComponentPostgres, corev1.SecretTypeOpaque, map[string][]byte{
		DatabaseURIKey: []byte(uri.String()), DatabaseUserKey: []byte(postgresUser), DatabasePasswordKey: []byte(password),
	})
}

func secret(cell *v1alpha1.MessagingCell, name, component string, kind corev1.SecretType, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: objectMeta(cell, name, component),
		Type:       kind,
		Data:       data,
	}
}
