package record

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// format names the files' layout: a line with the History's head, then a line for each Op.
const format = "quicproquo history 1"

type head struct {
	Format string `json:"format"`
	*History
}

// Write writes a history.
func (h *History) Write(w io.Writer) error {
	b := bufio.NewWriter(w)
	e := json.NewEncoder(b)
	if err := e.Encode(head{format, h}); err != nil {
		return err
	}
	for i := range h.Ops {
		if err := e.Encode(&h.Ops[i]); err != nil {
			return err
		}
	}
	return b.Flush()
}

// Save writes a history to a new file.
func (h *History) Save(path string) error {
	f, err := os.Create(path) //nolint:gosec // the caller's choice
	if err != nil {
		return err
	}
	return errors.Join(h.Write(f), f.Close())
}

// Read reads what Write wrote.
func Read(r io.Reader) (*History, error) {
	d := json.NewDecoder(bufio.NewReader(r))
	h := &History{}
	first := head{History: h}
	if err := d.Decode(&first); err != nil {
		return nil, fmt.Errorf("this is no history: %w", err)
	}
	if first.Format != format {
		return nil, fmt.Errorf("this is no history: its format is %q, want %q", first.Format, format)
	}
	for {
		var op Op
		switch err := d.Decode(&op); {
		case errors.Is(err, io.EOF):
			return h, nil
		case err != nil:
			return nil, fmt.Errorf("operation %d of the history: %w", len(h.Ops)+1, err)
		}
		h.Ops = append(h.Ops, op)
	}
}

// Load reads a file.
func Load(path string) (*History, error) {
	f, err := os.Open(path) //nolint:gosec // the caller's choice
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h, err := Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return h, nil
}
