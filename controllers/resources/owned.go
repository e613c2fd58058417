package resources

import "quicproquo.dev/api/v1alpha1"

// Ref names an object in the namespace of a cell.
type Ref struct{ Kind, Name string }

// Owned lists what a cell owns by its spec, but for its migration Job: what
// goes when the cell goes, and is removed when the spec asks for it no more.
func Owned(cell *v1alpha1.MessagingCell) []Ref {
	owned := []Ref{
		{"ServiceAccount", ServiceAccountName(cell)},
		{"ConfigMap", ConfigName(cell)},
		{"ConfigMap", PolicyName(cell)},
		{"ConfigMap", CAName(cell)},
		{"Service", EndpointName(cell)},
		{"Service", OpsName(cell)},
		{"Deployment", ServersName(cell)},
		{"PodDisruptionBudget", DisruptionBudgetName(cell)},
		{"CronJob", AuditPruningName(cell)},
	}
	if cell.Spec.Database.SecretRef == nil {
		owned = append(owned,
			Ref{"Service", PostgresName(cell)},
			Ref{"StatefulSet", PostgresName(cell)})
	}
	return owned
}
