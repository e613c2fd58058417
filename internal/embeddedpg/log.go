//go:build unix

package embeddedpg

import (
	"bytes"
	"os"
)

// maxLog is the size from which a start keeps the old log as postgres.log.1
// and begins a new one.
const maxLog = 16 << 20

// maxTail bounds how much of the log an error carries.
const maxTail = 2000

func openLog(o Options) (*os.File, error) {
	if fileSize(o.logFile()) > maxLog {
		if err := os.Rename(o.logFile(), o.logFile()+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(o.logFile(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

// fileSize is 0 for a file that cannot be looked at.
func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// tail returns the last lines written to a log since offset from, ready to be
// appended to an error message; it is empty if there are none.
func tail(path string, from int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close() // read only
	size := fileSize(path)
	from = max(from, size-maxTail)
	text := make([]byte, max(size-from, 0))
	n, _ := f.ReadAt(text, from) // what could be read is better than nothing
	text = bytes.TrimSpace(text[:n])
	if len(text) == 0 {
		return ""
	}
	return ":\n" + string(text)
}
