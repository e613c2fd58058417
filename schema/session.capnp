# Session: hello, and what the cell says unasked about the connection.
@0xf17721da02cc01ef;
using Go = import "/go.capnp";
$Go.package("schema");
$Go.import("quicproquo.dev/schema");

struct HelloRequest {
  client @0 :Text;          # Name and version of the client, at most 128 bytes, for the cell's logs.
  minVersion @1 :UInt16;    # Lowest and highest schema version the client speaks.
  maxVersion @2 :UInt16;
}

struct HelloResponse {
  server @0 :Text;
  version @1 :UInt16;       # The schema version to use from here on.
  cellId @2 :Data;          # 16 bytes, stable for the life of the cell's data.
  restoreEpoch @3 :UInt64;  # Grows when the cell is restored from a backup: sequences may have gone back.
  serverTime @4 :Int64;     # Milliseconds since 1970 UTC.
  maxControlFrame @5 :UInt32; # Bytes; larger frames travel alone on a stream of their own.
  maxPayload @6 :UInt32;    # Bytes of one MLS message.
  cipherSuites @7 :List(UInt16);
  keyPackageLifetimeSec @8 :UInt32;  # Of a one-time KeyPackage, at most.
  lastResortLifetimeSec @9 :UInt32;
  maxKeyPackages @10 :UInt16;        # One-time KeyPackages kept per device.
}

# The replica is going away, or this connection is: reconnect to the cell's endpoint.
struct GoAway {
  reason @0 :Reason;
  graceMs @1 :UInt32;       # The connection is closed after this many milliseconds.

  enum Reason {
    draining @0;
    sessionReplaced @1;     # A newer subscription of the same device took over.
    revoked @2;
    tokenExpired @3;
  }
}
