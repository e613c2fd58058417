package resources

import (
	"cmp"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"quicproquo.dev/api/v1alpha1"
)

const (
	ownSecrets = `{replicas: 3, endpoint: {port: 443, serviceType: LoadBalancer, host: chat.example.org, tls: {secretName: chat-tls}},
		database: {secretRef: {name: chat-database, key: DSN}}}`
	clientCertificates = `{access: {clientCertificates: required, clientCAConfigMapRef: {name: trust, key: bundle.pem}}}`
	bigDisk            = `{database: {embedded: {storage: {size: 50Gi, storageClassName: fast}}}}`
)

// build makes every object of a cell.
func build(t *testing.T, cell *v1alpha1.MessagingCell) map[string]metav1.Object {
	t.Helper()
	config, err := Config(cell)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]metav1.Object{
		"serviceaccount":    ServiceAccount(cell),
		"config":            config,
		"policy":            Policy(cell, []byte("version: quicproquo.dev/policy/v1\n")),
		"ca":                CA(cell, []byte("CERTIFICATE\n"), CAKeyName(cell)),
		"keys":              Keys(cell, []byte("version: quicproquo.dev/keys/v1\n")),
		"ca-key":            CAPair(cell, []byte("CERTIFICATE\n"), []byte("KEY\n")),
		"tls":               TLS(cell, []byte("CHAIN\n"), []byte("KEY\n")),
		"database":          Database(cell, "secret"),
		"endpoint":          Endpoint(cell),
		"ops":               Ops(cell),
		"postgres":          Postgres(cell, PostgresOptions{Image: "postgres:test", PasswordHash: "0a"}),
		"postgres-service":  PostgresService(cell),
		"migration":         Migration(cell, "cell:test", "0123abcd"),
		"servers":           Servers(cell, ServersOptions{Image: "cell:test", StartupHash: "0b"}),
		"disruption-budget": DisruptionBudget(cell),
		"admin":             AdminTokens(cell, "TOKEN", "AUDITOR"),
		"audit-pruning":     AuditPruning(cell, "cell:test"),
	}
}

func TestObjectsGolden(t *testing.T) {
	t.Parallel()
	for name, object := range build(t, makeCell(t, "{}")) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			goldenObject(t, name+".yaml", object)
		})
	}
}

// What the spec changes, beside the defaults.
func TestVariantsGolden(t *testing.T) {
	t.Parallel()
	own := build(t, makeCell(t, ownSecrets))
	for _, name := range []string{"servers", "endpoint", "migration"} {
		goldenObject(t, name+"-own.yaml", own[name])
	}
	certificates := build(t, makeCell(t, clientCertificates))
	goldenObject(t, "servers-client-ca.yaml", certificates["servers"])
	goldenObject(t, "config-client-ca.yaml", certificates["config"])
	goldenObject(t, "endpoint-clusterip.yaml", Endpoint(makeCell(t, "{endpoint: {serviceType: ClusterIP}}")))
	goldenObject(t, "postgres-storage.yaml", build(t, makeCell(t, bigDisk))["postgres"])
}

func TestBuildersLeaveTheCellAlone(t *testing.T) {
	t.Parallel()
	for _, spec := range []string{"{}", ownSecrets, bigDisk} {
		cell := makeCell(t, spec)
		before := cell.DeepCopy()
		first := build(t, cell)
		if !reflect.DeepEqual(cell, before) {
			t.Errorf("%s: the cell changed", spec)
		}
		if !reflect.DeepEqual(first, build(t, cell)) {
			t.Errorf("%s: the same cell gave other objects", spec)
		}
	}
}

func TestEveryObjectIsLabelled(t *testing.T) {
	t.Parallel()
	for name, object := range build(t, makeCell(t, "{}")) {
		labels := object.GetLabels()
		if labels[CellLabel] != "demo" || labels[ManagedByLabel] != Manager || object.GetNamespace() != "chat" {
			t.Errorf("%s: labels %v in namespace %q", name, labels, object.GetNamespace())
		}
	}
}

// With the longest name that a cell can have, every name is one that the API
// server takes, those of pods and of their labels included.
func TestNamesOfTheLongestCell(t *testing.T) {
	t.Parallel()
	cell := makeCell(t, "{}")
	cell.Name = "a" + strings.Repeat("-b", 19) + "c"
	if len(cell.Name) != 40 {
		t.Fatal(len(cell.Name))
	}
	for kind, object := range build(t, cell) {
		name := object.GetName()
		for _, fault := range validation.IsDNS1123Label(name) {
			t.Errorf("%s %s: %s", kind, name, fault)
		}
		if kind == "audit-pruning" && len(name) > 52 { // 11 more are its Jobs'.
			t.Errorf("%s has %d characters", name, len(name))
		}
		if kind == "postgres" && len(name+"-0123456789") > validation.LabelValueMaxLength {
			t.Errorf("%s %s: its pods' revision does not fit a label", kind, name)
		}
		for key, value := range object.GetLabels() {
			for _, fault := range validation.IsValidLabelValue(value) {
				t.Errorf("%s %s: label %s: %s", kind, name, key, fault)
			}
		}
	}
}

func podSpecs(t *testing.T, spec string) map[string]corev1.PodSpec {
	t.Helper()
	cell := makeCell(t, spec)
	return map[string]corev1.PodSpec{
		"servers":   Servers(cell, ServersOptions{Image: "cell:test"}).Spec.Template.Spec,
		"migration": Migration(cell, "cell:test", "0123abcd").Spec.Template.Spec,
		"postgres":  Postgres(cell, PostgresOptions{Image: "postgres:test"}).Spec.Template.Spec,
		"pruning":   AuditPruning(cell, "cell:test").Spec.JobTemplate.Spec.Template.Spec,
	}
}

// The rules of the restricted Pod Security Standard, and two of ours: no way
// to the API server, nothing written into the image.
func TestPodsAreRestricted(t *testing.T) {
	t.Parallel()
	for name, pod := range podSpecs(t, "{}") {
		if ptr.Deref(pod.AutomountServiceAccountToken, true) || pod.ServiceAccountName != "demo" {
			t.Errorf("%s: token of ServiceAccount %q is mounted", name, pod.ServiceAccountName)
		}
		if pod.HostNetwork || pod.HostPID || pod.HostIPC || !*pod.SecurityContext.RunAsNonRoot || *pod.SecurityContext.RunAsUser == 0 {
			t.Errorf("%s: %+v", name, pod.SecurityContext)
		}
		for _, c := range append(slices.Clone(pod.InitContainers), pod.Containers...) {
			s := c.SecurityContext
			if *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || !*s.RunAsNonRoot || s.Capabilities.Drop[0] != "ALL" ||
				len(s.Capabilities.Add) > 0 || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
				t.Errorf("%s: container %s: %+v", name, c.Name, s)
			}
		}
	}
}

// A file in a subPath is never renewed: hot reload would be lost.
func TestNoSubPaths(t *testing.T) {
	t.Parallel()
	for name, pod := range podSpecs(t, "{}") {
		for _, c := range pod.Containers {
			for _, m := range c.VolumeMounts {
				if m.SubPath != "" || m.SubPathExpr != "" {
					t.Errorf("%s: %s is mounted by subPath", name, m.MountPath)
				}
			}
		}
	}
}

// Every file that the configuration names is in a mounted volume, under the
// key it has there.
func TestConfigNamesMountedFiles(t *testing.T) {
	t.Parallel()
	secret := strings.Replace(clientCertificates, "ConfigMap", "Secret", 1)
	for _, spec := range []string{"{}", ownSecrets, clientCertificates, secret} {
		cm, err := Config(makeCell(t, spec))
		if err != nil {
			t.Fatal(err)
		}
		var c config
		if err := yaml.UnmarshalStrict([]byte(cm.Data[ConfigKey]), &c); err != nil {
			t.Fatal(err)
		}
		pod := podSpecs(t, spec)["servers"]
		if (c.ClientCAFile != "") != (spec == clientCertificates || spec == secret) {
			t.Errorf("%s: clientCAFile is %q", spec, c.ClientCAFile)
		}
		for _, file := range []string{cmp.Or(c.ClientCAFile, c.PolicyFile), c.DatabaseURIFile, c.KeysFile, c.PolicyFile, c.CertFile, c.KeyFile, pod.Containers[0].Args[2]} {
			if !mounted(pod, file) {
				t.Errorf("%s: %s is not in a volume", spec, file)
			}
		}
	}
}

// mounted reports whether a volume of a ConfigMap, or of a Secret that shows
// this key, is mounted where the file should be.
func mounted(pod corev1.PodSpec, file string) bool {
	for _, m := range pod.Containers[0].VolumeMounts {
		if m.MountPath != path.Dir(file) {
			continue
		}
		for _, v := range pod.Volumes {
			if v.Name != m.Name || v.Secret == nil || len(v.Secret.Items) == 0 {
				continue
			}
			return slices.ContainsFunc(v.Secret.Items, func(item corev1.KeyToPath) bool { return item.Path == path.Base(file) })
		}
		return true
	}
	return false
}

func TestGracePeriodOutlastsTheDrain(t *testing.T) {
	t.Parallel()
	pod := podSpecs(t, "{}")["servers"]
	if grace := *pod.TerminationGracePeriodSeconds; float64(grace) < drainTimeout.Seconds()+10 {
		t.Errorf("%d s are too few to drain for %s, close and store", grace, drainTimeout)
	}
}

func TestPostgresKeepsTheClaimItHas(t *testing.T) {
	t.Parallel()
	old := Postgres(makeCell(t, "{}"), PostgresOptions{}).Spec.VolumeClaimTemplates[0].Spec
	set := Postgres(makeCell(t, bigDisk), PostgresOptions{Claim: &old})
	if got := set.Spec.VolumeClaimTemplates[0].Spec; !reflect.DeepEqual(got, old) {
		t.Errorf("the claim is %+v, which the API server refuses: it was %+v", got, old)
	}
	if got := PostgresStorage(makeCell(t, bigDisk)); got.Cmp(resource.MustParse("50Gi")) != 0 {
		t.Errorf("storage is %s", got.String())
	}
}

// A cell that was built in Go and never defaulted means the same.
func TestNamesWithoutDefaults(t *testing.T) {
	t.Parallel()
	cell := &v1alpha1.MessagingCell{ObjectMeta: metav1.ObjectMeta{Name: "demo"}}
	if got := []string{DatabaseName(cell), DatabaseKey(cell), TLSName(cell)}; !slices.Equal(got, []string{"demo-database", "uri", "demo-tls"}) {
		t.Errorf("names are %q", got)
	}
	if n := Replicas(cell); n != 1 {
		t.Errorf("%d replicas", n)
	}
	cell.Spec.Database.SecretRef = &v1alpha1.SecretKeyReference{Name: "own"}
	if got := DatabaseName(cell) + "/" + DatabaseKey(cell); got != "own/uri" {
		t.Errorf("database is %s", got)
	}
}

// What is owned by the spec is what the builders make, but for the Job, which
// is owned by its image, and Secrets, which outlive the cell.
func TestOwnedIsWhatIsBuilt(t *testing.T) {
	t.Parallel()
	for _, spec := range []string{"{}", ownSecrets} {
		cell := makeCell(t, spec)
		owned := map[Ref]bool{}
		for _, ref := range Owned(cell) {
			owned[ref] = true
		}
		for name, object := range build(t, cell) {
			kind := reflect.TypeOf(object).Elem().Name()
			embedded := strings.HasPrefix(name, "postgres")
			want := kind != "Secret" && kind != "Job" && (!embedded || spec == "{}")
			if ref := (Ref{kind, object.GetName()}); owned[ref] != want {
				t.Errorf("%s: %v owned: %t, want %t", spec, ref, owned[ref], want)
			}
		}
	}
}
