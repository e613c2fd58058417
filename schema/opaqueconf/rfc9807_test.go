package opaqueconf

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/bytemare/opaque"
)

// hexBytes is hex in JSON.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.AppendDecode(nil, text)
	return err
}

type rfcVector struct {
	Fake            bool
	Context         hexBytes
	Inputs, Outputs map[string]hexBytes
}

// rfc is the configuration of the vectors: ours, but with a context and without key stretching.
func (v *rfcVector) rfc() *opaque.Configuration {
	conf := Configuration()
	conf.Context, conf.KSF = v.Context, 0
	return conf
}

// server has the vector's keys, and its randomness as options.
func (v *rfcVector) server(t *testing.T) (*opaque.Server, *opaque.ServerOptions) {
	t.Helper()
	server := must[*opaque.Server](t)(v.rfc().Server())
	if err := server.SetKeyMaterial(&opaque.ServerKeyMaterial{Identity: v.Inputs["server_identity"], PrivateKey: scalar(t, v.Inputs["server_private_key"]),
		PublicKeyBytes: v.Inputs["server_public_key"], OPRFGlobalSeed: v.Inputs["oprf_seed"]}); err != nil {
		t.Fatal(err)
	}
	return server, &opaque.ServerOptions{MaskingNonce: v.Inputs["masking_nonce"],
		AKE: &opaque.AKEOptions{SecretKeyShareSeed: v.Inputs["server_keyshare_seed"], Nonce: v.Inputs["server_nonce"]}}
}

func (v *rfcVector) want(t *testing.T, what string, got []byte) {
	t.Helper()
	if want := hex.EncodeToString(v.Outputs[what]); want == "" || hex.EncodeToString(got) != want {
		t.Errorf("%s:\n got %x\nwant %s", what, got, want)
	}
}

func (v *rfcVector) register(t *testing.T) {
	t.Helper()
	server, _ := v.server(t)
	client := must[*opaque.Client](t)(v.rfc().Client())
	request, err := client.RegistrationInit(v.Inputs["password"], &opaque.ClientOptions{OPRFBlind: scalar(t, v.Inputs["blind_registration"])})
	if err != nil {
		t.Fatal(err)
	}
	v.want(t, "registration_request", request.Serialize())
	response, err := server.RegistrationResponse(request, v.Inputs["credential_identifier"], nil)
	if err != nil {
		t.Fatal(err)
	}
	v.want(t, "registration_response", response.Serialize())
	record, exportKey, err := client.RegistrationFinalize(response, v.Inputs["client_identity"], v.Inputs["server_identity"],
		&opaque.ClientOptions{RegistrationEnvelopeNonce: v.Inputs["envelope_nonce"]})
	if err != nil {
		t.Fatal(err)
	}
	v.want(t, "registration_upload", record.Serialize())
	v.want(t, "export_key", exportKey)
}

func (v *rfcVector) login(t *testing.T) {
	t.Helper()
	server, random := v.server(t)
	client := must[*opaque.Client](t)(v.rfc().Client())
	ke1, err := client.GenerateKE1(v.Inputs["password"], &opaque.ClientOptions{OPRFBlind: scalar(t, v.Inputs["blind_login"]),
		AKE: &opaque.AKEOptions{SecretKeyShareSeed: v.Inputs["client_keyshare_seed"], Nonce: v.Inputs["client_nonce"]}})
	if err != nil {
		t.Fatal(err)
	}
	v.want(t, "KE1", ke1.Serialize())
	record, err := server.Deserialize.RegistrationRecord(v.Outputs["registration_upload"])
	if err != nil {
		t.Fatal(err)
	}
	ke2, out, err := server.GenerateKE2(ke1, &opaque.ClientRecord{RegistrationRecord: record,
		CredentialIdentifier: v.Inputs["credential_identifier"], ClientIdentity: v.Inputs["client_identity"]}, random)
	if err != nil {
		t.Fatal(err)
	}
	v.want(t, "KE2", ke2.Serialize())
	v.want(t, "session_key", out.SessionSecret)
	ke3, sessionKey, exportKey, err := client.GenerateKE3(ke2, v.Inputs["client_identity"], v.Inputs["server_identity"])
	if err != nil {
		t.Fatal(err)
	}
	v.want(t, "KE3", ke3.Serialize())
	v.want(t, "session_key", sessionKey)
	v.want(t, "export_key", exportKey)
	if err := server.LoginFinish(ke3, out.ClientMAC); err != nil {
		t.Error(err)
	}
}

// fake is the answer to a name that does not exist (§10.9): a record of a public key, a masking key and an envelope of zeros.
func (v *rfcVector) fake(t *testing.T) {
	t.Helper()
	server, random := v.server(t)
	record, err := server.Deserialize.RegistrationRecord(append(append([]byte{}, v.Inputs["client_public_key"]...), append(v.Inputs["masking_key"], make([]byte, 96)...)...))
	if err != nil {
		t.Fatal(err)
	}
	ke1, err := server.Deserialize.KE1(v.Inputs["KE1"])
	if err != nil {
		t.Fatal(err)
	}
	ke2, _, err := server.GenerateKE2(ke1, &opaque.ClientRecord{RegistrationRecord: record,
		CredentialIdentifier: v.Inputs["credential_identifier"], ClientIdentity: v.Inputs["client_identity"]}, random)
	if err != nil {
		t.Fatal(err)
	}
	v.want(t, "KE2", ke2.Serialize())
}

// The RFC's own vectors for the suite that is used here, every message of registration and login, and the answer to a
// name that does not exist. The library takes all randomness of these from its caller.
func TestRFC9807Vectors(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/rfc9807.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Vectors []rfcVector }
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	logins, fakes := 0, 0
	for i := range file.Vectors {
		v := &file.Vectors[i]
		if v.Fake {
			fakes++
			v.fake(t)
			continue
		}
		logins++
		v.register(t)
		v.login(t)
	}
	if logins != 2 || fakes != 1 {
		t.Errorf("%d vectors of logins and %d of a name that does not exist, not 2 and 1", logins, fakes)
	}
}
