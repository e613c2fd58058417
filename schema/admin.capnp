# Admin: calls of those who run the cell, on connections that are no device's.
@0x80840068bdbfd88b;
using Go = import "/go.capnp";
$Go.package("schema");
$Go.import("quicproquo.dev/schema");

using Devices = import "devices.capnp";

# Makes the connection an admin's, by a token or, without one, by the connection's TLS client certificate.
struct AdminAuthenticateRequest {
  token @0 :Data;
}

struct AdminSession {
  name @0 :Text;              # Of the admin, as the audit log knows it.
  role @1 :AdminRole;
  expiresAt @2 :Int64;        # Milliseconds since 1970 UTC; 0: with the connection.
}

enum AdminRole {
  none @0;                    # Invalid.
  cellAdmin @1;               # All admin calls.
  auditor @2;                 # Reads: adminGetAccount, adminExportAudit.
}

struct AdminInviteRequest {
  count @0 :UInt16;           # 1 to 100.
  lifetimeSec @1 :UInt32;     # 60 to 31536000.
}

# Answer of adminInvite and adminResetCode. A code is told once.
struct Codes {
  codes @0 :List(Text);
  expiresAt @1 :Int64;        # Milliseconds since 1970 UTC.
}

struct AdminResetCodeRequest {
  name @0 :Text;
  lifetimeSec @1 :UInt32;     # 60 to 31536000.
}

struct AdminGetAccountRequest {
  union {
    name @0 :Text;
    accountId @1 :Data;
  }
}

struct AdminAccount {
  accountId @0 :Data;
  name @1 :Text;
  rootKey @2 :Data;
  createdAt @3 :Int64;        # Milliseconds since 1970 UTC.
  disabled @4 :Bool;
  devices @5 :List(Devices.Device);
}

struct AdminSetDisabledRequest {
  accountId @0 :Data;
  disabled @1 :Bool;
}

struct AdminRevokeDeviceRequest {
  accountId @0 :Data;
  deviceId @1 :Data;
}

# Of all devices of the account.
struct AdminEndSessionsRequest {
  accountId @0 :Data;
}

struct AdminDeleteAccountRequest {
  accountId @0 :Data;
  name @1 :Text;              # The account's own, against mistakes.
}

struct AdminExportAuditRequest {
  after @0 :Data;             # next of the page before, at most 64 bytes; empty: from the oldest event on.
}
