# Auth: accounts, devices, OPAQUE (RFC 9807) and tokens.
@0xb34110edcb744840;
using Go = import "/go.capnp";
$Go.package("schema");
$Go.import("quicproquo.dev/schema");

struct SignupStartRequest {
  name @0 :Text;
  registrationRequest @1 :Data;   # RFC 9807 RegistrationRequest.
}

struct SignupStartResponse {
  registrationResponse @0 :Data;  # RFC 9807 RegistrationResponse.
}

struct SignupFinishRequest {
  name @0 :Text;
  registrationRecord @1 :Data;    # RFC 9807 RegistrationRecord.
  wrappedRootKey @2 :Data;        # The root's private key under OPAQUE's export key: opaque to the cell.
  certificate @3 :Data;           # Device certificate, 169 bytes (docs/protocol.md).
  deviceName @4 :Text;            # For the account's own device list.
  proof @5 :Data;                 # Device's signature over the TLS exporter.
}

struct LoginStartRequest {
  name @0 :Text;
  ke1 @1 :Data;
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
