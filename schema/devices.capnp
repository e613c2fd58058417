# Devices: those of the caller's own account, and how another joins them.
@0xb48b50811e67afef;
using Go = import "/go.capnp";
$Go.package("schema");
$Go.import("quicproquo.dev/schema");

# Answer of listDevices: those that are in use, in the order of their addition.
struct DeviceList {
  devices @0 :List(Device);   # At most 64.
}

struct Device {
  deviceId @0 :Data;
  name @1 :Text;
  certificate @2 :Data;       # 169 bytes: who vouches for the device is not the cell.
  addedAt @3 :Int64;          # Milliseconds since 1970 UTC.
  lastSeenAt @4 :Int64;       # To the day, milliseconds since 1970 UTC; 0: never.
}

struct RenameDeviceRequest {
  deviceId @0 :Data;
  name @1 :Text;
}

# For good. Another device than the caller's own takes a login proven on the same connection.
struct RevokeDeviceRequest {
  deviceId @0 :Data;
}

# The new device's side, before it has any session. linkId follows from a code that its person carries to another
# device of the account; so do the keys that protect offer and approval from the cell (docs/protocol.md).
struct StartDeviceLinkRequest {
  linkId @0 :Data;            # 16 bytes.
  offer @1 :Data;             # For the other device, at most 512 bytes.
}

# Either side's: asked for again until something is there.
struct GetDeviceLinkRequest {
  linkId @0 :Data;
}

# Answer of startDeviceLink and getDeviceLink.
struct DeviceLink {
  offer @0 :Data;
  approval @1 :Data;          # Empty: not approved yet.
  certificate @2 :Data;       # By the account's root key, with the approval.
  expiresAt @3 :Int64;        # Milliseconds since 1970 UTC.
}

# By a device of the account, on a connection with a proven login.
struct ApproveDeviceLinkRequest {
  linkId @0 :Data;
  certificate @1 :Data;       # Of the new device, 169 bytes.
  deviceName @2 :Text;
  approval @3 :Data;          # For the new device, at most 16384 bytes.
}

# By the new device: answered by a Session. The link is spent.
struct FinishDeviceLinkRequest {
  linkId @0 :Data;
  proof @1 :Data;             # The new device's signature over the TLS exporter.
}

# What a device is told in its inbox: the payload of a delivery of kind notice.
struct Notice {
  union {
    none @0 :Void;            # Invalid.
    deviceAdded @1 :DeviceNotice;
    deviceRevoked @2 :DeviceNotice;
    accountDeleted @3 :AccountNotice;
    rootKeyReset @4 :AccountNotice;   # Ask for the account: it has another root key.
    contactRequested @5 :AccountNotice;
    contactAccepted @6 :AccountNotice;
  }
}

struct DeviceNotice {
  accountId @0 :Data;
  deviceId @1 :Data;
}

struct AccountNotice {
  accountId @0 :Data;
}
