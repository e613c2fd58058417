package interop

import "fmt"

// Engine is an MLS implementation that can be made to play members of a group.
type Engine interface {
	// Name is how the engine is called in the table.
	Name() string
	// NewMember makes a client with a basic credential of that name and a fresh
	// signature key. It is in no group yet.
	NewMember(name string) (Member, error)
}

// Member is one client of an engine. It is in one group at most. All messages are
// whole MLSMessages. A method that its engine does not offer returns Cannot.
type Member interface {
	// KeyPackage makes a KeyPackage; Join uses the one made last.
	KeyPackage() ([]byte, error)
	// Create starts a group with this member alone, in epoch 0.
	Create(groupID []byte) error
	// Join joins by a Welcome. tree is the content of a ratchet_tree extension, nil
	// if the Welcome carries it.
	Join(welcome, tree []byte) error
	// JoinExternal joins by an external Commit, and returns that.
	JoinExternal(groupInfo []byte, o ExternalOptions) ([]byte, error)
	// ProposeJoin asks from outside to be added, by the KeyPackage made last.
	ProposeJoin(groupInfo []byte) ([]byte, error)
	// Commit makes a Commit of everything proposed in this epoch and of what c adds
	// by value, and applies it to this member.
	Commit(c Commit) (Committed, error)
	// Propose makes a proposal.
	Propose(p Proposal) ([]byte, error)
	// Process takes in a message of someone else. For an application message it
	// returns the text.
	Process(message []byte) (text []byte, err error)
	// Encrypt makes an application message. A padded one is at least as long as the
	// padding says, in bytes.
	Encrypt(text []byte, padding int) ([]byte, error)
	// GroupInfo describes the current epoch, with external_pub.
	GroupInfo(o GroupInfoOptions) ([]byte, error)
	// Tree is the ratchet tree as the content of a ratchet_tree extension.
	Tree() ([]byte, error)
	// State tells what this member believes.
	State() (State, error)
	// AddPSK makes an external pre-shared key known.
	AddPSK(id, secret []byte) error
}

// Commit says what a Commit is to bring by value. The zero value rotates the
// committer's own keys, or commits what was proposed.
type Commit struct {
	// Adds are KeyPackages.
	Adds [][]byte
	// Removes are leaf indices.
	Removes []uint32
	// PSKs are ids of external pre-shared keys.
	PSKs [][]byte
	// ResumptionPSK mixes in the resumption PSK of an epoch of this group.
	ResumptionPSK *uint64
	// Extensions replaces the extensions of the group context when not nil.
	Extensions []Extension
	// ReInit closes the group for one of this id.
	ReInit []byte
	// Path asks for new key material even where it is not needed. An engine that has
	// no say in that does as it always does.
	Path bool
	// Private sends the Commit as a PrivateMessage.
	Private bool
	// NoTree leaves the tree out of the Welcome.
	NoTree bool
}

// Committed is what a Commit leads to. Welcome is nil when nobody was added.
type Committed struct{ Commit, Welcome []byte }

// Proposal says what to propose: one field besides Private.
type Proposal struct {
	Add        []byte
	Update     bool
	Remove     *uint32
	PSK        []byte
	Extensions []Extension
	ReInit     []byte
	// Private sends the proposal as a PrivateMessage.
	Private bool
}

// Extension is one of the group context.
type Extension struct {
	Type uint16 `json:"type"`
	Data []byte `json:"data"`
}

// ExternalOptions says how to join by an external Commit.
type ExternalOptions struct {
	// Tree is the ratchet tree when the GroupInfo lacks it.
	Tree []byte
	// Resync removes the own earlier leaf in the same Commit.
	Resync *uint32
	// AsIs takes the GroupInfo as the engine's own API does, with its faults.
	AsIs bool
}

// GroupInfoOptions says what a GroupInfo is to hold.
type GroupInfoOptions struct {
	// NoTree leaves out the ratchet tree.
	NoTree bool
	// AsIs writes the GroupInfo as the engine's own API does, with its faults.
	AsIs bool
}

// State is what all members of an epoch must agree on.
type State struct {
	Epoch         uint64 `json:"epoch"`
	Authenticator []byte `json:"authenticator"`
	// Exported is MLS-Exporter(ExportLabel, ExportContext, ExportLength). A group that
	// is not active need not export.
	Exported []byte `json:"exported"`
	// Members are ordered by leaf.
	Members []Leaf `json:"members"`
	// Active is false after a ReInit or after the member's own removal.
	Active bool `json:"active"`
}

// Leaf is one member as the others see it.
type Leaf struct {
	Index    uint32 `json:"index"`
	Identity string `json:"identity"`
}

// What State.Exported is made from.
const (
	ExportLabel   = "interop"
	ExportContext = "every step"
	ExportLength  = 48
)

// CannotError says that an engine does not offer something.
type CannotError struct{ Engine, Reason string }

func (e *CannotError) Error() string { return e.Engine + " cannot: " + e.Reason }

// Cannot makes a CannotError.
func Cannot(engine, format string, args ...any) error {
	return &CannotError{Engine: engine, Reason: fmt.Sprintf(format, args...)}
}
