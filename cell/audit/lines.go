package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxLine is above the longest line there can be: a checkpoint with MaxMoves.
const maxLine = 16 << 20

// lines reads lines of bounded length.
type lines struct{ s *bufio.Scanner }

func newLines(r io.Reader) *lines {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 64<<10), maxLine)
	return &lines{s}
}

// next returns the next line, valid until the next call; io.EOF after the last.
func (l *lines) next() ([]byte, error) {
	if l.s.Scan() {
		return l.s.Bytes(), nil
	}
	if err := l.s.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			return nil, fmt.Errorf("it has more than %d bytes", maxLine)
		}
		return nil, err
	}
	return nil, io.EOF
}

// read decodes a line and hands it on. The line must be, byte for byte, as an export writes it: a second field of the
// same name would be read otherwise by others.
func read[T any](b []byte, f func(*T) error) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var l T
	if err := d.Decode(&l); err != nil {
		return fmt.Errorf("the line cannot be read: %w", err)
	}
	if again, err := json.Marshal(&l); err != nil || !bytes.Equal(again, b) {
		return errors.New("the line is not as an export writes it; verify the file as it was exported")
	}
	return f(&l)
}
