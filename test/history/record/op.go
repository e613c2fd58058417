// Package record is what happened in a run: every call of every client with when it began and ended, and everything that
// was pushed. A history is kept as a file of JSON lines, from which alone it can be checked again.
package record

// Kind says what an Op is.
type Kind string

// The kinds, and which fields of an Op they use besides Client, Call, Return and Outcome.
const (
	// Enqueue: Channel, Device, ID (delivery id), Content; of an answer Seq, At, Duplicate.
	Enqueue Kind = "enqueue"
	// Subscribe begins a stream of pushes: Device, Epoch (the restore epoch).
	Subscribe Kind = "subscribe"
	// Push is a Delivery of a channel: Channel, Device, ID, Content (empty of an own message), Seq, Prev, At, From.
	Push Kind = "push"
	// Ack: Channel, Device, Seq.
	Ack Kind = "ack"
	// CaughtUp: Channel, Device, Seq (of the last message that the device has of the channel). Call is when the
	// subscription was asked for.
	CaughtUp Kind = "caughtUp"
	// Complete is a CaughtUp after which nobody wrote any more: the device has all there is.
	Complete Kind = "complete"
	// Quiet says that a subscription of the end brought nothing that had been acknowledged before: Device, Count.
	Quiet Kind = "quiet"
	// Open is openDm: Pair; of an answer Channel, Generation, Seq (the channel's last).
	Open Kind = "open"
	// Create is createGroup: Channel, Device, Generation, ID (names the attempt's content); of an answer Seq.
	Create Kind = "create"
	// Welcome is the push of a Welcome: Channel, Device, Generation, Content.
	Welcome Kind = "welcome"
	// Notice is the push of a notice to the device's inbox: Device.
	Notice Kind = "notice"
	// Commit: Channel, Device, Generation, Epoch, ID; of an answer Seq, Duplicate.
	Commit Kind = "commit"
	// Upload is uploadKeyPackages: Device, Packages.
	Upload Kind = "upload"
	// Claim is claimKeyPackages, as it concerns one device: Device (the target), ID (request id), From (the claimer); of an answer
	// Content (the package; empty: none for this device), LastResort.
	Claim Kind = "claim"
	// Fault is what was done to the cell: Text. It is not checked.
	Fault Kind = "fault"
)

// Outcome says how a call ended.
type Outcome string

// The outcomes. Of an Unknown one nobody can say whether it took effect, or whether it still will.
const (
	OK      Outcome = "ok"
	Refused Outcome = "refused" // By the error Code, which promises that nothing was changed.
	Unknown Outcome = "unknown"
)

// Op is one thing that happened. Times are nanoseconds since the run began, by one monotonic clock, no two the same.
type Op struct {
	Kind    Kind    `json:"kind"`
	Client  int     `json:"client"`
	Call    int64   `json:"call"`
	Return  int64   `json:"return"` // When the caller knew, or gave up.
	Outcome Outcome `json:"outcome"`
	Code    string  `json:"code,omitempty"`
	Text    string  `json:"text,omitempty"`

	Channel    string   `json:"channel,omitempty"`
	Device     string   `json:"device,omitempty"`
	From       string   `json:"from,omitempty"`
	Pair       string   `json:"pair,omitempty"`
	ID         string   `json:"id,omitempty"`
	Content    string   `json:"content,omitempty"` // A fingerprint.
	Seq        uint64   `json:"seq,omitempty"`
	Prev       uint64   `json:"prev,omitempty"`
	At         int64    `json:"at,omitempty"` // The cell's time of acceptance, milliseconds since 1970.
	Duplicate  bool     `json:"duplicate,omitempty"`
	Generation uint32   `json:"generation,omitempty"`
	Epoch      uint64   `json:"epoch,omitempty"`
	Packages   []string `json:"packages,omitempty"` // Fingerprints.
	LastResort bool     `json:"lastResort,omitempty"`
	Count      int      `json:"count,omitempty"`
}

// History is a whole run.
type History struct {
	Name    string            `json:"name"`
	Seed    uint64            `json:"seed"`
	Plan    map[string]string `json:"plan,omitempty"` // What was asked for, for people and to run it again.
	Replica int               `json:"replicas,omitempty"`
	Ops     []Op              `json:"-"`
}
