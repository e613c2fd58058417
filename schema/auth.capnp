# Auth: accounts, devices, OPAQUE (RFC 9807) and tokens.
@0xb34110edcb744840;
using Go = import "/go.capnp";
$Go.package("schema");
$Go.import("quicproquo.dev/schema");

struct SignupStartRequest {
  name @0 :Text;
  registrationRequest @1 :Data;   # RFC 9807 RegistrationRequest.
  invitation @2 :Data;            # 16 bytes; empty: none. Looked at here, spent by signupFinish.
}

# Answer of signupStart and setPasswordStart.
struct SignupStartResponse {
  registrationResponse @0 :Data;  # RFC 9807 RegistrationResponse.
  opaqueKey @1 :UInt32;           # Of the cell's keys that this was made with; comes back with the record.
}

struct SignupFinishRequest {
  name @0 :Text;
  registrationRecord @1 :Data;    # RFC 9807 RegistrationRecord.
  wrappedRootKey @2 :Data;        # The root's private key under OPAQUE's export key: opaque to the cell.
  certificate @3 :Data;           # Device certificate, 169 bytes (docs/protocol.md).
  deviceName @4 :Text;            # For the account's own device list.
  proof @5 :Data;                 # Device's signature over the TLS exporter.
  invitation @6 :Data;            # 16 bytes; empty: none.
  opaqueKey @7 :UInt32;           # From signupStart; 0: the cell's present one.
  recoveryCodes @8 :List(RecoveryCode); # At most 16.
}

# What a cell keeps of one recovery code: enough to recognize it, not to guess it (docs/protocol.md).
struct RecoveryCode {
  recoveryKey @0 :Data;           # Ed25519 public key derived from the code.
  wrappedRootKey @1 :Data;        # The root's private key under a key derived from the code.
}

struct LoginStartRequest {
  name @0 :Text;
  ke1 @1 :Data;
  deviceId @2 :Data;              # With proof: a device of the account, whose login no stranger can hold up. Empty: none.
  proof @3 :Data;                 # That device's signature over the TLS exporter.
}

struct LoginStartResponse {
  ke2 @0 :Data;
}

struct LoginFinishRequest {
  ke3 @0 :Data;
}

# The password is proven; a session starts with startSession on the same connection.
struct LoginFinishResponse {
  accountId @0 :Data;
  rootKey @1 :Data;
  wrappedRootKey @2 :Data;
  setPassword @3 :Bool;           # The registration is under keys that the cell is giving up: set the password anew, the same one will do.
}

# After loginFinish or recover on the same connection: registers a password for the account.
struct SetPasswordStartRequest {
  registrationRequest @0 :Data;
}

struct SetPasswordFinishRequest {
  registrationRecord @0 :Data;
  wrappedRootKey @1 :Data;
  opaqueKey @2 :UInt32;           # From setPasswordStart; 0: the cell's present one.
  endOtherSessions @3 :Bool;      # Of all devices but the connection's own.
}

# Proves a recovery code; a session starts on the same connection once the password is set anew, which spends the code.
struct RecoverRequest {
  name @0 :Text;
  recoveryKey @1 :Data;
  proof @2 :Data;                 # The recovery key's signature over the TLS exporter.
}

struct RecoverResponse {
  accountId @0 :Data;
  rootKey @1 :Data;
  wrappedRootKey @2 :Data;        # Under the code. Empty: the code only allows resetAccount.
}

# After loginFinish on the same connection: replaces all recovery codes of the account.
struct SetRecoveryCodesRequest {
  recoveryCodes @0 :List(RecoveryCode); # At most 16; none: there are none any more.
}

# After recover with a reset code, and setPasswordStart, on the same connection: a new root key, a new password, and
# this as the only device.
struct ResetAccountRequest {
  registrationRecord @0 :Data;
  wrappedRootKey @1 :Data;
  certificate @2 :Data;           # By the new root key.
  deviceName @3 :Text;
  proof @4 :Data;
  opaqueKey @5 :UInt32;
  recoveryCodes @6 :List(RecoveryCode);
}

struct StartSessionRequest {
  certificate @0 :Data;     # A device unknown so far is added to the account.
  deviceName @1 :Text;
  proof @2 :Data;
}

# Answer of signupFinish, startSession and refreshSession.
struct Session {
  accessToken @0 :Data;
  accessExpiresAt @1 :Int64;      # Milliseconds since 1970 UTC.
  refreshToken @2 :Data;
  refreshExpiresAt @3 :Int64;
}

struct RefreshSessionRequest {
  refreshToken @0 :Data;
  deviceId @1 :Data;
  proof @2 :Data;
}

# Binds an access token to this connection; everything beyond hello, signup, login and refresh needs it.
struct AuthenticateRequest {
  accessToken @0 :Data;
  proof @1 :Data;
}

struct AuthenticateResponse {
  accountId @0 :Data;
  deviceId @1 :Data;
}
