package wire

import (
	"time"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/ids"
)

// HelloRequest opens a connection: what the client speaks.
type HelloRequest struct {
	Client                 string
	MinVersion, MaxVersion uint16
}

// Method implements Request.
func (*HelloRequest) Method() string  { return "hello" }
func (r *HelloRequest) sizeHint() int { return len(r.Client) }

func (r *HelloRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewHello, func(s schema.HelloRequest) error {
		s.SetMinVersion(r.MinVersion)
		s.SetMaxVersion(r.MaxVersion)
		return s.SetClient(r.Client)
	})
}

func decodeHelloRequest(s schema.HelloRequest) (*HelloRequest, error) {
	var d decoder
	return result(&d, &HelloRequest{Client: d.text("client", 0, MaxClientName)(s.Client()),
		MinVersion: s.MinVersion(), MaxVersion: s.MaxVersion()})
}

// HelloResponse tells what the cell is and takes.
type HelloResponse struct {
	Server                                 string
	Version                                uint16
	CellID                                 ids.ID
	RestoreEpoch                           uint64
	ServerTime                             time.Time
	MaxControlFrame, MaxPayload            uint32 // Bytes.
	CipherSuites                           []uint16
	KeyPackageLifetime, LastResortLifetime time.Duration // Whole seconds on the wire.
	MaxKeyPackages                         uint16
}

func (r *HelloResponse) sizeHint() int { return len(r.Server) + 2*len(r.CipherSuites) }

func (r *HelloResponse) encodeResponse(p schema.Response) error {
	return fill(p.NewHello, func(s schema.HelloResponse) error {
		s.SetVersion(r.Version)
		s.SetRestoreEpoch(r.RestoreEpoch)
		s.SetServerTime(r.ServerTime.UnixMilli())
		s.SetMaxControlFrame(r.MaxControlFrame)
		s.SetMaxPayload(r.MaxPayload)
		s.SetKeyPackageLifetimeSec(uint32(r.KeyPackageLifetime / time.Second)) //nolint:gosec // policy bounds it.
		s.SetLastResortLifetimeSec(uint32(r.LastResortLifetime / time.Second)) //nolint:gosec // policy bounds it.
		s.SetMaxKeyPackages(r.MaxKeyPackages)
		suites, err := s.NewCipherSuites(int32(len(r.CipherSuites))) //nolint:gosec // a handful.
		if err != nil {
			return err
		}
		for i, c := range r.CipherSuites {
			suites.Set(i, c)
		}
		return first(s.SetServer(r.Server), s.SetCellId(r.CellID[:]))
	})
}

func decodeHelloResponse(s schema.HelloResponse) (*HelloResponse, error) {
	var d decoder
	r := &HelloResponse{Server: d.text("server", 0, MaxClientName)(s.Server()), Version: s.Version(),
		CellID: d.id("cellId")(s.CellId()), RestoreEpoch: s.RestoreEpoch(), ServerTime: time.UnixMilli(s.ServerTime()),
		MaxControlFrame: s.MaxControlFrame(), MaxPayload: s.MaxPayload(),
		KeyPackageLifetime: time.Duration(s.KeyPackageLifetimeSec()) * time.Second,
		LastResortLifetime: time.Duration(s.LastResortLifetimeSec()) * time.Second,
		MaxKeyPackages:     s.MaxKeyPackages()}
	suites, err := s.CipherSuites()
	if err != nil {
		return nil, err
	}
	for i := range d.count("cipherSuites", suites.Len(), maxCipherSuites) {
		r.CipherSuites = append(r.CipherSuites, suites.At(i))
	}
	return result(&d, r)
}

// GoAway asks the client to leave this connection.
type GoAway struct {
	Reason GoAwayReason
	Grace  time.Duration // Whole milliseconds on the wire.
}

// GoAwayReason says why a connection ends.
type GoAwayReason = schema.GoAway_Reason

// The reasons, by the names of the schema.
const (
	GoAwayDraining        = schema.GoAway_Reason_draining
	GoAwaySessionReplaced = schema.GoAway_Reason_sessionReplaced
	GoAwayRevoked         = schema.GoAway_Reason_revoked
	GoAwayTokenExpired    = schema.GoAway_Reason_tokenExpired
)

func (*GoAway) sizeHint() int { return 0 }

func (g *GoAway) encodePush(p schema.Push) error {
	return fill(p.NewGoAway, func(s schema.GoAway) error {
		s.SetReason(g.Reason)
		s.SetGraceMs(uint32(g.Grace.Milliseconds())) //nolint:gosec // seconds at most.
		return nil
	})
}

func decodeGoAway(s schema.GoAway) (*GoAway, error) {
	return &GoAway{Reason: s.Reason(), Grace: time.Duration(s.GraceMs()) * time.Millisecond}, nil
}

// first returns the first error; unlike errors.Join it keeps the error as it is.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
