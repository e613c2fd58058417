package wire

import "quicproquo.dev/schema"

// as decodes one member of a union as the interface its siblings share.
func as[I, S any, B any](get func() (S, error), decode func(S) (B, error)) (I, error) {
	var none I
	s, err := get()
	if err != nil {
		return none, err
	}
	b, err := decode(s)
	if err != nil {
		return none, err
	}
	return any(b).(I), nil
}

func decodeRequest(q schema.Request) (Request, error) {
	switch q.Which() {
	case schema.Request_Which_hello:
		return as[Request](q.Hello, decodeHelloRequest)
	case schema.Request_Which_signupStart:
		return as[Request](q.SignupStart, decodeSignupStartRequest)
	case schema.Request_Which_signupFinish:
		return as[Request](q.SignupFinish, decodeSignupFinishRequest)
	case schema.Request_Which_loginStart:
		return as[Request](q.LoginStart, decodeLoginStartRequest)
	case schema.Request_Which_loginFinish:
		return as[Request](q.LoginFinish, decodeLoginFinishRequest)
	case schema.Request_Which_startSession:
		return as[Request](q.StartSession, decodeStartSessionRequest)
	case schema.Request_Which_refreshSession:
		return as[Request](q.RefreshSession, decodeRefreshSessionRequest)
	case schema.Request_Which_authenticate:
		return as[Request](q.Authenticate, decodeAuthenticateRequest)
	case schema.Request_Which_uploadKeyPackages:
		return as[Request](q.UploadKeyPackages, decodeUploadKeyPackagesRequest)
	case schema.Request_Which_keyPackageStatus:
		return &KeyPackageStatusRequest{}, nil
	case schema.Request_Which_claimKeyPackages:
		return as[Request](q.ClaimKeyPackages, decodeClaimKeyPackagesRequest)
	case schema.Request_Which_getAccount:
		return as[Request](q.GetAccount, decodeGetAccountRequest)
	case schema.Request_Which_openDm:
		return as[Request](q.OpenDm, decodeOpenDMRequest)
	case schema.Request_Which_createGroup:
		return as[Request](q.CreateGroup, decodeCreateGroupRequest)
	case schema.Request_Which_enqueue:
		return as[Request](q.Enqueue, decodeEnqueueRequest)
	case schema.Request_Which_subscribe:
		return as[Request](q.Subscribe, decodeSubscribeRequest)
	case schema.Request_Which_ack:
		return as[Request](q.Ack, decodeAckRequest)
	}
	return nil, Errorf(CodeUnknownMethod, "method %d is unknown here; the cell may be older than the client", q.Which())
}

func decodeResponse(p schema.Response) (Response, error) {
	switch p.Which() {
	case schema.Response_Which_done:
		return &Done{}, nil
	case schema.Response_Which_hello:
		return as[Response](p.Hello, decodeHelloResponse)
	case schema.Response_Which_signupStart:
		return as[Response](p.SignupStart, decodeSignupStartResponse)
	case schema.Response_Which_session:
		return as[Response](p.Session, decodeSession)
	case schema.Response_Which_loginStart:
		return as[Response](p.LoginStart, decodeLoginStartResponse)
	case schema.Response_Which_loginFinish:
		return as[Response](p.LoginFinish, decodeLoginFinishResponse)
	case schema.Response_Which_authenticate:
		return as[Response](p.Authenticate, decodeAuthenticateResponse)
	case schema.Response_Which_keyPackageStatus:
		return as[Response](p.KeyPackageStatus, decodeKeyPackageStatus)
	case schema.Response_Which_claimKeyPackages:
		return as[Response](p.ClaimKeyPackages, decodeClaimKeyPackagesResponse)
	case schema.Response_Which_account:
		return as[Response](p.Account, decodeAccount)
	case schema.Response_Which_channel:
		return as[Response](p.Channel, decodeChannel)
	case schema.Response_Which_createGroup:
		return as[Response](p.CreateGroup, decodeCreateGroupResponse)
	case schema.Response_Which_enqueue:
		return as[Response](p.Enqueue, decodeEnqueueResponse)
	case schema.Response_Which_subscribe:
		return as[Response](p.Subscribe, decodeSubscribeResponse)
	}
	return nil, Errorf(CodeUnknownMethod, "response %d is unknown here", p.Which())
}

func decodePush(p schema.Push) (Push, error) {
	switch p.Which() {
	case schema.Push_Which_deliver:
		return as[Push](p.Deliver, decodeDelivery)
	case schema.Push_Which_caughtUp:
		return as[Push](p.CaughtUp, decodeCaughtUp)
	case schema.Push_Which_goAway:
		return as[Push](p.GoAway, decodeGoAway)
	}
	return nil, Errorf(CodeUnknownMethod, "push %d is unknown here", p.Which())
}
