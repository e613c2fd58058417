package wire

// Limits of fields, in bytes or entries. docs/protocol.md lists them.
const (
	MaxName          = 256      // An account's name, before preparation.
	MaxDeviceName    = 128      // A device's name.
	MaxClientName    = 128      // A client's own name and version.
	MaxOpaque        = 1024     // An RFC 9807 message.
	MaxWrappedKey    = 512      // A wrapped root key.
	MaxToken         = 512      // A token.
	MaxRecoveryCodes = 16       // Recovery codes of an account.
	MaxLinkOffer     = 512      // What a new device offers.
	MaxLinkApproval  = 16384    // What it is told when it is approved.
	MaxExportPage    = 1 << 20  // Lines in one page of an export.
	MaxExportCursor  = 64       // Where an export goes on.
	MaxInvitations   = 100      // Invitations minted at once.
	MaxKeyPackage    = 8192     // A KeyPackage in its MLSMessage.
	MaxKeyPackages   = 100      // KeyPackages in one upload.
	MaxDevices       = 64       // Devices of an account.
	MaxGroupInfo     = 4 << 20  // A GroupInfo in its MLSMessage.
	MaxWelcome       = 4 << 20  // A Welcome in its MLSMessage.
	MaxCommit        = 4 << 20  // A Commit in its MLSMessage.
	MaxProposal      = 64 << 10 // A proposal in its MLSMessage.
	MaxRatchetTree   = 4 << 20  // A ratchet tree.
	MaxMembers       = 1024     // Accounts of a channel.
	MaxListed        = 100      // Channels or contacts in one page.
	MaxWelcomes      = 1024     // Welcomes in one createGroup.
	MaxAcks          = 256      // Acknowledgements in one request.
	MaxPayload       = 5 << 20  // An MLS message of a channel: the protocol's cap, which a cell may lower.
	MaxCredit        = 4096     // Deliveries in flight.
	maxCode          = 64       // A code as people type it.
	proofSize        = 64
	maxCipherSuites  = 64
	frameOverhead    = 4096                       // Of an envelope around the largest payload.
	MaxFrame         = MaxPayload + frameOverhead // The largest frame of an authenticated peer.
)
