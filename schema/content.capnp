# Content: what people say, inside MLS application messages; the cell never sees it.
@0xfdfe84596da482d0;
using Go = import "/go.capnp";
$Go.package("schema");
$Go.import("quicproquo.dev/schema");

struct Content {
  version @0 :UInt16;       # 1.
  sentAt @1 :Int64;         # By the sender's clock, milliseconds since 1970 UTC.

  union {
    none @2 :Void;          # Invalid.
    text @3 :Text;
  }
}
