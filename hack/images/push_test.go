package main

import (
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// TestPush builds, pushes to a registry, and gets the same image back.
func TestPush(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	o := programOptions(t)
	o.registry, o.tag = strings.TrimPrefix(server.URL, "http://")+"/team/chat/", "v0.1.0"
	cell := images[1]
	want, err := buildImage(t, o, cell).Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := pushAll(t.Context(), o, images[1:2]); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(strings.TrimPrefix(server.URL, "http://")+"/team/chat/cell:v0.1.0", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	got, err := remote.Image(tag)
	if err != nil {
		t.Fatal(err)
	}
	if digest, err := got.Digest(); err != nil || digest != want {
		t.Errorf("the registry has %s (%v), want %s", digest, err, want)
	}
	if err := validate.Image(got); err != nil {
		t.Error(err)
	}
	o.registry = "elsewhere.example/chat"
	if err := pushAll(t.Context(), o, images[1:2]); err == nil || !strings.Contains(err.Error(), "build it again") {
		t.Errorf("an image for another registry: %v", err)
	}
	if err := pushAll(t.Context(), o, images[:1]); err == nil || !strings.Contains(err.Error(), "build it first") {
		t.Errorf("an image that was not built: %v", err)
	}
}
