# Contacts: who may write to whom first, where the cell's policy asks, and who may not.
@0xe4508d0e23f99a88;
using Go = import "/go.capnp";
$Go.package("schema");
$Go.import("quicproquo.dev/schema");

using Channels = import "channels.capnp";

enum ContactState {
  none @0;                  # Strangers, or an older cell that does not say.
  requested @1;             # The caller has asked, and waits.
  asked @2;                 # The other has asked: accept or block.
  accepted @3;              # Both may write.
  blocked @4;               # By the caller.
}

struct ListContactsRequest {
  after @0 :Data;           # The last accountId of the page before; empty: the first page.
}

struct ContactList {
  contacts @0 :List(Contact);       # At most 100, by accountId.
  more @1 :Bool;
}

struct Contact {
  account @0 :Channels.Account;
  state @1 :ContactState;
  since @2 :Int64;          # Milliseconds since 1970 UTC.
}

struct AcceptContactRequest {
  accountId @0 :Data;
}

struct BlockAccountRequest {
  accountId @0 :Data;
  blocked @1 :Bool;         # False: take the block back.
}
