package crd_test

import (
	"context"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"sigs.k8s.io/yaml"

	"quicproquo.dev/config/crd"
)

// maxBytes leaves room below the 262144 bytes of the annotation in which
// client-side apply keeps a copy.
const maxBytes = 256 << 10

func load(t *testing.T) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	var definition apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(crd.MessagingCell, &definition); err != nil {
		t.Fatal(err)
	}
	return &definition
}

// An API server refuses rules that do not compile, that point nowhere, or
// that could cost too much; this is the function it asks.
func TestAPIServerTakesTheDefinition(t *testing.T) {
	t.Parallel()
	definition := load(t)
	apiextensionsv1.SetObjectDefaults_CustomResourceDefinition(definition)
	definition.Status.StoredVersions = []string{"v1alpha1"}
	var internal apiextensions.CustomResourceDefinition
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(definition, &internal, nil); err != nil {
		t.Fatal(err)
	}
	for _, err := range validation.ValidateCustomResourceDefinition(context.Background(), &internal) {
		t.Error(err)
	}
}

func TestNamesAndScope(t *testing.T) {
	t.Parallel()
	definition := load(t)
	names := definition.Spec.Names
	if definition.Name != "messagingcells.messaging.quicproquo.dev" || definition.Spec.Group != "messaging.quicproquo.dev" ||
		names.Kind != "MessagingCell" || len(names.ShortNames) != 1 || names.ShortNames[0] != "mcell" ||
		definition.Spec.Scope != apiextensionsv1.NamespaceScoped {
		t.Errorf("name %s, scope %s, names %+v", definition.Name, definition.Spec.Scope, names)
	}
}

// kstatus reads an object without observedGeneration as current: a cell that
// no operator has looked at must carry one that matches no generation.
func TestStatusDefaultSaysUnseen(t *testing.T) {
	t.Parallel()
	status := load(t).Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["status"]
	if status.Default == nil || string(status.Default.Raw) != `{"observedGeneration":-1}` {
		t.Errorf("default of status is %v", status.Default)
	}
	observed := status.Properties["observedGeneration"]
	if observed.Default == nil || string(observed.Default.Raw) != "-1" {
		t.Errorf("default of status.observedGeneration is %v", observed.Default)
	}
}

func TestConditionsAreAMapByType(t *testing.T) {
	t.Parallel()
	conditions := load(t).Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["status"].Properties["conditions"]
	if conditions.XListType == nil || *conditions.XListType != "map" || len(conditions.XListMapKeys) != 1 || conditions.XListMapKeys[0] != "type" {
		t.Errorf("list type %v, keys %v", conditions.XListType, conditions.XListMapKeys)
	}
}

func TestSubresources(t *testing.T) {
	t.Parallel()
	sub := load(t).Spec.Versions[0].Subresources
	if sub == nil || sub.Status == nil || sub.Scale == nil {
		t.Fatalf("subresources are %+v", sub)
	}
	selector := ""
	if sub.Scale.LabelSelectorPath != nil {
		selector = *sub.Scale.LabelSelectorPath
	}
	if sub.Scale.SpecReplicasPath != ".spec.replicas" || sub.Scale.StatusReplicasPath != ".status.replicas" || selector != ".status.selector" {
		t.Errorf("scale is %+v with selector %q", sub.Scale, selector)
	}
}

func TestPrinterColumns(t *testing.T) {
	t.Parallel()
	var shown []string
	for _, column := range load(t).Spec.Versions[0].AdditionalPrinterColumns {
		if column.Priority == 0 {
			shown = append(shown, column.Name+" "+column.JSONPath)
		}
	}
	want := []string{
		`Ready .status.conditions[?(@.type=="Ready")].status`, "Version .status.version", "Endpoint .status.endpoint",
		"Replicas .status.readyReplicas", "Age .metadata.creationTimestamp",
	}
	if len(shown) != len(want) {
		t.Fatalf("columns are %q", shown)
	}
	for i := range want {
		if shown[i] != want[i] {
			t.Errorf("column %d is %q, want %q", i, shown[i], want[i])
		}
	}
}

func TestSizeLeavesRoomForClientSideApply(t *testing.T) {
	t.Parallel()
	if n := len(crd.MessagingCell); n == 0 || n >= maxBytes/2 {
		t.Errorf("the definition has %d bytes; the limit is half of %d, to leave room to grow", n, maxBytes)
	}
}

// Whatever an admin can write is explained by `kubectl explain`.
func TestEveryFieldIsDescribed(t *testing.T) {
	t.Parallel()
	var walk func(path string, node apiextensionsv1.JSONSchemaProps)
	walk = func(path string, node apiextensionsv1.JSONSchemaProps) {
		if path != ".metadata" && node.Description == "" {
			t.Errorf("%s has no description", path)
		}
		for name, child := range node.Properties {
			walk(path+"."+name, child)
		}
	}
	walk("", *load(t).Spec.Versions[0].Schema.OpenAPIV3Schema)
}
