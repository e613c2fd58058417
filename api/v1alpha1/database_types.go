package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
)

// DatabaseSpec is the PostgreSQL of a cell: exactly one of secretRef and
// embedded is set.
//
// +kubebuilder:validation:XValidation:rule="has(self.secretRef) != has(self.embedded)",message="needs exactly one kind of database; write either secretRef for your own PostgreSQL or embedded: {} for one that comes with the cell"
// +kubebuilder:validation:XValidation:rule="!has(self.embedded) || !has(self.pooling) || self.pooling != 'transaction'",fieldPath=".pooling",message="is about a pooler in front of your own PostgreSQL, and the embedded one has none; write pooling: session, or leave it out"
// +kubebuilder:validation:XValidation:rule="has(self.secretRef) != has(self.embedded) ? has(self.embedded) == has(oldSelf.embedded) : true",message="cannot change between secretRef and embedded, for the data would stay behind; write the kind it had, and restore a backup into a new MessagingCell to move"
type DatabaseSpec struct {
	// secretRef is a Secret with the connection URI of your own PostgreSQL.
	// +optional
	SecretRef *SecretKeyReference `json:"secretRef,omitempty"`

	// embedded is a single PostgreSQL that comes with the cell, for
	// evaluation: it has no standby.
	// +optional
	Embedded *EmbeddedDatabase `json:"embedded,omitempty"`

	// pooling says what stands between the cell and your own PostgreSQL:
	// "session" is nothing, or a pooler that gives each connection of the cell
	// one of PostgreSQL's for as long as it lives; "transaction" is a pooler
	// that lends one for a transaction at a time, such as PgBouncer with
	// pool_mode=transaction. With "transaction", servers hear of each other's
	// messages by asking once a second. A change replaces the servers one by
	// one.
	// +kubebuilder:default=session
	// +optional
	Pooling DatabasePooling `json:"pooling,omitempty"`
}

// DatabasePooling says what stands between the cell and PostgreSQL.
// +kubebuilder:validation:Enum=session;transaction
type DatabasePooling string

// The kinds of pooling.
const (
	DatabasePoolingSession     DatabasePooling = "session"
	DatabasePoolingTransaction DatabasePooling = "transaction"
)

// SecretKeyReference is one key of a Secret in the namespace of the cell.
type SecretKeyReference struct {
	// name is the name of the Secret.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="is not the name of a Secret; write lower-case letters, digits, dashes and dots, such as chat-database"
	// +required
	Name string `json:"name"`

	// key is the key in the Secret that holds the connection URI:
	// postgres://user:password@host:5432/database
	// +kubebuilder:default=uri
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$')",message="is not a key of a Secret; write letters, digits, dashes, dots and underscores, such as uri"
	// +optional
	Key string `json:"key,omitempty"`
}

// EmbeddedDatabase is a single PostgreSQL that comes with the cell.
type EmbeddedDatabase struct {
	// storage is the volume that holds the data. It stays when the cell is
	// deleted, and is found again when the cell is applied again.
	// +kubebuilder:default={}
	// +optional
	Storage StorageSpec `json:"storage,omitzero"`
}

// StorageSpec is a volume.
//
// +kubebuilder:validation:XValidation:rule="has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",fieldPath=".storageClassName",message="a volume cannot change its storage class; write the class it had, or leave it out if it had none"
type StorageSpec struct {
	// size is the size of the volume. It can grow later, where the storage
	// class allows that, but not shrink.
	// +kubebuilder:default="10Gi"
	// +kubebuilder:validation:XValidation:rule="isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('1Gi')) >= 0",message="is less than 1Gi or not a size; write a quantity such as 10Gi"
	// +kubebuilder:validation:XValidation:rule="!isQuantity(string(self)) || quantity(string(self)).compareTo(quantity(string(oldSelf))) >= 0",message="a volume cannot shrink; write the size it had, or more"
	// +optional
	Size resource.Quantity `json:"size,omitzero"`

	// storageClassName is the storage class of the volume. Left out, it is
	// the cluster's default. It cannot be changed later.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="is not the name of a StorageClass; write one that 'kubectl get storageclass' lists, or leave it out for the default"
	// +optional
	StorageClassName *string `json:"storageClassName,omitempty"`
}
