# Keys: MLS KeyPackages (RFC 9420 section 10).
@0xd1dbbab49ba9d18c;
using Go = import "/go.capnp";
$Go.package("schema");
$Go.import("quicproquo.dev/schema");

struct UploadKeyPackagesRequest {
  oneTime @0 :List(Data);   # Each an MLSMessage of wire format mls_key_package; handed out once.
  lastResort @1 :Data;      # Optional; replaces the device's last-resort KeyPackage.
}

# All or none are stored.
struct KeyPackageStatus {
  oneTime @0 :UInt16;            # Unexpired one-time KeyPackages left.
  lastResortExpiresAt @1 :Int64; # Milliseconds since 1970 UTC; 0 when there is none.
}

struct ClaimKeyPackagesRequest {
  requestId @0 :Data;       # 16 bytes; the same id again answers with the same packages.
  accountId @1 :Data;
}

struct ClaimKeyPackagesResponse {
  packages @0 :List(ClaimedKeyPackage);  # One for each device of the account.
}

struct ClaimedKeyPackage {
  deviceId @0 :Data;
  keyPackage @1 :Data;      # MLSMessage.
  lastResort @2 :Bool;
}
