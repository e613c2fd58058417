# Errors: one taxonomy for every answer of a cell.
@0xcf36acabc3140aa2;
using Go = import "/go.capnp";
$Go.package("schema");
$Go.import("quicproquo.dev/schema");

enum ErrorCode {
  internal @0;              # The cell failed; the correlation id finds the log line.
  malformed @1;             # Not a valid frame or message.
  unsupportedVersion @2;    # Envelope.version is not spoken here; details: supported.
  unknownMethod @3;         # A request this cell does not know.
  frameTooLarge @4;         # A frame above the limit of its stream; details: limit.
  payloadTooLarge @5;       # An MLS message above the cell's payload cap; details: limit.
  invalidArgument @6;       # A field has a wrong length, range or value; details: field.
  unauthenticated @7;       # The call needs an authenticated device.
  invalidToken @8;          # A token that this cell did not issue, or not for this device.
  expiredToken @9;          # Refresh, or log in again.
  invalidProof @10;         # The device's signature over the connection does not verify.
  invalidCredentials @11;   # Unknown name or wrong password: the two are never told apart.
  permissionDenied @12;     # Authenticated, but not allowed.
  notFound @13;             # No such account, channel or device, or none the caller may see.
  alreadyExists @14;        # The name or id is taken.
  busy @15;                 # A queue is full or the database is away: retry after retryAfterMs.
  rateLimited @16;          # Too many requests: retry after retryAfterMs.
  draining @17;             # This replica is going away: reconnect.
  unsupportedSuite @18;     # An MLS cipher suite off the allowlist.
  invalidKeyPackage @19;    # Signature, credential or lifetime of a KeyPackage is wrong.
  expiredKeyPackage @20;    # The KeyPackage's lifetime is over.
  reusedKeyPackage @21;     # This KeyPackage, or its init key, was uploaded before.
  noKeyPackage @22;         # The target has no KeyPackage left.
  invalidMessage @23;       # Not an MLS message this channel takes.
  generationConflict @24;   # Another device created this generation of the group first.
  epochConflict @25;        # The message belongs to another epoch or generation; details, when known: epoch, seq (of the Commit that began it).
  deliveryIdReused @26;     # The same delivery id with other content.
  deliveryIdOutOfWindow @27;# The delivery id's time lies outside the dedup window.
  invalidCursor @28;        # An acknowledgement beyond the channel's end, or of another restore epoch.
  deviceRevoked @29;        # The device was revoked.
  reusedToken @30;          # A spent refresh token came back: its session is revoked, log in again.
  signupClosed @31;         # The cell takes no new accounts.
  invalidInvitation @32;    # The cell takes new accounts by invitation, and this is none, or was used, or has expired.
  accountDisabled @33;      # The cell's admin has disabled the account.
  linkExpired @34;          # There is no such link of a new device, or its time is over: start another.
  contactPending @35;       # The other account has not accepted to be written to.
  removeFirst @36;          # A revoked device is in the group: nothing else is taken before a Commit removes it; details: device.
}

struct Error {
  code @0 :ErrorCode;
  message @1 :Text;         # For people: what is wrong and what to do.
  retryable @2 :Bool;       # The same request may succeed later.
  retryAfterMs @3 :UInt32;  # Earliest sensible retry, milliseconds; 0 when not retryable.
  details @4 :List(Detail); # At most 8.

  struct Detail {
    key @0 :Text;
    value @1 :Text;
  }
}
