package resources

import (
	"path"
	"time"
)

// Where the servers find their files. Each is a mounted directory and never a
// subPath, whose files the kubelet would not renew.
const (
	configDir   = "/etc/quicproquo/config"
	policyDir   = "/etc/quicproquo/policy"
	keysDir     = "/etc/quicproquo/keys"
	tlsDir      = "/etc/quicproquo/tls"
	databaseDir = "/etc/quicproquo/database"
	clientCADir = "/etc/quicproquo/client-ca"
)

// The keys of the cell's ConfigMaps and Secrets, which are the names of the
// mounted files.
const (
	// ConfigKey is the servers' configuration in ConfigMap ConfigName.
	ConfigKey = "cell.yaml"
	// PolicyKey is the policy file in ConfigMap PolicyName.
	PolicyKey = "policy.yaml"
	// CAKey is the CA certificate in ConfigMap CAName and Secret CAKeyName.
	CAKey = "ca.crt"
	// CAPrivateKey is the CA's private key in Secret CAKeyName.
	CAPrivateKey = "ca.key"
	// KeysKey is the keys file in Secret KeysName.
	KeysKey = "keys.yaml"
	// AdminTokenKey is the token of a cell admin in Secret AdminName.
	AdminTokenKey = "token"
	// AuditorTokenKey is the token of an auditor in Secret AdminName.
	AuditorTokenKey = "auditor-token"
	// DatabaseURIKey is the connection URI in Secret DatabaseName.
	DatabaseURIKey = "uri"
	// DatabaseUserKey is the user in Secret DatabaseName.
	DatabaseUserKey = "username"
	// DatabasePasswordKey is the password in Secret DatabaseName.
	DatabasePasswordKey = "password"
)

// Ports of the pods. A Service may offer the first under another number.
const (
	// QUICPort is the UDP port of a server.
	QUICPort = 4201
	// OpsPort is the TCP port of liveness, readiness and metrics.
	OpsPort = 8080
	// PostgresPort is the TCP port of the embedded PostgreSQL.
	PostgresPort = 5432
)

// The names of ports.
const (
	quicPortName     = "quic"
	opsPortName      = "ops"
	postgresPortName = "postgres"
)

const (
	// drainTimeout is how long clients get to leave a server that stops.
	drainTimeout = 20 * time.Second
	// gracePeriod is how long a server gets in all: to drain, to store what it
	// has accepted, and some to spare.
	gracePeriod = drainTimeout + 25*time.Second
)

var configFile = path.Join(configDir, ConfigKey)
