package opaqueconf

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/bytemare/ecc"
	"github.com/bytemare/opaque"
)

var update = flag.Bool("update", false, "write testdata/registration.txt when it is not there")

const vectorFile = "testdata/registration.txt"

// vectorInputs are what a registration needs; everything else follows from them and the configuration.
var vectorInputs = []struct{ name, value string }{
	{"password", hex.EncodeToString([]byte("correct horse battery staple"))},
	{"credentialIdentifier", hex.EncodeToString([]byte("credential"))},
	{"oprfSeed", strings.Repeat("5e", 64)},
	{"serverPrivateKey", strings.Repeat("03", 31) + "00"},
	{"blind", strings.Repeat("07", 31) + "00"},
	{"envelopeNonce", strings.Repeat("4e", 32)},
}

// registrationVector runs a registration without any randomness and returns its messages by name.
func registrationVector(t *testing.T, in map[string][]byte) [][2]string {
	t.Helper()
	conf := Configuration()
	private, blind := scalar(t, in["serverPrivateKey"]), scalar(t, in["blind"])
	server := must[*opaque.Server](t)(conf.Server())
	public := ecc.Ristretto255Sha512.Base().Multiply(private)
	if err := server.SetKeyMaterial(&opaque.ServerKeyMaterial{PrivateKey: private, PublicKeyBytes: public.Encode(),
		OPRFGlobalSeed: in["oprfSeed"]}); err != nil {
		t.Fatal(err)
	}
	client := must[*opaque.Client](t)(conf.Client())
	request, err := client.RegistrationInit(in["password"], &opaque.ClientOptions{OPRFBlind: blind})
	if err != nil {
		t.Fatal(err)
	}
	response, err := server.RegistrationResponse(request, in["credentialIdentifier"], nil)
	if err != nil {
		t.Fatal(err)
	}
	options := ClientOptions()
	options.RegistrationEnvelopeNonce = in["envelopeNonce"]
	record, exportKey, err := client.RegistrationFinalize(response, nil, nil, options)
	if err != nil {
		t.Fatal(err)
	}
	return [][2]string{
		{"registrationRequest", hex.EncodeToString(request.Serialize())},
		{"registrationResponse", hex.EncodeToString(response.Serialize())},
		{"registrationRecord", hex.EncodeToString(record.Serialize())},
		{"exportKey", hex.EncodeToString(exportKey)},
	}
}

func scalar(t *testing.T, b []byte) *ecc.Scalar {
	t.Helper()
	s := ecc.Ristretto255Sha512.NewScalar()
	if err := s.Decode(b); err != nil {
		t.Fatal(err)
	}
	return s
}

// Every registered password depends on these bytes: an update of a library that changed them would lock all out.
func TestRegistrationVector(t *testing.T) {
	t.Parallel()
	in := map[string][]byte{}
	lines := [][2]string{}
	for _, v := range vectorInputs {
		in[v.name], _ = hex.DecodeString(v.value)
		lines = append(lines, [2]string{v.name, v.value})
	}
	lines = append(lines, registrationVector(t, in)...)
	want, err := readVector()
	if os.IsNotExist(err) && *update {
		err = writeVector(lines)
		want, _ = readVector()
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(want) != len(lines) {
		t.Errorf("%s has %d values, not %d", vectorFile, len(want), len(lines))
	}
	for _, l := range lines {
		if want[l[0]] != l[1] {
			t.Errorf("%s = %s, captured as %s", l[0], l[1], want[l[0]])
		}
	}
}

func readVector() (map[string]string, error) {
	b, err := os.ReadFile(vectorFile)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if name, value, ok := strings.Cut(s.Text(), " = "); ok && !strings.HasPrefix(name, "#") {
			values[name] = value
		}
	}
	return values, nil
}

func writeVector(lines [][2]string) error {
	var b strings.Builder
	b.WriteString("# An OPAQUE registration (RFC 9807 section 5) without randomness: inputs, then messages and export key, in hex.\n" +
		"# The client that registers knows password, blind and envelopeNonce; the rest of the inputs is the cell's.\n")
	for _, l := range lines {
		fmt.Fprintf(&b, "%s = %s\n", l[0], l[1])
	}
	return os.WriteFile(vectorFile, []byte(b.String()), 0o644) //nolint:gosec // it is no secret.
}
