package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MessagingCell is one end-to-end-encrypted messaging service: delivery
// servers over QUIC, their database, certificates and policy. Each cell is a
// failure domain of its own.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=messagingcells,singular=messagingcell,shortName=mcell,categories=quicproquo
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.selector
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`
// +kubebuilder:printcolumn:name="Endpoint",type=string,JSONPath=`.status.endpoint`
// +kubebuilder:printcolumn:name="Replicas",type=integer,JSONPath=`.status.readyReplicas`,description="Replicas that serve now"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([a-z0-9-]*[a-z0-9])?$')",message="metadata.name cannot begin the names of the cell's Services and Jobs; write at most 40 lower-case letters, digits and dashes, a letter first, such as team-chat"
type MessagingCell struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is the messaging service that is wanted. An empty spec is one
	// replica with an embedded database and a certificate of its own.
	// +kubebuilder:default={}
	// +optional
	Spec MessagingCellSpec `json:"spec,omitzero"`

	// status is what the operator last saw. Until it has looked, the
	// observedGeneration of -1 tells every reader that nothing is known.
	// +default={"observedGeneration": -1}
	// +optional
	Status MessagingCellStatus `json:"status,omitzero"`
}

// MessagingCellList is a list of MessagingCells.
//
// +kubebuilder:object:root=true
type MessagingCellList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []MessagingCell `json:"items"`
}

// MessagingCellSpec is the messaging service that is wanted.
type MessagingCellSpec struct {
	// replicas is how many delivery servers run. Zero stops the service and
	// keeps its data.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +optional
	Replicas *int32 `json:"replicas,omitempty"`

	// image is the container image of the delivery server. Left out, it is
	// the one that the operator was released with.
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self == '' || self.matches('^[a-zA-Z0-9][a-zA-Z0-9._:/@-]*$')",message="is not an image reference; write one such as registry.example.org/quicproquo/cell:v0.1.0, or leave it out"
	// +optional
	Image string `json:"image,omitempty"`

	// endpoint is where clients reach the cell.
	// +kubebuilder:default={}
	// +optional
	Endpoint EndpointSpec `json:"endpoint,omitzero"`

	// contacts says who may open a direct channel to whom: "open" is everyone
	// to everyone, "request" asks the other account first.
	// +kubebuilder:default=open
	// +optional
	Contacts ContactMode `json:"contacts,omitempty"`

	// signup says who may make an account: "open" is everybody who reaches the
	// cell, "invitation" takes an invitation for each, "closed" is nobody.
	// +kubebuilder:default=open
	// +optional
	Signup SignupMode `json:"signup,omitempty"`

	// database is the PostgreSQL that keeps the cell's state: secretRef for
	// your own, or embedded for one that comes with the cell. The choice
	// between the two is final. Behind a pooler in transaction mode it needs
	// pooling: transaction.
	// +kubebuilder:default={embedded: {}}
	// +optional
	Database DatabaseSpec `json:"database,omitzero"`

	// limits bounds what one client, one address and one replica may ask for.
	// +kubebuilder:default={}
	// +optional
	Limits LimitsSpec `json:"limits,omitzero"`

	// retention is how long the cell keeps what it stores.
	// +kubebuilder:default={}
	// +optional
	Retention RetentionSpec `json:"retention,omitzero"`

	// mls is what the cell enforces about MLS KeyPackages. The ciphersuite is
	// fixed: MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519.
	// +kubebuilder:default={}
	// +optional
	MLS MLSSpec `json:"mls,omitzero"`

	// sessions is the lifetime of the tokens that devices log in with.
	// +kubebuilder:default={}
	// +optional
	Sessions SessionsSpec `json:"sessions,omitzero"`

	// access is what clients show of themselves when they connect, and whose
	// certificates are an admin's.
	// +kubebuilder:default={}
	// +optional
	Access AccessSpec `json:"access,omitzero"`
}

// ContactMode says who may open a direct channel to whom.
// +kubebuilder:validation:Enum=open;request
type ContactMode string

// The contact modes.
const (
	ContactsOpen    ContactMode = "open"
	ContactsRequest ContactMode = "request"
)

// SignupMode says who may make an account.
// +kubebuilder:validation:Enum=open;invitation;closed
type SignupMode string

// The signup modes.
const (
	SignupOpen       SignupMode = "open"
	SignupInvitation SignupMode = "invitation"
	SignupClosed     SignupMode = "closed"
)

// MessagingCellStatus is what the operator last saw of a cell.
type MessagingCellStatus struct {
	// observedGeneration is the generation of the spec that this status
	// judges. -1 means that the operator has not looked yet.
	// +kubebuilder:default=-1
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions say whether the cell is ready and, if not, what to do.
	// +listType=map
	// +listMapKey=type
	// +patchStrategy=merge
	// +patchMergeKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty" patchStrategy:"merge" patchMergeKey:"type"`

	// endpoint is the HOST:PORT that clients connect to: qpq --cell HOST:PORT.
	// +optional
	Endpoint string `json:"endpoint,omitempty"`

	// pin is the SHA-256 of the cell CA's public key (SPKI) in hex, by which
	// clients know the cell: qpq --pin HEX.
	// +optional
	Pin string `json:"pin,omitempty"`

	// replicas is how many delivery servers exist.
	// +optional
	Replicas int32 `json:"replicas"`

	// readyReplicas is how many delivery servers serve clients.
	// +optional
	ReadyReplicas int32 `json:"readyReplicas"`

	// selector selects the pods of the delivery servers, for autoscalers.
	// +optional
	Selector string `json:"selector,omitempty"`

	// version is the release that the delivery servers run.
	// +optional
	Version string `json:"version,omitempty"`

	// migration identifies the last schema migration that succeeded: one image
	// with one database.
	// +optional
	Migration string `json:"migration,omitempty"`

	// policyHash is the SHA-256, in hex, of the policy file that was last
	// published to the delivery servers.
	// +optional
	PolicyHash string `json:"policyHash,omitempty"`
}
