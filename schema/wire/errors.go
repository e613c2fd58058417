package wire

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"quicproquo.dev/schema"
)

// Code is the taxonomy of errors (schema/errors.capnp).
type Code = schema.ErrorCode

// The codes, by the names of the schema.
const (
	CodeInternal              = schema.ErrorCode_internal
	CodeMalformed             = schema.ErrorCode_malformed
	CodeUnsupportedVersion    = schema.ErrorCode_unsupportedVersion
	CodeUnknownMethod         = schema.ErrorCode_unknownMethod
	CodeFrameTooLarge         = schema.ErrorCode_frameTooLarge
	CodePayloadTooLarge       = schema.ErrorCode_payloadTooLarge
	CodeInvalidArgument       = schema.ErrorCode_invalidArgument
	CodeUnauthenticated       = schema.ErrorCode_unauthenticated
	CodeInvalidToken          = schema.ErrorCode_invalidToken
	CodeExpiredToken          = schema.ErrorCode_expiredToken
	CodeInvalidProof          = schema.ErrorCode_invalidProof
	CodeInvalidCredentials    = schema.ErrorCode_invalidCredentials
	CodePermissionDenied      = schema.ErrorCode_permissionDenied
	CodeNotFound              = schema.ErrorCode_notFound
	CodeAlreadyExists         = schema.ErrorCode_alreadyExists
	CodeBusy                  = schema.ErrorCode_busy
	CodeRateLimited           = schema.ErrorCode_rateLimited
	CodeDraining              = schema.ErrorCode_draining
	CodeUnsupportedSuite      = schema.ErrorCode_unsupportedSuite
	CodeInvalidKeyPackage     = schema.ErrorCode_invalidKeyPackage
	CodeExpiredKeyPackage     = schema.ErrorCode_expiredKeyPackage
	CodeReusedKeyPackage      = schema.ErrorCode_reusedKeyPackage
	CodeNoKeyPackage          = schema.ErrorCode_noKeyPackage
	CodeInvalidMessage        = schema.ErrorCode_invalidMessage
	CodeGenerationConflict    = schema.ErrorCode_generationConflict
	CodeEpochConflict         = schema.ErrorCode_epochConflict
	CodeDeliveryIDReused      = schema.ErrorCode_deliveryIdReused
	CodeDeliveryIDOutOfWindow = schema.ErrorCode_deliveryIdOutOfWindow
	CodeInvalidCursor         = schema.ErrorCode_invalidCursor
	CodeDeviceRevoked         = schema.ErrorCode_deviceRevoked
	CodeReusedToken           = schema.ErrorCode_reusedToken
	CodeSignupClosed          = schema.ErrorCode_signupClosed
	CodeInvalidInvitation     = schema.ErrorCode_invalidInvitation
	CodeAccountDisabled       = schema.ErrorCode_accountDisabled
	CodeLinkExpired           = schema.ErrorCode_linkExpired
	CodeContactPending        = schema.ErrorCode_contactPending
	CodeRemoveFirst           = schema.ErrorCode_removeFirst
)

// Limits of an error's parts: entries and bytes. The encoder cuts what is longer, so that an error always arrives.
const (
	maxDetails      = 8
	maxErrorMessage = 4096
	maxDetailKey    = 256
	maxDetailValue  = 1024
)

// Error is a structured error, on the wire and in Go.
type Error struct {
	Code       Code
	Message    string
	Retryable  bool
	RetryAfter time.Duration // Whole milliseconds on the wire.
	Details    []Detail      // At most 8.
}

// Detail is one machine-readable fact about an error.
type Detail struct{ Key, Value string }

// Errorf makes a permanent error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// RetryAfterf makes an error after which the same request may succeed.
func RetryAfterf(code Code, after time.Duration, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Retryable: true, RetryAfter: after}
}

// With adds a detail and returns e.
func (e *Error) With(key, value string) *Error {
	e.Details = append(e.Details, Detail{key, value})
	return e
}

// Error implements error.
func (e *Error) Error() string {
	if name := e.Code.String(); name != "" {
		return name + ": " + e.Message
	}
	return fmt.Sprintf("error code %d: %s", e.Code, e.Message) // Of a newer peer.
}

// Is makes errors.Is(err, &Error{Code: c}) true for any error of that code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Message == ""
}

// CodeOf returns err's code; CodeInternal when it has none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// HasCode reports whether err is of one of the codes.
func HasCode(err error, codes ...Code) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if e.Code == c {
			return true
		}
	}
	return false
}

func (e *Error) sizeHint() int {
	n := len(e.Message)
	for _, d := range e.Details {
		n += 48 + len(d.Key) + len(d.Value)
	}
	return n
}

func (e *Error) encode(s schema.Error) error {
	s.SetCode(e.Code)
	s.SetRetryable(e.Retryable)
	s.SetRetryAfterMs(uint32(min(max(e.RetryAfter.Milliseconds(), 0), math.MaxUint32))) //nolint:gosec // bounded.
	if err := s.SetMessage_(clip(e.Message, maxErrorMessage)); err != nil {
		return err
	}
	details := e.Details[:min(len(e.Details), maxDetails)]
	if len(details) == 0 {
		return nil
	}
	list, err := s.NewDetails(int32(len(details))) //nolint:gosec // at most 8.
	if err != nil {
		return err
	}
	for i, d := range details {
		if err := first(list.At(i).SetKey(clip(d.Key, maxDetailKey)), list.At(i).SetValue(clip(d.Value, maxDetailValue))); err != nil {
			return err
		}
	}
	return nil
}

// clip makes s valid UTF-8 of at most n bytes.
func clip(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func decodeError(s schema.Error) (*Error, error) {
	var d decoder
	e := &Error{Code: s.Code(), Retryable: s.Retryable(), RetryAfter: time.Duration(s.RetryAfterMs()) * time.Millisecond}
	e.Message = d.text("message", 0, maxErrorMessage)(s.Message_())
	list, err := s.Details()
	if err != nil {
		return nil, err
	}
	for i := range d.count("details", list.Len(), maxDetails) {
		e.Details = append(e.Details, Detail{d.text("key", 0, maxDetailKey)(list.At(i).Key()),
			d.text("value", 0, maxDetailValue)(list.At(i).Value())})
	}
	return result(&d, e)
}
