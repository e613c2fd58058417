package main

import (
	"io"
	"slices"
	"strings"
	"testing"

	"quicproquo.dev/internal/secretflag"
)

func TestNoFlagTakesASecret(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	for _, x := range []struct {
		args []string
		want string
	}{
		{[]string{"--token=" + secret}, "ServiceAccount"}, {[]string{"--password", secret}, "--kubeconfig"}, {[]string{"-t" + secret}, "unknown flag: -t"},
	} {
		c := command(func(string) string { return "" })
		c.SetArgs(x.args)
		c.SetOut(io.Discard)
		c.SetErr(io.Discard)
		if err := c.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), x.want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%v: %v", x.args, err)
		}
	}
	// Those that look like one, and name a file or something public.
	if got, want := secretflag.Suspects(command(func(string) string { return "" })), []string{}; !slices.Equal(got, want) {
		t.Errorf("%q look as if they held a secret, want %q", got, want)
	}
}
