package controllers

import (
	"testing"

	"sigs.k8s.io/yaml"
)

func TestLacking(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ have, want, path string }{
		"equal":                        {`{a: {b: 1}}`, `{a: {b: 1}}`, ""},
		"defaults are added":           {`{a: {b: 1, c: 2}, d: 3}`, `{a: {b: 1}}`, ""},
		"a field is missing":           {`{a: {}}`, `{a: {b: 1}}`, ".a.b"},
		"a field differs":              {`{a: {b: 2}}`, `{a: {b: 1}}`, ".a.b"},
		"another type":                 {`{a: x}`, `{a: {b: 1}}`, ".a"},
		"zero and absent":              {`{}`, `{a: "", b: 0, c: false, d: {}, e: [], f: null}`, ""},
		"not zero and absent":          {`{}`, `{a: [x]}`, ".a"},
		"a list grew":                  {`{a: [x, y]}`, `{a: [x]}`, ".a"},
		"a list in another order":      {`{a: [y, x]}`, `{a: [x, y]}`, ".a[0]"},
		"named, in another order":      {`{a: [{name: y}, {name: x, v: 1, w: 2}]}`, `{a: [{name: x, v: 1}]}`, ""},
		"named, differing":             {`{a: [{name: x, v: 2}]}`, `{a: [{name: x, v: 1}]}`, ".a[x].v"},
		"named, missing":               {`{a: [{name: y}]}`, `{a: [{name: x}]}`, ".a[x].name"},
		"a number is not its spelling": {`{a: "1"}`, `{a: 1}`, ".a"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var have, want any
			if err := yaml.Unmarshal([]byte(tc.have), &have); err != nil {
				t.Fatal(err)
			}
			if err := yaml.Unmarshal([]byte(tc.want), &want); err != nil {
				t.Fatal(err)
			}
			if got := lacking(have, want); got != tc.path {
				t.Errorf("lacking %q, want %q", got, tc.path)
			}
		})
	}
}
