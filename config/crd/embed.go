// Package crd holds the CustomResourceDefinition that controller-gen makes
// from api/v1alpha1, for programs that judge a manifest as a cluster would.
package crd

import _ "embed" // The manifest is part of the binary.

// MessagingCell is the CustomResourceDefinition of MessagingCell as YAML.
// Callers must not change it.
//
//go:embed messaging.quicproquo.dev_messagingcells.yaml
var MessagingCell []byte
