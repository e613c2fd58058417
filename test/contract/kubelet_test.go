package contract

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/controllers/resources"
	"quicproquo.dev/internal/manifest"
)

// etc is where pods see their files.
const etc = "/etc/quicproquo"

// objects are the ConfigMaps and Secrets beside a cell, by name.
type objects struct {
	configMaps map[string]*corev1.ConfigMap
	secrets    map[string]*corev1.Secret
}

func (o *objects) add(list ...any) {
	for _, object := range list {
		switch object := object.(type) {
		case *corev1.ConfigMap:
			o.configMaps[object.Name] = object
		case *corev1.Secret:
			o.secrets[object.Name] = object
		}
	}
}

// mount lays out the files of a pod's first container below root, and returns
// where its configuration is. Paths inside the configuration lead there too.
func (o *objects) mount(t *testing.T, root string, pod corev1.PodSpec) (config string) {
	t.Helper()
	c := pod.Containers[0]
	for _, m := range c.VolumeMounts {
		dir := filepath.Join(root, strings.TrimPrefix(m.MountPath, etc))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, content := range o.files(t, pod, m.Name) {
			content = []byte(strings.ReplaceAll(string(content), etc, root))
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return filepath.Join(root, strings.TrimPrefix(c.Args[2], etc))
}

// files are those of one volume.
func (o *objects) files(t *testing.T, pod corev1.PodSpec, volume string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for _, v := range pod.Volumes {
		switch {
		case v.Name != volume:
		case v.ConfigMap != nil:
			data := o.configMaps[v.ConfigMap.Name].Data
			for _, item := range v.ConfigMap.Items {
				files[item.Path] = []byte(data[item.Key])
			}
			for name, text := range data {
				if len(v.ConfigMap.Items) == 0 {
					files[name] = []byte(text)
				}
			}
		case v.Secret != nil:
			secret := o.secrets[v.Secret.SecretName]
			if secret == nil {
				t.Fatalf("volume %s shows Secret %s, which nobody makes", volume, v.Secret.SecretName)
			}
			for _, item := range v.Secret.Items {
				files[item.Path] = secret.Data[item.Key]
			}
			if len(v.Secret.Items) == 0 {
				files = secret.Data
			}
		}
	}
	if len(files) == 0 {
		t.Fatalf("volume %s has no files", volume)
	}
	return files
}

func loadCell(t *testing.T, spec string) *v1alpha1.MessagingCell {
	t.Helper()
	cell, err := manifest.Parse([]byte("apiVersion: messaging.quicproquo.dev/v1alpha1\nkind: MessagingCell\nmetadata: {name: demo, namespace: chat}\nspec: "+spec+"\n"), "test")
	if err != nil {
		t.Fatal(err)
	}
	return cell
}

// build makes what the operator makes for a cell, with a database elsewhere.
func build(t *testing.T, cell *v1alpha1.MessagingCell, databaseURI string) *objects {
	t.Helper()
	o := &objects{configMaps: map[string]*corev1.ConfigMap{}, secrets: map[string]*corev1.Secret{}}
	config, err := resources.Config(cell)
	if err != nil {
		t.Fatal(err)
	}
	file, err := resources.PolicyFile(cell)
	if err != nil {
		t.Fatal(err)
	}
	database := resources.Database(cell, "secret")
	database.Data[resources.DatabaseURIKey] = []byte(databaseURI)
	o.add(config, resources.Policy(cell, file), database)
	return o
}
