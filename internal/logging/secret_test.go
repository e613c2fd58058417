package logging

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecret(t *testing.T) {
	t.Parallel()
	s := NewSecret(secret)
	holder := struct {
		Shown  Secret
		hidden Secret
	}{s, s}
	encoded, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	all := []string{string(encoded)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		all = append(all, fmt.Sprintf(verb, s), fmt.Sprintf(verb, holder), fmt.Sprintf(verb, &holder))
	}
	line := logged(t, Options{Open: true}, func(l *slog.Logger) { l.Info("x", "a", s, "b", holder, "c", &holder) })
	for _, text := range append(all, fmt.Sprint(line)) {
		if strings.Contains(text, secret) || strings.Contains(text, fmt.Sprintf("%x", secret)) {
			t.Errorf("%s", text)
		}
	}
	if s.Reveal() != secret || holder.hidden.Reveal() != secret || (Secret{}).Reveal() != "" {
		t.Error("it is not what was hidden")
	}
}
