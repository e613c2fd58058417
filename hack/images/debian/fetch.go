package debian

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// ErrFetch means that a package could not be downloaded. The archive drops old
// versions, so that fresh package lists may help.
var ErrFetch = errors.New("a package cannot be downloaded")

// Fetch downloads the packages that are not there yet. apt verifies them
// against the signed lists, and Fetch against the hashes in list.
func (a *Apt) Fetch(ctx context.Context, list []Package) error {
	unlock, err := a.lock()
	if err != nil {
		return err
	}
	defer unlock()
	var missing []string
	for _, p := range list {
		if a.verify(p) != nil {
			missing = append(missing, p.Name+"="+p.Version)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	// A few at a time, so that there is progress to show.
	const batch = 8
	for done := 0; done < len(missing); done += batch {
		fmt.Fprintf(a.Log, "downloading packages: %d of %d\n", done, len(missing))
		names := missing[done:min(done+batch, len(missing))]
		if _, err := a.run(ctx, filepath.Join(a.Dir, "packages"), append([]string{"download"}, names...)...); err != nil {
			return fmt.Errorf("%w: %w", ErrFetch, err)
		}
	}
	for _, p := range list {
		if err := a.verify(p); err != nil {
			return err
		}
	}
	return nil
}

func (a *Apt) verify(p Package) error {
	f, err := os.Open(a.Path(p))
	if err != nil {
		return err
	}
	defer f.Close() // read only
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != p.SHA256 {
		return fmt.Errorf("%s: its SHA-256 is %s, the package lists say %s", p.File, got, p.SHA256)
	}
	return nil
}
