package resources

import (
	"fmt"
	"path"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"quicproquo.dev/api/v1alpha1"
)

// configVersion is the version of the configuration file that is written.
const configVersion = "quicproquo.dev/cell/v1"

// config is the configuration file of a server, as the server reads it; the
// two types are apart because the operator knows nothing of the server, and
// test/contract holds them together.
type config struct {
	Version         string `json:"version"`
	Listen          string `json:"listen"`
	OpsListen       string `json:"opsListen"`
	DatabaseURIFile string `json:"databaseURIFile"`
	DatabasePooling string `json:"databasePooling,omitempty"`
	KeysFile        string `json:"keysFile"`
	PolicyFile      string `json:"policyFile"`
	CertFile        string `json:"certFile"`
	KeyFile         string `json:"keyFile"`
	ClientCAFile    string `json:"clientCAFile,omitempty"`
	DrainTimeout    string `json:"drainTimeout"`
	LogLevel        string `json:"logLevel"`
}

// Config is the ConfigMap with the servers' configuration: where things are
// in a pod. It says nothing about the cell, whose policy is a file of its own.
func Config(cell *v1alpha1.MessagingCell) (*corev1.ConfigMap, error) {
	clientCAFile := ""
	if ref, _ := ClientCARef(cell); ref.Kind != "" {
		clientCAFile = path.Join(clientCADir, CAKey)
	}
	file, err := yaml.Marshal(config{
		Version:         configVersion,
		Listen:          fmt.Sprintf(":%d", QUICPort),
		OpsListen:       fmt.Sprintf(":%d", OpsPort),
		DatabaseURIFile: path.Join(databaseDir, DatabaseURIKey),
		DatabasePooling: databasePooling(cell),
		KeysFile:        path.Join(keysDir, KeysKey),
		PolicyFile:      path.Join(policyDir, PolicyKey),
		CertFile:        path.Join(tlsDir, corev1.TLSCertKey),
		KeyFile:         path.Join(tlsDir, corev1.TLSPrivateKeyKey),
		ClientCAFile:    clientCAFile,
		DrainTimeout:    drainTimeout.String(),
		LogLevel:        "info",
	})
	if err != nil {
		return nil, fmt.Errorf("build configuration of %s: %w", cell.Name, err)
	}
	return configMap(cell, ConfigName(cell), ComponentServer, map[string]string{ConfigKey: string(file)}), nil
}

// databasePooling is empty where a server means session by itself: a file that
// says no more than before restarts no server, and servers of a release that
// does not know the field can read it.
func databasePooling(cell *v1alpha1.MessagingCell) string {
	if d := &cell.Spec.Database; d.SecretRef != nil && d.Pooling == v1alpha1.DatabasePoolingTransaction {
		return string(d.Pooling)
	}
	return ""
}

func configMap(cell *v1alpha1.MessagingCell, name, component string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: objectMeta(cell, name, component),
		Data:       data,
	}
}
