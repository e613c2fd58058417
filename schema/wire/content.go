package wire

import (
	"time"

	"capnproto.org/go/capnp/v3"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/frame"
)

const contentVersion = 1

// Content is what people say: the plaintext of an MLS application message, which the cell never sees.
type Content struct {
	SentAt time.Time // By the sender's clock, millisecond precision.
	Text   string
}

// MarshalContent returns c as a frame.
func MarshalContent(c Content) ([]byte, error) {
	return frame.Build(64+len(c.Text), func(seg *capnp.Segment) error {
		s, err := schema.NewRootContent(seg)
		if err != nil {
			return err
		}
		s.SetVersion(contentVersion)
		s.SetSentAt(c.SentAt.UnixMilli())
		return s.SetText(c.Text)
	})
}

// UnmarshalContent reads what MarshalContent wrote. Every error is an *Error: a newer version or kind is
// CodeUnsupportedVersion.
func UnmarshalContent(b []byte) (Content, error) {
	msg, err := frame.Open(b)
	if err != nil {
		return Content{}, Errorf(CodeMalformed, "%v", err)
	}
	s, err := schema.ReadRootContent(msg)
	if err != nil {
		return Content{}, Errorf(CodeMalformed, "%v", err)
	}
	if s.Version() != contentVersion || s.Which() != schema.Content_Which_text {
		return Content{}, Errorf(CodeUnsupportedVersion, "content version %d, kind %d needs a newer client", s.Version(), s.Which())
	}
	var d decoder
	c := Content{SentAt: time.UnixMilli(s.SentAt()), Text: d.text("text", 0, MaxPayload)(s.Text())}
	return c, asError(d.err)
}
