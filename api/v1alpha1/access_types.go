package v1alpha1

// AccessSpec is what clients show of themselves when they connect, and whose
// certificates are an admin's. Admins also get in by the tokens that the
// operator keeps in the Secret "<cell>-admin".
//
// +kubebuilder:validation:XValidation:rule="!has(self.clientCASecretRef) || !has(self.clientCAConfigMapRef)",message="takes its client CAs from one place; write either clientCASecretRef or clientCAConfigMapRef"
// +kubebuilder:validation:XValidation:rule="!has(self.clientCertificates) || self.clientCertificates == 'none' || has(self.clientCASecretRef) || has(self.clientCAConfigMapRef)",message="asks for client certificates without saying which CAs issue them; write clientCASecretRef: {name: NAME} or clientCAConfigMapRef: {name: NAME}, or clientCertificates: none"
// +kubebuilder:validation:XValidation:rule="!has(self.admins) || size(self.admins) == 0 || (has(self.clientCertificates) && self.clientCertificates != 'none')",fieldPath=".admins",message="names client certificates, but clientCertificates asks for none; write clientCertificates: optional or required, or remove admins"
type AccessSpec struct {
	// clientCertificates says what the cell makes of client certificates:
	// "none" asks for none, "optional" refuses those that are not right but
	// not clients without one, "required" refuses clients without a right one.
	// +kubebuilder:default=none
	// +optional
	ClientCertificates ClientCertificateMode `json:"clientCertificates,omitempty"`

	// clientCASecretRef is a Secret with the certificates of the CAs that issue
	// client certificates. A change reaches running servers within two
	// minutes; connections that are open stay open.
	// +optional
	ClientCASecretRef *ClientCAReference `json:"clientCASecretRef,omitempty"`

	// clientCAConfigMapRef is a ConfigMap with these certificates, instead of
	// a Secret.
	// +optional
	ClientCAConfigMapRef *ClientCAReference `json:"clientCAConfigMapRef,omitempty"`

	// admins are the client certificates that may make admin calls.
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=name
	// +optional
	Admins []AdminSpec `json:"admins,omitempty"`
}

// ClientCertificateMode says what the cell makes of client certificates.
// +kubebuilder:validation:Enum=none;optional;required
type ClientCertificateMode string

// The modes of client certificates.
const (
	ClientCertificatesNone     ClientCertificateMode = "none"
	ClientCertificatesOptional ClientCertificateMode = "optional"
	ClientCertificatesRequired ClientCertificateMode = "required"
)

// ClientCAReference is one key of a Secret or ConfigMap in the namespace of
// the cell, with CA certificates in PEM.
type ClientCAReference struct {
	// name is the name of the Secret or ConfigMap.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="is not the name of a Secret or ConfigMap; write lower-case letters, digits, dashes and dots, such as client-ca"
	// +required
	Name string `json:"name"`

	// key is the key in it that holds the certificates, in PEM.
	// +kubebuilder:default=ca.crt
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$')",message="is not a key of a Secret or ConfigMap; write letters, digits, dashes, dots and underscores, such as ca.crt"
	// +optional
	Key string `json:"key,omitempty"`
}

// AdminSpec is a client certificate that may make admin calls.
type AdminSpec struct {
	// name is a URI among the certificate's subject alternative names or,
	// where it has no URI, the common name of its subject.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[^\\p{C}\\s]([^\\p{C}]*[^\\p{C}\\s])?$')`,message="is no name of a certificate; write its URI, such as spiffe://example.org/ops, or else its common name, without blanks at the ends"
	// +required
	Name string `json:"name"`

	// role is what it may do: "cellAdmin" every admin call, "auditor" read
	// accounts and export the audit log.
	// +required
	Role AdminRole `json:"role"`
}

// AdminRole is what an admin may do.
// +kubebuilder:validation:Enum=cellAdmin;auditor
type AdminRole string

// The roles of admins.
const (
	RoleCellAdmin AdminRole = "cellAdmin"
	RoleAuditor   AdminRole = "auditor"
)
