// Package v1alpha1 is the Kubernetes API of quicproquo: the MessagingCell, an
// end-to-end-encrypted messaging service that a cluster admin declares and
// the operator runs.
//
// The numbers and rules in the markers are the contract that the API server
// enforces; the comments are what `kubectl explain` shows.
//
// +kubebuilder:object:generate=true
// +groupName=messaging.quicproquo.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Kind is the kind of a MessagingCell object.
const Kind = "MessagingCell"

// GroupVersion is the API group and version of this package.
var GroupVersion = schema.GroupVersion{Group: "messaging.quicproquo.dev", Version: "v1alpha1"}

var schemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

// AddToScheme makes a scheme know the types of this package.
var AddToScheme = schemeBuilder.AddToScheme

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &MessagingCell{}, &MessagingCellList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
