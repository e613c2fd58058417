package server_test

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/mls"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// A device that the account's root key did not sign gets nowhere: no session, no KeyPackage, no leaf in a group.
func TestGhostsAreRefused(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice, bob := c.Signup(t, "alice"), c.Signup(t, "bob")
	bob.Upload(1)
	_, foreign, _ := ed25519.GenerateKey(nil)
	ghost := *bob
	ghost.Certificate = devicecert.Issue(foreign, bob.Certificate.AccountID, bob.Certificate.DeviceID, bob.Certificate.DeviceKey, time.Now())
	refused := bob.Conn.Refused(&wire.UploadKeyPackagesRequest{OneTime: [][]byte{ghost.KeyPackage()}}, wire.CodeInvalidKeyPackage)
	if !strings.Contains(refused.Message, "root key") {
		t.Errorf("an upload under another root: %v", refused)
	}
	conn := c.Dial(t)
	if _, err := bob.LoginOn(conn, "bob", bob.Password); err != nil {
		t.Fatal(err)
	}
	conn.Refused(&wire.StartSessionRequest{Certificate: ghost.Certificate.Marshal(), Proof: ghost.Proof(conn)}, wire.CodePermissionDenied)

	dm := alice.Open(bob)
	group, err := mls.CreateGroup(mls.GroupOptions{GroupID: ids.GroupID(dm.Channel, 1), Credential: mls.BasicCredential(alice.Certificate.Marshal()), Signer: alice.Device})
	if err != nil {
		t.Fatal(err)
	}
	message, err := mls.ParseMessage(ghost.KeyPackage())
	if err != nil {
		t.Fatal(err)
	}
	commit, err := group.Commit(mls.CommitOptions{Adds: []*mls.KeyPackage{message.KeyPackage}})
	if err != nil {
		t.Fatal(err)
	}
	refused = alice.Conn.Refused(&wire.CreateGroupRequest{ChannelID: dm.Channel, Generation: 1, GroupInfo: commit.GroupInfo,
		Welcomes: []wire.DeviceWelcome{{DeviceID: bob.Certificate.DeviceID, Welcome: commit.Welcome}}}, wire.CodePermissionDenied)
	if !strings.Contains(refused.Message, "root key") {
		t.Errorf("a group with a leaf under another root: %v", refused)
	}
	celltest.Must[*wire.CreateGroupResponse](alice.Conn, dm.Request)
}
