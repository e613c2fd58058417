# Channels: who talks where.
@0xacb1745b0e06f2ad;
using Go = import "/go.capnp";
$Go.package("schema");
$Go.import("quicproquo.dev/schema");

struct GetAccountRequest {
  union {
    name @0 :Text;
    accountId @1 :Data;
  }
}

struct Account {
  accountId @0 :Data;
  name @1 :Text;
  rootKey @2 :Data;
}

struct OpenDmRequest {
  accountId @0 :Data;       # The other account.
}

# The pair's one channel, whoever opens it.
struct Channel {
  channelId @0 :Data;       # 16 bytes.
  generation @1 :UInt32;    # 0: no MLS group yet; createGroup makes generation 1.
  peer @2 :Account;         # The other side of a DM.
  lastSeq @3 :UInt64;
}

struct CreateGroupRequest {
  channelId @0 :Data;
  generation @1 :UInt32;    # The generation to create: the channel's present one plus 1.
  groupInfo @2 :Data;       # MLSMessage, with ratchet_tree; group id = channel id, generation (20 bytes).
  welcomes @3 :List(DeviceWelcome);
}

struct DeviceWelcome {
  deviceId @0 :Data;
  welcome @1 :Data;         # MLSMessage.
}

struct CreateGroupResponse {
  startSeq @0 :UInt64;      # Messages of the new generation come after this sequence.
}
