// Package wire turns frames into checked Go values and back. Every length and range that the protocol fixes is
// checked here, on both sides, so that what lies behind it only sees well-formed requests.
//
// Decoded values alias the frame they were read from: a caller that keeps one keeps the whole frame alive, and must
// not change the bytes.
package wire

import (
	"errors"
	"fmt"

	"capnproto.org/go/capnp/v3"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/frame"
)

// Envelope is one message on the wire.
type Envelope struct {
	// CorrelationID ties a response or an error to its request; 0 in pushes and in errors about the connection.
	CorrelationID uint64
	Body          Body
}

// Body is a Request, a Response, a Push or an *Error.
type Body interface {
	// sizeHint is about how many bytes the body takes beyond its fixed parts.
	sizeHint() int
}

// Request is a call's body.
type Request interface {
	Body
	// Method is the call's name in metrics and logs.
	Method() string
	encodeRequest(schema.Request) error
}

// Response is the body of a call's answer.
type Response interface {
	Body
	encodeResponse(schema.Response) error
}

// Push is what the cell says unasked.
type Push interface {
	Body
	encodePush(schema.Push) error
}

// fixedSize covers the envelope, a body's fixed part and its pointers, in bytes.
const fixedSize = 320

// Marshal returns e as a frame. Its size is not checked: the sender compares it with the receiver's limit. The frame is the
// caller's, but for that of a delivery after Encode.
func Marshal(e Envelope) ([]byte, error) {
	if e.Body == nil {
		return nil, errors.New("an envelope without a body cannot be sent")
	}
	if d, ok := e.Body.(*Delivery); ok && d.frame != nil && e.CorrelationID == 0 {
		return d.frame, nil
	}
	return frame.Build(fixedSize+e.Body.sizeHint(), func(seg *capnp.Segment) error {
		env, err := schema.NewRootEnvelope(seg)
		if err != nil {
			return err
		}
		env.SetVersion(schema.Version)
		env.SetCorrelationId(e.CorrelationID)
		return encodeBody(env, e.Body)
	})
}

func encodeBody(env schema.Envelope, body Body) error {
	switch b := body.(type) {
	case Request:
		return fill(env.NewRequest, b.encodeRequest)
	case Response:
		return fill(env.NewResponse, b.encodeResponse)
	case Push:
		return fill(env.NewPush, b.encodePush)
	case *Error:
		return fill(env.NewError, b.encode)
	}
	return fmt.Errorf("a %T is no body of an envelope", body)
}

// fill makes a struct inside a message and writes it.
func fill[T any](create func() (T, error), write func(T) error) error {
	s, err := create()
	if err != nil {
		return err
	}
	return write(s)
}

// Unmarshal reads a frame. On an error that names a cause the peer can act on, it is an *Error, and the returned
// envelope still carries the correlation id when it could be read.
func Unmarshal(b []byte) (Envelope, error) {
	msg, err := frame.Open(b)
	if err != nil {
		return Envelope{}, Errorf(CodeMalformed, "%v", err)
	}
	env, err := schema.ReadRootEnvelope(msg)
	if err != nil {
		return Envelope{}, Errorf(CodeMalformed, "%v", err)
	}
	e := Envelope{CorrelationID: env.CorrelationId()}
	if v := env.Version(); v != schema.Version {
		return e, Errorf(CodeUnsupportedVersion, "schema version %d is not spoken here; use version %d", v, schema.Version).
			With("supported", fmt.Sprint(schema.Version))
	}
	e.Body, err = decodeBody(env)
	return e, asError(err)
}

func decodeBody(env schema.Envelope) (Body, error) {
	switch env.Which() {
	case schema.Envelope_Which_request:
		return read(env.Request, decodeRequest)
	case schema.Envelope_Which_response:
		return read(env.Response, decodeResponse)
	case schema.Envelope_Which_push:
		return read(env.Push, decodePush)
	case schema.Envelope_Which_error:
		return read(env.Error, decodeError)
	case schema.Envelope_Which_none:
		return nil, Errorf(CodeMalformed, "the envelope is empty")
	}
	return nil, Errorf(CodeUnknownMethod, "an envelope of kind %d is unknown here", env.Which())
}

// read gets a struct out of a message and decodes it.
func read[S any, B Body](get func() (S, error), decode func(S) (B, error)) (Body, error) {
	s, err := get()
	if err != nil {
		return nil, err
	}
	body, err := decode(s)
	if err != nil {
		return nil, err // Not body: a typed nil would be no nil.
	}
	return body, nil
}

// asError makes any decoding failure an *Error.
func asError(err error) error {
	var e *Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	return Errorf(CodeMalformed, "%v", err)
}
