package admin

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"quicproquo.dev/schema/wire"
)

func auditCommand() *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "Export the audit log"}
	c.AddCommand(auditExportCommand())
	return c
}

func auditExportCommand() *cobra.Command {
	var after uint64
	var out string
	c := verb("export", "Export the audit log as JSON lines", `What the cell's checkpoints have signed, which is all but the last minute; "cell
audit verify --file FILE --public-key KEYS" verifies it anywhere. A later export
goes on where this one ends, with --after and the number that is told then.`,
		exactly(0, "audit export takes no argument; --out FILE names a file"), func(c *cobra.Command, s *session, _ []string) error {
			e := &export{last: after}
			if err := e.to(c, s, out); err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.ErrOrStderr(), "%d events; the next export goes on with --after %d\n", e.events, e.last)
			return err
		})
	c.Flags().Uint64Var(&after, "after", 0, "begin after this checkpoint")
	c.Flags().StringVar(&out, "out", "", "write into this new `FILE` instead of to standard output")
	return c
}

// export is one run.
type export struct {
	last   uint64 // Checkpoint.
	events int
}

// to writes to a file, which appears when it is complete, or else to standard output.
func (e *export) to(c *cobra.Command, s *session, path string) error {
	if path == "" {
		return e.write(c, s, c.OutOrStdout())
	}
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s exists already; name another file", path)
	}
	partial := path + ".partial"
	f, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the file that the user names.
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s is there: another export is under way, or was cut off; remove it in the latter case", partial)
	}
	if err != nil {
		return err
	}
	err = e.write(c, s, f)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		return os.Rename(partial, path)
	}
	return errors.Join(err, os.Remove(partial))
}

// write fetches page after page.
func (e *export) write(c *cobra.Command, s *session, w io.Writer) error {
	var at []byte
	if e.last > 0 {
		at = binary.BigEndian.AppendUint64([]byte{1}, e.last) // docs/protocol.md, adminExportAudit.
	}
	for {
		page, err := call[*wire.ExportPage](c.Context(), s, &wire.AdminExportAuditRequest{After: at})
		if err != nil {
			return err
		}
		if err := e.note(page.Lines); err != nil {
			return err
		}
		if _, err := w.Write(page.Lines); err != nil {
			return fmt.Errorf("writing: %w", err)
		}
		if at = page.Next; len(at) == 0 {
			return nil
		}
	}
}

// note counts, and remembers the last checkpoint.
func (e *export) note(lines []byte) error {
	for line := range bytes.Lines(lines) {
		var l struct {
			Type               string
			Number, Checkpoint uint64
		}
		if err := json.Unmarshal(line, &l); err != nil {
			return errors.New("the cell answers with what is no export of an audit log")
		}
		switch l.Type {
		case "event":
			e.events++
		case "checkpoint":
			e.last = l.Number
		case "pruned":
			e.last = max(e.last, l.Checkpoint)
		}
	}
	return nil
}
