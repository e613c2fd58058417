package resources

import (
	"cmp"

	"quicproquo.dev/api/v1alpha1"
)

// What belongs to a cell begins with its name, which has at most 40
// characters, so that the longest of these stays a DNS label.

// ServiceAccountName is the name of the ServiceAccount of all the cell's pods.
func ServiceAccountName(cell *v1alpha1.MessagingCell) string { return cell.Name }

// ServersName is the name of the Deployment of the delivery servers.
func ServersName(cell *v1alpha1.MessagingCell) string { return cell.Name }

// DisruptionBudgetName is the name of the servers' PodDisruptionBudget.
func DisruptionBudgetName(cell *v1alpha1.MessagingCell) string { return cell.Name }

// EndpointName is the name of the UDP Service that clients reach.
func EndpointName(cell *v1alpha1.MessagingCell) string { return cell.Name }

// OpsName is the name of the Service of the ops ports: health and metrics.
func OpsName(cell *v1alpha1.MessagingCell) string { return cell.Name + "-ops" }

// ConfigName is the name of the ConfigMap with the servers' configuration.
func ConfigName(cell *v1alpha1.MessagingCell) string { return cell.Name + "-config" }

// PolicyName is the name of the ConfigMap with the policy file.
func PolicyName(cell *v1alpha1.MessagingCell) string { return cell.Name + "-policy" }

// CAName is the name of the ConfigMap with the CA certificate that clients
// trust.
func CAName(cell *v1alpha1.MessagingCell) string { return cell.Name + "-ca" }

// CAKeyName is the name of the Secret with the cell's own CA.
func CAKeyName(cell *v1alpha1.MessagingCell) string { return cell.Name + "-ca-key" }

// KeysName is the name of the Secret with the cell's own keys.
func KeysName(cell *v1alpha1.MessagingCell) string { return cell.Name + "-keys" }

// TLSName is the name of the Secret with the certificate that the servers
// present: the cell's own, or the one that the spec names.
func TLSName(cell *v1alpha1.MessagingCell) string {
	if own := cell.Spec.Endpoint.TLS.SecretName; own != "" {
		return own
	}
	return cell.Name + "-tls"
}

// DatabaseName is the name of the Secret with the database's connection URI:
// the cell's own, or the one that the spec names.
func DatabaseName(cell *v1alpha1.MessagingCell) string {
	if ref := cell.Spec.Database.SecretRef; ref != nil {
		return ref.Name
	}
	return cell.Name + "-database"
}

// DatabaseKey is the key of that Secret with the URI.
func DatabaseKey(cell *v1alpha1.MessagingCell) string {
	if ref := cell.Spec.Database.SecretRef; ref != nil && ref.Key != "" {
		return ref.Key
	}
	return DatabaseURIKey
}

// AdminName is the name of the Secret with the present admin tokens.
func AdminName(cell *v1alpha1.MessagingCell) string { return cell.Name + "-admin" }

// ClientCARef is the object with the CAs that issue client certificates; its
// Kind is empty where the spec names none.
func ClientCARef(cell *v1alpha1.MessagingCell) (ref Ref, key string) {
	access := &cell.Spec.Access
	from, kind := access.ClientCASecretRef, "Secret"
	if from == nil {
		from, kind = access.ClientCAConfigMapRef, "ConfigMap"
	}
	if from == nil {
		return Ref{}, ""
	}
	return Ref{kind, from.Name}, cmp.Or(from.Key, CAKey)
}

// AuditPruningName is the name of the CronJob that removes what the audit log
// has kept for long enough. The longest is the longest that a CronJob can have.
func AuditPruningName(cell *v1alpha1.MessagingCell) string { return cell.Name + "-audit-prune" }

// PostgresName is the name of the embedded PostgreSQL's StatefulSet and
// Service.
func PostgresName(cell *v1alpha1.MessagingCell) string { return cell.Name + "-postgres" }

// PostgresClaimName is the name of the claim of the embedded PostgreSQL's
// volume, as its StatefulSet makes it.
func PostgresClaimName(cell *v1alpha1.MessagingCell) string {
	return postgresVolume + "-" + PostgresName(cell) + "-0"
}

// MigrationName is the name of the Job that migrates the database's schema.
// key tells one migration from another and is at most 16 characters long.
func MigrationName(cell *v1alpha1.MessagingCell, key string) string {
	return cell.Name + "-migrate-" + key
}
