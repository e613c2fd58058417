package podcheck

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
)

func TestDurability(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		answer, want string
		status       int
		fails        bool
	}{
		{answer: `{"reduced":false,"fsync":true}`},
		{answer: `{"reduced":true,"problems":[{"setting":"fsync","value":"off","message":"set fsync = on"},{"setting":"a","value":"","message":"b"}]}`,
			want: `fsync is "off": set fsync = on; a is "": b`},
		{answer: `{"reduced":true}`, want: "the database's settings are such that it may lose what it has acknowledged"},
		{answer: "ok", fails: true},
		{answer: "not found", status: http.StatusNotFound, fails: true},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/durability" {
				t.Errorf("asked for %s", r.URL.Path)
			}
			w.WriteHeader(max(x.status, http.StatusOK))
			fmt.Fprint(w, x.answer)
		}))
		host, port, err := net.SplitHostPort(s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Pods{OpsPort: n}.Durability(t.Context(), host)
		if got != x.want || (err != nil) != x.fails {
			t.Errorf("%s: %q, %v", x.answer, got, err)
		}
		s.Close()
	}
}
