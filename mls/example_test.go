package mls_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"log"
	"time"

	"quicproquo.dev/mls"
)

// device is what an application keeps for each of its people.
type device struct {
	name   string
	signer ed25519.PrivateKey
	bundle *mls.KeyPackageBundle
	group  *mls.Group
}

func newDevice(name string) *device {
	_, signer, err := ed25519.GenerateKey(nil)
	check(err)
	bundle, err := mls.NewKeyPackage(mls.KeyPackageOptions{
		Credential: mls.BasicCredential([]byte(name)),
		Signer:     signer,
		NotBefore:  time.Now().Add(-time.Minute),
		NotAfter:   time.Now().Add(24 * time.Hour),
	})
	check(err)
	return &device{name: name, signer: signer, bundle: bundle}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func parse(b []byte) *mls.Message {
	m, err := mls.ParseMessage(b)
	check(err)
	return m
}

// aliceAndBob returns two devices in one group.
func aliceAndBob() (alice, bob *device) {
	alice, bob = newDevice("alice"), newDevice("bob")
	var err error
	alice.group, err = mls.CreateGroup(mls.GroupOptions{
		GroupID:    []byte("channel-1"),
		Credential: mls.BasicCredential([]byte(alice.name)),
		Signer:     alice.signer,
	})
	check(err)
	pending, err := alice.group.Commit(mls.CommitOptions{Adds: []*mls.KeyPackage{bob.bundle.KeyPackage()}})
	check(err)
	check(alice.group.Merge(pending))
	bob.group, err = mls.JoinGroup(parse(pending.Welcome).Welcome, bob.bundle, bob.signer, mls.JoinOptions{})
	check(err)
	return alice, bob
}

// Alice creates a group and adds Bob, whose key package she fetched; Bob joins by
// the Welcome.
func Example() {
	alice, bob := newDevice("alice"), newDevice("bob")

	group, err := mls.CreateGroup(mls.GroupOptions{
		GroupID:    []byte("channel-1"),
		Credential: mls.BasicCredential([]byte("alice")),
		Signer:     alice.signer,
	})
	check(err)
	check(bob.bundle.KeyPackage().Verify(time.Now(), nil))
	pending, err := group.Commit(mls.CommitOptions{Adds: []*mls.KeyPackage{bob.bundle.KeyPackage()}})
	check(err)
	// Send pending.Commit, and once it is accepted:
	check(group.Merge(pending))

	joined, err := mls.JoinGroup(parse(pending.Welcome).Welcome, bob.bundle, bob.signer, mls.JoinOptions{})
	check(err)
	for _, m := range joined.Members() {
		fmt.Println(m.Index, string(m.Credential.Identity))
	}
	// Output:
	// 0 alice
	// 1 bob
}

// A group begins with one member.
func ExampleCreateGroup() {
	_, signer, err := ed25519.GenerateKey(nil)
	check(err)
	group, err := mls.CreateGroup(mls.GroupOptions{
		GroupID:    []byte("channel-1"),
		Credential: mls.BasicCredential([]byte("alice")),
		Signer:     signer,
	})
	check(err)
	fmt.Println(string(group.GroupID()), group.Epoch(), len(group.Members()))
	// Output:
	// channel-1 0 1
}

// A device publishes a KeyPackage and keeps the bundle, saved and encrypted, until a
// Welcome for it arrives.
func ExampleJoinGroup() {
	alice, _ := aliceAndBob()
	carol := newDevice("carol")
	saved, err := carol.bundle.MarshalBinary()
	check(err)

	published, err := carol.bundle.KeyPackage().MarshalMessage()
	check(err)
	keyPackage := parse(published).KeyPackage
	check(keyPackage.Verify(time.Now(), nil))
	pending, err := alice.group.Commit(mls.CommitOptions{Adds: []*mls.KeyPackage{keyPackage}})
	check(err)
	check(alice.group.Merge(pending))

	bundle, err := mls.UnmarshalKeyPackageBundle(saved)
	check(err)
	welcome := parse(pending.Welcome).Welcome
	fmt.Println(welcome.Includes(bundle.KeyPackage().Ref()))
	carol.group, err = mls.JoinGroup(welcome, bundle, carol.signer, mls.JoinOptions{})
	check(err)
	fmt.Println(len(carol.group.Members()), carol.group.Epoch() == alice.group.Epoch())
	// Output:
	// true
	// 3 true
}

// Whatever arrives goes through Process, which tells what it was.
func ExampleGroup_Process() {
	alice, bob := aliceAndBob()
	hello, err := alice.group.Encrypt([]byte("hello"), nil, 0)
	check(err)
	proposal, err := alice.group.Propose(mls.ProposeOptions{Update: true})
	check(err)
	commit, err := alice.group.Commit(mls.CommitOptions{ForcePath: true})
	check(err)

	for _, b := range [][]byte{hello, proposal, commit.Commit, hello} {
		got, err := bob.group.Process(parse(b), time.Now())
		switch {
		case errors.Is(err, mls.ErrReplay):
			fmt.Println("seen before: drop it")
			continue
		case err != nil:
			fmt.Println("refused:", err)
			continue
		}
		// Save the group here, before anything shows that the message was read.
		switch got.Kind {
		case mls.Application:
			fmt.Printf("%s says %s\n", got.SenderCredential.Identity, got.Data)
		case mls.ProposalReceived:
			fmt.Println("proposals waiting for a commit:", bob.group.ProposalsWaiting())
		case mls.CommitApplied:
			fmt.Println("now in epoch", bob.group.Epoch())
		}
	}
	// Output:
	// alice says hello
	// proposals waiting for a commit: 1
	// now in epoch 2
	// seen before: drop it
}

// directory is a validator that knows everybody's key.
type directory map[string]ed25519.PublicKey

func (d directory) ValidateCredential(c mls.Credential, key ed25519.PublicKey) error {
	if known, ok := d[string(c.Identity)]; !ok || !known.Equal(key) {
		return errors.New("not in the directory")
	}
	return nil
}

// A validator decides who is believed to be whom.
func ExampleCredentialValidator() {
	alice, mallory := newDevice("alice"), newDevice("alice")
	d := directory{"alice": alice.signer.Public().(ed25519.PublicKey)}
	fmt.Println(alice.bundle.KeyPackage().Verify(time.Now(), d))
	err := mallory.bundle.KeyPackage().Verify(time.Now(), d)
	fmt.Println(errors.Is(err, mls.ErrCredential))
	// Output:
	// <nil>
	// true
}

// Messages are encrypted, padded to a size that hides their length, and received.
func ExampleGroup_Encrypt() {
	alice, bob := aliceAndBob()

	sent, err := alice.group.Encrypt([]byte("hello"), []byte("message 1"), 256)
	check(err)
	got, err := bob.group.Process(parse(sent), time.Now())
	check(err)
	fmt.Printf("%s: %s (%s)\n", got.SenderCredential.Identity, got.Data, got.AuthenticatedData)

	_, err = bob.group.Process(parse(sent), time.Now())
	fmt.Println(errors.Is(err, mls.ErrReplay))
	// Output:
	// alice: hello (message 1)
	// true
}

// A Commit is sent first and merged when it was accepted; one that lost the race
// is dropped.
func ExampleGroup_Commit() {
	alice, bob := aliceAndBob()

	fromAlice, err := alice.group.Commit(mls.CommitOptions{})
	check(err)
	fromBob, err := bob.group.Commit(mls.CommitOptions{})
	check(err)
	// The delivery service accepts Alice's.
	check(alice.group.Merge(fromAlice))
	_, err = bob.group.Process(parse(fromAlice.Commit), time.Now())
	check(err)
	fmt.Println(errors.Is(bob.group.Merge(fromBob), mls.ErrStalePending))
	fmt.Println(alice.group.Epoch(), bob.group.Epoch())
	// Output:
	// true
	// 2 2
}

// A member is removed by its leaf index.
func ExampleCommitOptions_removes() {
	alice, bob := aliceAndBob()

	pending, err := alice.group.Commit(mls.CommitOptions{Removes: []mls.LeafIndex{bob.group.OwnIndex()}})
	check(err)
	check(alice.group.Merge(pending))
	got, err := bob.group.Process(parse(pending.Commit), time.Now())
	check(err)
	fmt.Println(got.SelfRemoved, bob.group.Active(), len(alice.group.Members()))
	// Output:
	// true false 1
}

// A device without a Welcome joins by an external Commit.
func ExampleJoinExternal() {
	alice, bob := aliceAndBob()
	carol := newDevice("carol")

	info, err := alice.group.GroupInfo()
	check(err)
	join, err := mls.JoinExternal(parse(info).GroupInfo, mls.ExternalJoinOptions{
		Credential: mls.BasicCredential([]byte(carol.name)),
		Signer:     carol.signer,
	})
	check(err)
	// Send join.Commit, and once it is accepted:
	carol.group = join.Group
	for _, d := range []*device{alice, bob} {
		got, err := d.group.Process(parse(join.Commit), time.Now())
		check(err)
		fmt.Println(got.External, got.Sender, d.group.Epoch() == carol.group.Epoch())
	}
	// Output:
	// true 2 true
	// true 2 true
}

// The state is saved after every change, encrypted by the caller, and loaded again.
func ExampleGroup_MarshalBinary() {
	alice, bob := aliceAndBob()

	sent, err := alice.group.Encrypt([]byte("before"), nil, 0)
	check(err)
	state, err := bob.group.MarshalBinary()
	check(err)
	bob.group, err = mls.UnmarshalGroup(state, bob.signer, nil)
	check(err)
	got, err := bob.group.Process(parse(sent), time.Now())
	check(err)
	fmt.Println(string(got.Data))
	// Output:
	// before
}

// A Commit that was sent survives a restart, and is merged when it was accepted.
func ExamplePendingCommit_MarshalBinary() {
	alice, _ := aliceAndBob()
	pending, err := alice.group.Commit(mls.CommitOptions{})
	check(err)
	group, err := alice.group.MarshalBinary()
	check(err)
	commit, err := pending.MarshalBinary()
	check(err)
	// Both are stored, the Commit is sent, and the program ends. Later:
	alice.group, err = mls.UnmarshalGroup(group, alice.signer, nil)
	check(err)
	pending, err = alice.group.UnmarshalPendingCommit(commit)
	check(err)
	check(alice.group.Merge(pending))
	fmt.Println(alice.group.Epoch())
	// Output:
	// 2
}

// A delivery service follows a group without being a member.
func ExamplePublicGroup() {
	alice, _ := aliceAndBob()
	info, err := alice.group.GroupInfo()
	check(err)

	follower, err := mls.NewPublicGroup(parse(info).GroupInfo, nil, nil)
	check(err)
	carol := newDevice("carol")
	pending, err := alice.group.Commit(mls.CommitOptions{Adds: []*mls.KeyPackage{carol.bundle.KeyPackage()}})
	check(err)
	next := follower.Clone()
	got, err := next.Process(parse(pending.Commit).PublicMessage, time.Now())
	check(err)
	check(next.VerifyGroupInfo(parse(pending.GroupInfo).GroupInfo))
	fmt.Println(follower.Epoch(), next.Epoch(), len(got.Added), len(next.Members()))
	// Output:
	// 1 2 1 3
}
