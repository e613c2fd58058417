# Account: its end, and a copy of all the cell has about it.
@0xc60895dcbb8ff28f;
using Go = import "/go.capnp";
$Go.package("schema");
$Go.import("quicproquo.dev/schema");

# On a connection with a proven login. There is no way back. Answered by Done.
struct DeleteAccountRequest {
  name @0 :Text;              # The account's own, against mistakes.
}

# Page by page, until next is empty.
struct ExportAccountRequest {
  after @0 :Data;             # next of the page before, at most 64 bytes; empty: the first page.
}

# Also answers adminExportAudit.
struct ExportPage {
  lines @0 :Data;             # Whole lines of JSON, UTF-8, at most 1 MiB.
  next @1 :Data;              # Empty: there is no more.
}
