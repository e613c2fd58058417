package server_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quicproquo.dev/cell/server"
)

const goodConfig = `version: quicproquo.dev/cell/v1
keysFile: keys.yaml
policyFile: policy.yaml
certFile: tls.crt
keyFile: tls.key
`

func loadConfig(t *testing.T, content string) (*server.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cell.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return server.LoadConfig(path)
}

func TestConfigDefaults(t *testing.T) {
	t.Parallel()
	c, err := loadConfig(t, goodConfig)
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != ":4201" || c.OpsListen != ":8080" {
		t.Errorf("%+v", c)
	}
}

func TestConfigRefusalsSayWhatToWrite(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		content string
		want    []string
	}{
		"empty":            {"", []string{`version: write "quicproquo.dev/cell/v1"`, "keysFile: write", "policyFile: write", "certFile: write", "keyFile: write"}},
		"another version":  {strings.Replace(goodConfig, "v1", "v2", 1), []string{`version: write "quicproquo.dev/cell/v1"`}},
		"unknown field":    {goodConfig + "lissten: x\n", []string{"lissten"}},
		"no duration":      {goodConfig + "drainTimeout: soon\n", []string{"drainTimeout: write a duration"}},
		"negative":         {goodConfig + "drainTimeout: -1s\n", []string{"drainTimeout: write a duration"}},
		"no level":         {goodConfig + "logLevel: loud\n", []string{"logLevel: write debug, info, warn or error"}},
		"not YAML":         {"a: [", []string{"cell.yaml"}},
		"two at once":      {strings.Replace(goodConfig, "keysFile: keys.yaml\n", "", 1) + "logLevel: loud\n", []string{"keysFile: write", "logLevel: write"}},
		"a list as a path": {strings.Replace(goodConfig, "keysFile: keys.yaml", "keysFile: [a]", 1), []string{"keysFile"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := loadConfig(t, x.content)
			for _, want := range x.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want it to say %q", err, want)
				}
			}
		})
	}
	if _, err := server.LoadConfig(filepath.Join(t.TempDir(), "none.yaml")); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("a file that is not there: %v", err)
	}
}
