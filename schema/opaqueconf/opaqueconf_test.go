package opaqueconf

import (
	"bytes"
	"testing"

	"github.com/bytemare/opaque"
)

// Lengths of the messages under this configuration, in bytes: docs/protocol.md lists them.
const (
	registrationRequestSize  = 32
	registrationResponseSize = 64
	registrationRecordSize   = 192
	ke1Size                  = 96
	ke2Size                  = 320
	ke3Size                  = 64
	exportKeySize            = 64
)

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// account is a server with one registered client.
type account struct {
	server    *opaque.Server
	record    *opaque.ClientRecord
	exportKey []byte // Of the registration.
}

func register(t *testing.T, password string) account {
	t.Helper()
	conf := Configuration()
	server := must[*opaque.Server](t)(conf.Server())
	private, public := conf.KeyGen()
	if err := server.SetKeyMaterial(&opaque.ServerKeyMaterial{PrivateKey: private, PublicKeyBytes: public.Encode(),
		OPRFGlobalSeed: conf.GenerateOPRFSeed()}); err != nil {
		t.Fatal(err)
	}
	client := must[*opaque.Client](t)(conf.Client())
	request, err := client.RegistrationInit([]byte(password))
	if err != nil {
		t.Fatal(err)
	}
	credential := []byte("credential")
	response, err := server.RegistrationResponse(request, credential, nil)
	if err != nil {
		t.Fatal(err)
	}
	record, exportKey, err := client.RegistrationFinalize(response, nil, nil, ClientOptions())
	if err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string][2]int{
		"registration request":  {len(request.Serialize()), registrationRequestSize},
		"registration response": {len(response.Serialize()), registrationResponseSize},
		"registration record":   {len(record.Serialize()), registrationRecordSize},
		"export key":            {len(exportKey), exportKeySize},
	} {
		if size[0] != size[1] {
			t.Errorf("the %s has %d bytes, not %d", name, size[0], size[1])
		}
	}
	return account{server, &opaque.ClientRecord{RegistrationRecord: record, CredentialIdentifier: credential}, exportKey}
}

// login runs a whole login. The error is the client's: a wrong password is found out when it opens the envelope.
func (a account) login(t *testing.T, password string) (exportKey []byte, err error) {
	t.Helper()
	client := must[*opaque.Client](t)(Configuration().Client())
	ke1, err := client.GenerateKE1([]byte(password))
	if err != nil {
		t.Fatal(err)
	}
	ke2, output, err := a.server.GenerateKE2(ke1, a.record)
	if err != nil {
		t.Fatal(err)
	}
	if n, m := len(ke1.Serialize()), len(ke2.Serialize()); n != ke1Size || m != ke2Size {
		t.Errorf("KE1 has %d bytes, KE2 %d; not %d and %d", n, m, ke1Size, ke2Size)
	}
	ke3, _, exportKey, err := client.GenerateKE3(ke2, nil, nil, ClientOptions())
	if err != nil {
		return nil, err
	}
	if n := len(ke3.Serialize()); n != ke3Size {
		t.Errorf("KE3 has %d bytes, not %d", n, ke3Size)
	}
	if err := a.server.LoginFinish(ke3, output.ClientMAC); err != nil {
		t.Fatalf("the client is content, the server is not: %v", err)
	}
	return exportKey, nil
}

func TestLoginReturnsTheExportKeyOfTheRegistration(t *testing.T) {
	t.Parallel()
	a := register(t, "correct horse")
	got, err := a.login(t, "correct horse")
	if err != nil || !bytes.Equal(got, a.exportKey) {
		t.Errorf("login: error %v, the same export key: %v", err, bytes.Equal(got, a.exportKey))
	}
}

func TestAWrongPasswordFails(t *testing.T) {
	t.Parallel()
	a := register(t, "correct horse")
	for _, wrong := range []string{"", "correct horse "} {
		if key, err := a.login(t, wrong); err == nil || key != nil {
			t.Errorf("password %q: a login with another password succeeded", wrong)
		}
	}
}

func TestTheServersAnswerCannotBeExchanged(t *testing.T) {
	t.Parallel()
	a, b := register(t, "correct horse"), register(t, "correct horse")
	client := must[*opaque.Client](t)(Configuration().Client())
	ke1, err := client.GenerateKE1([]byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	a.server = b.server // Another server holding the same record: it has other keys.
	ke2, _, err := a.server.GenerateKE2(ke1, a.record)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := client.GenerateKE3(ke2, nil, nil, ClientOptions()); err == nil {
		t.Error("the client accepted another server's answer")
	}
}

func TestConfigurationOnTheWire(t *testing.T) {
	t.Parallel()
	// The library's own encoding of a configuration, so that an update of it cannot change the suite unseen.
	want := []byte{1, 1, 1, 7, 7, 7, 0, 0}
	if got := Configuration().Serialize(); !bytes.Equal(got, want) {
		t.Errorf("%d, want %d", got, want)
	}
	options := ClientOptions()
	if !bytes.Equal(options.KSFSalt, make([]byte, 16)) || options.KSFLength != 64 ||
		len(options.KSFParameters) != 3 || options.KSFParameters[0] != 3 || options.KSFParameters[1] != 65536 || options.KSFParameters[2] != 4 {
		t.Errorf("%+v", options)
	}
}
