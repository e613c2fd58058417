package logging

import (
	"context"
	"encoding"
	"fmt"
	"io"
	"log/slog"
	"reflect"

	"quicproquo.dev/schema/ids"
)

// class says how a text under a key is written.
type class int

const (
	cleaned class = iota + 1 // Without what Clean takes out.
	public                   // As it is: the digest of something public.
)

// vocabulary are the keys under which a text may be written, by the programs' own code.
var vocabulary = map[string]class{
	"action": cleaned, "because": cleaned, "build": cleaned, "cell": cleaned, "cellImage": cleaned, "code": cleaned, "component": cleaned,
	"connection": cleaned, "contacts": cleaned, "error": cleaned, "fault": cleaned, "found": public, "hash": public, "in": cleaned, "kind": cleaned,
	"level": cleaned, "limit": cleaned, "method": cleaned, "namespaces": cleaned, "object": cleaned, "ops": cleaned, "panic": cleaned,
	"partitions": cleaned, "phase": cleaned, "policy": public, "postgresImage": cleaned, "problems": cleaned, "quic": cleaned, "reason": cleaned, "release": cleaned,
	"result": cleaned, "role": cleaned, "seen": public, "stack": public, "step": cleaned, "version": cleaned,
}

// Known reports whether a text may be written under a key.
func Known(key string) bool { return vocabulary[key] != 0 }

// Options say how a program logs.
type Options struct {
	Level slog.Leveler // Nil: info.
	// Text is for people to read; else each line is a JSON object.
	Text bool
	// Open lets texts be written under any key, and small structures of texts and numbers, such as a Kubernetes object's
	// name: for programs whose libraries log what we do not know beforehand.
	Open bool
}

// New makes a logger that writes to w.
func New(w io.Writer, o Options) *slog.Logger {
	settings := &slog.HandlerOptions{Level: o.Level}
	if o.Text {
		return slog.New(Wrap(slog.NewTextHandler(w, settings), o.Open))
	}
	return slog.New(Wrap(slog.NewJSONHandler(w, settings), o.Open))
}

// Wrap hands on to next what may be logged.
func Wrap(next slog.Handler, open bool) slog.Handler { return &handler{next, open} }

type handler struct {
	next slog.Handler
	open bool
}

// Enabled implements slog.Handler. Below slog.LevelDebug nothing is logged, whatever level is asked for: there,
// Kubernetes' client logs the bodies of requests and answers, Secrets among them.
func (h *handler) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelDebug && h.next.Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	clean := slog.NewRecord(r.Time, r.Level, Clean(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(h.attr(a))
		return true
	})
	return h.next.Handle(ctx, clean)
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(list []slog.Attr) slog.Handler {
	clean := make([]slog.Attr, len(list))
	for i, a := range list {
		clean[i] = h.attr(a)
	}
	return &handler{h.next.WithAttrs(clean), h.open}
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.next.WithGroup(name), h.open}
}

func (h *handler) attr(a slog.Attr) slog.Attr {
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindBool, slog.KindDuration, slog.KindFloat64, slog.KindInt64, slog.KindTime, slog.KindUint64:
		return slog.Attr{Key: a.Key, Value: v}
	case slog.KindGroup:
		group := make([]slog.Attr, len(v.Group()))
		for i, b := range v.Group() {
			group[i] = h.attr(b)
		}
		return slog.Attr{Key: a.Key, Value: slog.GroupValue(group...)}
	case slog.KindString:
		return slog.String(a.Key, h.text(a.Key, v.String()))
	case slog.KindAny, slog.KindLogValuer:
	}
	return slog.Attr{Key: a.Key, Value: h.any(a.Key, v.Any())}
}

// text is what is written of a text under a key.
func (h *handler) text(key, s string) string {
	switch vocabulary[key] {
	case public:
		return s
	case cleaned:
		return Clean(s)
	}
	if h.open {
		return Clean(s)
	}
	return "(a text under a key that is not in the vocabulary)"
}

// own is an address that is not a client's: the program listens on it.
type own string

// Own is the address that the program itself listens on.
func Own(a fmt.Stringer) any { return own(a.String()) }

func (h *handler) any(key string, v any) slog.Value {
	switch v := v.(type) {
	case nil:
		return slog.AnyValue(nil)
	case own:
		return slog.StringValue(string(v))
	case ids.ID:
		return slog.StringValue(v.String())
	case error:
		return slog.StringValue(h.text(key, v.Error()))
	case []string:
		list := make([]string, len(v))
		for i, s := range v {
			list[i] = h.text(key, s)
		}
		return slog.AnyValue(list)
	}
	return h.reflected(key, v)
}

// reflected is for types that this package does not know by name.
func (h *handler) reflected(key string, v any) slog.Value {
	r := reflect.ValueOf(v)
	switch r.Kind() {
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		return slog.StringValue(fmt.Sprint(v)) // An enumeration says its name.
	case reflect.String:
		return slog.StringValue(h.text(key, r.String()))
	case reflect.Struct:
		if h.open && small(r.Type()) {
			return slog.StringValue(Clean(fmt.Sprintf("%+v", v)))
		}
	default:
	}
	if m, ok := v.(encoding.TextMarshaler); ok && h.open && r.Kind() != reflect.Struct {
		if b, err := m.MarshalText(); err == nil {
			return slog.StringValue(Clean(string(b)))
		}
	}
	return slog.StringValue(fmt.Sprintf("(%T is not logged)", v))
}

const smallFields = 6

// small reports whether all that a structure holds are a few texts and numbers.
func small(t reflect.Type) bool {
	for i := range t.NumField() {
		switch t.Field(i).Type.Kind() {
		case reflect.String, reflect.Bool, reflect.Int, reflect.Int32, reflect.Int64:
		case reflect.Struct:
			if !small(t.Field(i).Type) {
				return false
			}
		default:
			return false
		}
	}
	return t.NumField() <= smallFields
}
