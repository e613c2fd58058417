package v1alpha1

// Condition types of a MessagingCell. Ready, Reconciling and Stalled mean
// what kstatus takes them to mean; the others say how far the operator came,
// in the order of its phases.
const (
	// ConditionReady is True when clients can sign up, send and receive, and
	// also when the spec asks for no servers and none run. It is Unknown until
	// the operator has looked.
	ConditionReady = "Ready"
	// ConditionReconciling is True while the operator works towards the spec,
	// and absent otherwise.
	ConditionReconciling = "Reconciling"
	// ConditionStalled is True when the operator cannot go on until somebody
	// changes something, and absent otherwise.
	ConditionStalled = "Stalled"
	// ConditionDatabaseReady is True when PostgreSQL answers.
	ConditionDatabaseReady = "DatabaseReady"
	// ConditionSecretsReady is True when certificate and keys are in place.
	ConditionSecretsReady = "SecretsReady"
	// ConditionPolicyApplied is True when every server runs the policy of
	// status.policyHash.
	ConditionPolicyApplied = "PolicyApplied"
	// ConditionSchemaMigrated is True when the database has the schema that
	// the servers need.
	ConditionSchemaMigrated = "SchemaMigrated"
	// ConditionAvailable is True when as many servers serve as the spec asks
	// for.
	ConditionAvailable = "Available"
	// ConditionEndpointReady is True when status.endpoint leads to a server with
	// a certificate that is valid there.
	ConditionEndpointReady = "EndpointReady"
	// ConditionDurabilityReduced is True when the database may lose what it
	// has acknowledged, and absent otherwise.
	ConditionDurabilityReduced = "DurabilityReduced"
)

// Condition reasons. A reason is one word for tools; what to do stands in the
// message.
const (
	// ReasonNotReconciled is the reason of Ready=Unknown in the first status.
	ReasonNotReconciled = "NotReconciled"
	// ReasonSucceeded is the reason of a condition that holds as it should.
	ReasonSucceeded = "Succeeded"
	// ReasonProgressing is the reason while something is under way that needs
	// nobody's help.
	ReasonProgressing = "Progressing"
	// ReasonDependencyNotReady is the reason of a phase that waits for an
	// earlier one.
	ReasonDependencyNotReady = "DependencyNotReady"
	// ReasonInvalidSpec is the reason when the spec asks for what cannot be.
	ReasonInvalidSpec = "InvalidSpec"
	// ReasonSecretNotFound is the reason when a Secret that the spec names, or
	// its key, is missing.
	ReasonSecretNotFound = "SecretNotFound"
	// ReasonSecretInvalid is the reason when a Secret holds what cannot be
	// used, such as a certificate for another name.
	ReasonSecretInvalid = "SecretInvalid"
	// ReasonDatabaseUnreachable is the reason when PostgreSQL does not answer.
	ReasonDatabaseUnreachable = "DatabaseUnreachable"
	// ReasonMigrationFailed is the reason when the migration Job failed.
	ReasonMigrationFailed = "MigrationFailed"
	// ReasonRolloutStuck is the reason when servers did not become ready in
	// time.
	ReasonRolloutStuck = "RolloutStuck"
	// ReasonScaledToZero is the reason when the spec asks for no servers.
	ReasonScaledToZero = "ScaledToZero"
	// ReasonSecretLost is the reason when a Secret is gone that cannot be made
	// again: the keys that the data is sealed with, or the CA that clients have
	// pinned.
	ReasonSecretLost = "SecretLost"
	// ReasonNameTaken is the reason when an object of the name that the cell
	// needs belongs to somebody else.
	ReasonNameTaken = "NameTaken"
	// ReasonPinUnknown is the reason when the certificate is in order, but what
	// comes with it does not say which CA clients should pin.
	ReasonPinUnknown = "PinUnknown"
	// ReasonEndpointPending is the reason while the address of the cell is not
	// known yet.
	ReasonEndpointPending = "EndpointPending"
	// ReasonCertificatePending is the reason while servers do not yet present
	// the certificate that is valid at the cell's address.
	ReasonCertificatePending = "CertificatePending"
	// ReasonUnobservable is the reason when the operator cannot ask the servers.
	ReasonUnobservable = "Unobservable"
	// ReasonDatabaseSettings is the reason when settings of PostgreSQL are such
	// that it may lose what it has acknowledged.
	ReasonDatabaseSettings = "DatabaseSettings"
	// ReasonApplyFailed is the reason when the API server refused an object of
	// the cell.
	ReasonApplyFailed = "ApplyFailed"
)
