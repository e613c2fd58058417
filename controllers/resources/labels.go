package resources

import (
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"quicproquo.dev/api/v1alpha1"
)

// Manager is who manages what these builders build: the value of the label
// ManagedByLabel, and the field owner of server-side apply.
const Manager = "quicproquo-operator"

const (
	// CellLabel carries the name of the cell that an object belongs to.
	CellLabel = "messaging.quicproquo.dev/cell"
	// ManagedByLabel selects everything that the operator made.
	ManagedByLabel = "app.kubernetes.io/managed-by"
	// ComponentLabel tells the parts of a cell apart.
	ComponentLabel = "app.kubernetes.io/component"
)

// StartupAnnotation is on pods and carries the hash of what a server reads
// only when it starts, so that a change of it rolls the Deployment. What is
// read again while it runs, policy and certificate, is not in it.
const StartupAnnotation = "messaging.quicproquo.dev/startup-hash"

// The components of a cell.
const (
	ComponentServer    = "server"
	ComponentPostgres  = "postgres"
	ComponentMigration = "migration"
	ComponentPruning   = "audit-pruning"
)

// Labels are on everything that belongs to a cell, also on what outlives it.
func Labels(cell *v1alpha1.MessagingCell, component string) map[string]string {
	labels := Selector(cell, component)
	labels["app.kubernetes.io/part-of"] = "quicproquo"
	labels[ManagedByLabel] = Manager
	labels[CellLabel] = cell.Name
	return labels
}

// Selector are the labels by which workloads and Services find the pods of a
// component. They can never change, since a Deployment's selector cannot.
func Selector(cell *v1alpha1.MessagingCell, component string) map[string]string {
	return map[string]string{
		"app.kubernetes.io/name":     "quicproquo",
		"app.kubernetes.io/instance": cell.Name,
		ComponentLabel:               component,
	}
}

func objectMeta(cell *v1alpha1.MessagingCell, name, component string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: cell.Namespace, Labels: Labels(cell, component)}
}

func podMeta(cell *v1alpha1.MessagingCell, component string, annotations map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Labels: Labels(cell, component), Annotations: maps.Clone(annotations)}
}
