# Delivery: ordered, idempotent, resumable.
@0xc5e4cf07cf345bb1;
using Go = import "/go.capnp";
$Go.package("schema");
$Go.import("quicproquo.dev/schema");

using Channels = import "channels.capnp";

struct EnqueueRequest {
  channelId @0 :Data;
  generation @1 :UInt32;
  deliveryId @2 :Data;      # UUIDv7, 16 bytes: a retry with the same id is stored once.
  payload @3 :Data;         # MLSMessage.
}

struct EnqueueResponse {
  seq @0 :UInt64;
  acceptedAt @1 :Int64;     # Milliseconds since 1970 UTC.
  duplicate @2 :Bool;       # Stored by an earlier request with the same delivery id.
}

# A Commit, with all that follows from it: stored together, or not at all.
struct CommitRequest {
  channelId @0 :Data;
  generation @1 :UInt32;
  epoch @2 :UInt64;         # The one the Commit ends.
  deliveryId @3 :Data;      # UUIDv7: a retry with the same id is answered as the first time.
  commit @4 :Data;          # MLSMessage: a PublicMessage, authenticated_data = deliveryId.
  groupInfo @5 :Data;       # MLSMessage of the next epoch, with external_pub; ratchet_tree may be left out.
  welcomes @6 :List(Channels.DeviceWelcome);  # One for each device that the Commit adds.
}

struct CommitResponse {
  seq @0 :UInt64;
  epoch @1 :UInt64;         # The one that begins.
  acceptedAt @2 :Int64;     # Milliseconds since 1970 UTC.
  duplicate @3 :Bool;
}

# A proposal by reference, of a member's device. Answered by an EnqueueResponse.
struct ProposeRequest {
  channelId @0 :Data;
  generation @1 :UInt32;
  deliveryId @2 :Data;
  proposal @3 :Data;        # MLSMessage: a PublicMessage, authenticated_data = deliveryId.
}

# Retention, or a restore, has passed the device: messages up to seq are gone for it. It catches up from there; if it
# lacks a Commit, it joins anew by an external one.
struct Behind {
  channelId @0 :Data;
  seq @1 :UInt64;
}

struct SubscribeRequest {
  credit @0 :UInt16;        # Deliveries in flight, unacknowledged; 0 asks for the cell's default, which is also the most.
  notices @1 :Bool;         # The client knows deliveries of kind notice; without it, none is pushed.
}

struct SubscribeResponse {
  restoreEpoch @0 :UInt64;
  credit @1 :UInt16;
}

struct AckRequest {
  acks @0 :List(Ack);       # Cumulative, at most 256.
}

struct Ack {
  channelId @0 :Data;
  seq @1 :UInt64;
}

# One stored message, pushed in the channel's order.
struct Delivery {
  channelId @0 :Data;       # The device's id for what is addressed to the device itself (its inbox).
  seq @1 :UInt64;
  prevSeq @2 :UInt64;       # The delivery before this one in this channel and subscription; 0: the first.
  kind @3 :Kind;
  generation @4 :UInt32;
  senderAccountId @5 :Data;
  senderDeviceId @6 :Data;
  deliveryId @7 :Data;
  acceptedAt @8 :Int64;     # When the cell stored it, milliseconds since 1970 UTC.
  payload @9 :Data;         # MLSMessage; empty for own.
  aboutChannelId @10 :Data; # In the inbox: the channel a Welcome is for.

  enum Kind {
    application @0;
    commit @1;
    proposal @2;
    welcome @3;             # In the inbox.
    own @4;                 # Sent by this very device: its place in the order.
    notice @5;              # In the inbox: the payload is a Notice, framed as every message (docs/protocol.md).
  }
}

# Everything stored when the subscription began has been pushed; what follows is live.
struct CaughtUp {
  deliveries @0 :UInt64;    # Pushed until here in this subscription.
}
