package client

import (
	"time"
	"unicode/utf8"

	"quicproquo.dev/schema/wire"
)

// messageOverhead is at least what MLS adds to a plaintext here: header, authenticated data, signature, tags.
const messageOverhead = 256

// buckets are the sizes that plaintexts are padded to, in bytes, up to the step beyond.
var buckets = []int{256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20}

const bucketStep = 512 << 10

// paddedSize returns what a plaintext of n bytes is padded to, so that the message stays within maxPayload. ok is
// false when it cannot. The last bucket ends at the limit.
func paddedSize(n, maxPayload int) (size int, ok bool) {
	limit := maxPayload - messageOverhead
	if n > limit {
		return 0, false
	}
	for _, b := range buckets {
		if n <= b {
			return min(b, limit), true
		}
	}
	return min((n+bucketStep-1)/bucketStep*bucketStep, limit), true
}

// plaintext makes the content of a message and says what to pad it to. Errors: ErrNotUTF8, *TooLongError.
func plaintext(text string, now time.Time, maxPayload int) (content []byte, padded int, err error) {
	if !utf8.ValidString(text) {
		return nil, 0, ErrNotUTF8
	}
	content, err = wire.MarshalContent(wire.Content{SentAt: now, Text: text})
	if err != nil {
		return nil, 0, err
	}
	padded, ok := paddedSize(len(content), maxPayload)
	if !ok {
		return nil, 0, &TooLongError{len(text), maxPayload - messageOverhead - (len(content) - len(text))}
	}
	return content, padded, nil
}
