# Channels: who talks where.
@0xacb1745b0e06f2ad;
using Go = import "/go.capnp";
$Go.package("schema");
$Go.import("quicproquo.dev/schema");

using Contacts = import "contacts.capnp";

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
  peer @2 :Account;         # The other side of a DM; absent for a group.
  lastSeq @3 :UInt64;
  kind @4 :ChannelKind;
  epoch @5 :UInt64;         # Of the MLS group.
  role @6 :ChannelRole;     # The caller's.
  retentionSec @7 :UInt32;  # How long messages are kept; 0: as the cell's policy says.
  history @8 :History;
  contact @9 :Contacts.ContactState;  # Of a DM's two accounts, as the caller sees it.
}

enum ChannelKind {
  direct @0;
  group @1;
}

enum ChannelRole {
  none @0;                  # Not said, by an older cell.
  member @1;
  moderator @2;             # Removes members.
  admin @3;                 # Adds and removes members, gives roles, sets retention.
}

enum History {
  policy @0;                # As the cell's policy says.
  on @1;                    # Messages are kept until their retention has passed.
  off @2;                   # A message is deleted once every member device has acknowledged it.
}

# A channel of any number of accounts. Who opens it is its admin, and its only member until createGroup.
struct OpenGroupRequest {
  channelId @0 :Data;       # A fresh UUID of the caller's: the same request again answers the same channel.
}

struct GetChannelRequest {
  channelId @0 :Data;
}

# Answer of getChannel.
struct ChannelDetails {
  channel @0 :Channel;
  members @1 :List(ChannelMember);  # At most 1024.
}

struct ChannelMember {
  accountId @0 :Data;
  role @1 :ChannelRole;
  devices @2 :UInt16;       # In the MLS group.
}

struct ListChannelsRequest {
  after @0 :Data;           # The last channelId of the page before; empty: the first page.
}

struct ChannelList {
  channels @0 :List(Channel);       # At most 100, by channelId.
  more @1 :Bool;
}

struct SetRoleRequest {
  channelId @0 :Data;
  accountId @1 :Data;
  role @2 :ChannelRole;
}

struct SetRetentionRequest {
  channelId @0 :Data;
  retentionSec @1 :UInt32;  # 3600 to 31536000; 0: as the cell's policy says. For messages that come.
  history @2 :History;
}

# What a joiner by external commit, or one that was added, needs to know of the group.
struct GetGroupInfoRequest {
  channelId @0 :Data;
}

struct ChannelGroupInfo {
  generation @0 :UInt32;
  epoch @1 :UInt64;
  groupInfo @2 :Data;       # MLSMessage, with or without ratchet_tree.
  ratchetTree @3 :Data;     # Of the same epoch.
  seq @4 :UInt64;           # Of the commit that began the epoch: what comes after it is of this epoch.
}

# A vote to give the group up, for members that cannot go on. When a majority of the channel's accounts (of a DM:
# either one) has voted, createGroup may make the generation.
struct VoteGenerationRequest {
  channelId @0 :Data;
  generation @1 :UInt32;    # The one to make: the channel's present one plus 1.
}

struct GenerationVotes {
  votes @0 :UInt16;
  needed @1 :UInt16;
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
