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
		{[]string{"dev", "--token=" + secret}, "--connection"}, {[]string{"--admin-token", secret}, "--client-key"}, {[]string{"dev", "--password=" + secret}, "files"},
	} {
		c := command()
		c.SetArgs(x.args)
		c.SetOut(io.Discard)
		c.SetErr(io.Discard)
		if err := c.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), x.want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%v: %v", x.args, err)
		}
	}
	// Those that look like one, and name a file or something public.
	suspects := slices.DeleteFunc(secretflag.Suspects(command()), func(s string) bool { return strings.HasSuffix(s, " --client-key") })
	if len(suspects) > 0 {
		t.Errorf("%q look as if they held a secret", suspects)
	}
}
