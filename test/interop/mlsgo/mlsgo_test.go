package mlsgo

import (
	"bytes"
	"errors"
	"flag"
	"testing"

	"quicproquo.dev/mls"
	"quicproquo.dev/test/interop"
	"quicproquo.dev/test/interop/ours"
)

var update = flag.Bool("update", false, "rewrite the table in README.md")

const wrongCapabilities = "required_capabilities is taken for versions, suites, extensions, proposals and credentials; RFC 9420 §11.1 has the last three alone"

const misread = "leaf does not support required extension type 1"

var faults = map[string]interop.Fault{
	"GroupContextExtensions by value, required_capabilities, ours into theirs":     {Error: misread, Why: wrongCapabilities},
	"GroupContextExtensions by value, required_capabilities, theirs into ours":     {Error: misread, Why: wrongCapabilities},
	"GroupContextExtensions by reference, required_capabilities, ours into theirs": {Error: misread, Why: wrongCapabilities},
	"GroupContextExtensions by reference, required_capabilities, theirs into ours": {Error: misread, Why: wrongCapabilities},
	"Client.SelfUpdate, theirs into ours": {
		Error: mls.ErrInvalidProposal.Error(),
		Why:   "it commits an Update of the committer's own; RFC 9420 §12.2 forbids that, an empty Commit does the same",
	},
	"GroupInfo of epoch 0 has a confirmation tag, theirs alone": {
		Error: errNoTag.Error(),
		Why:   "the tag of epoch 0 is empty; RFC 9420 §11 computes one, and §12.4.3 puts it there",
	},
	"the first epochs are secret, theirs alone": {
		Error: errPredictable.Error(),
		Why:   "a new group's epoch secret is made of zeros and public values, RFC 9420 §11 wants a fresh random one; the first Commit has no path, so outsiders can compute epoch 1 as well",
	},
}

func TestInterop(t *testing.T) {
	s := interop.Suite{
		Us: ours.Engine{}, Them: Engine{}, Faults: faults,
		Extras: []interop.Extra{
			{Name: "Client.SelfUpdate", Direction: "theirs into ours", Run: selfUpdate},
			{Name: "the first epochs are secret", Direction: "theirs alone", Run: firstEpochs},
			{Name: "GroupInfo of epoch 0 has a confirmation tag", Direction: "theirs alone", Run: epochZeroTag},
		},
	}
	s.Run(t, "../README.md", *update)
}

// selfUpdate does what Client.SelfUpdate does: it commits an Update of its own.
func selfUpdate() error {
	us, err := ours.Engine{}.NewMember("us")
	if err != nil {
		return err
	}
	them, err := Engine{}.NewMember("them")
	if err != nil {
		return err
	}
	if err := us.Create([]byte("group")); err != nil {
		return err
	}
	kp, err := them.KeyPackage()
	if err != nil {
		return err
	}
	added, err := us.Commit(interop.Commit{Adds: [][]byte{kp}})
	if err != nil {
		return err
	}
	if err := them.Join(added.Welcome, nil); err != nil {
		return err
	}
	if _, err := them.(*member).proposal(interop.Proposal{Update: true}); err != nil {
		return err
	}
	updated, err := them.Commit(interop.Commit{})
	if err != nil {
		return err
	}
	_, err = us.Process(updated.Commit)
	return err
}

var errNoTag = errors.New("no confirmation tag")

func epochZeroTag() error {
	m, err := Engine{}.NewMember("creator")
	if err != nil {
		return err
	}
	if _, err := m.KeyPackage(); err != nil {
		return err
	}
	if err := m.Create([]byte("group")); err != nil {
		return err
	}
	gi, err := m.GroupInfo(interop.GroupInfoOptions{})
	if err != nil {
		return err
	}
	parsed, err := mls.ParseMessage(gi)
	if err != nil {
		return err
	}
	if len(parsed.GroupInfo.ConfirmationTag) == 0 {
		return errNoTag
	}
	return nil
}

var errPredictable = errors.New("two groups have the same secrets")

// firstEpochs makes two groups of the same public values. Their secrets must differ,
// for whoever knows the public values knows as much as the second creator.
func firstEpochs() error {
	m, err := Engine{}.NewMember("creator")
	if err != nil {
		return err
	}
	if _, err := m.KeyPackage(); err != nil {
		return err
	}
	var secrets [2][]byte
	for i := range secrets {
		if err := m.Create([]byte("group")); err != nil {
			return err
		}
		s, err := m.State()
		if err != nil {
			return err
		}
		secrets[i] = s.Exported
	}
	if bytes.Equal(secrets[0], secrets[1]) {
		return errPredictable
	}
	return nil
}
