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
	case schema.Request_Which_setPasswordStart:
		return as[Request](q.SetPasswordStart, decodeSetPasswordStartRequest)
	case schema.Request_Which_setPasswordFinish:
		return as[Request](q.SetPasswordFinish, decodeSetPasswordFinishRequest)
	case schema.Request_Which_recover:
		return as[Request](q.Recover, decodeRecoverRequest)
	case schema.Request_Which_setRecoveryCodes:
		return as[Request](q.SetRecoveryCodes, decodeSetRecoveryCodesRequest)
	case schema.Request_Which_resetAccount:
		return as[Request](q.ResetAccount, decodeResetAccountRequest)
	case schema.Request_Which_endSession:
		return &EndSessionRequest{}, nil
	case schema.Request_Which_listDevices:
		return &ListDevicesRequest{}, nil
	case schema.Request_Which_renameDevice:
		return as[Request](q.RenameDevice, decodeRenameDeviceRequest)
	case schema.Request_Which_revokeDevice:
		return as[Request](q.RevokeDevice, decodeRevokeDeviceRequest)
	case schema.Request_Which_startDeviceLink:
		return as[Request](q.StartDeviceLink, decodeStartDeviceLinkRequest)
	case schema.Request_Which_getDeviceLink:
		return as[Request](q.GetDeviceLink, decodeGetDeviceLinkRequest)
	case schema.Request_Which_approveDeviceLink:
		return as[Request](q.ApproveDeviceLink, decodeApproveDeviceLinkRequest)
	case schema.Request_Which_finishDeviceLink:
		return as[Request](q.FinishDeviceLink, decodeFinishDeviceLinkRequest)
	case schema.Request_Which_deleteAccount:
		return as[Request](q.DeleteAccount, decodeDeleteAccountRequest)
	case schema.Request_Which_exportAccount:
		return as[Request](q.ExportAccount, decodeExportAccountRequest)
	case schema.Request_Which_adminAuthenticate:
		return as[Request](q.AdminAuthenticate, decodeAdminAuthenticateRequest)
	case schema.Request_Which_adminInvite:
		return as[Request](q.AdminInvite, decodeAdminInviteRequest)
	case schema.Request_Which_adminResetCode:
		return as[Request](q.AdminResetCode, decodeAdminResetCodeRequest)
	case schema.Request_Which_adminGetAccount:
		return as[Request](q.AdminGetAccount, decodeAdminGetAccountRequest)
	case schema.Request_Which_adminSetDisabled:
		return as[Request](q.AdminSetDisabled, decodeAdminSetDisabledRequest)
	case schema.Request_Which_adminRevokeDevice:
		return as[Request](q.AdminRevokeDevice, decodeAdminRevokeDeviceRequest)
	case schema.Request_Which_adminEndSessions:
		return as[Request](q.AdminEndSessions, decodeAdminEndSessionsRequest)
	case schema.Request_Which_adminDeleteAccount:
		return as[Request](q.AdminDeleteAccount, decodeAdminDeleteAccountRequest)
	case schema.Request_Which_adminExportAudit:
		return as[Request](q.AdminExportAudit, decodeAdminExportAuditRequest)
	case schema.Request_Which_openGroup:
		return as[Request](q.OpenGroup, decodeOpenGroupRequest)
	case schema.Request_Which_getChannel:
		return as[Request](q.GetChannel, decodeGetChannelRequest)
	case schema.Request_Which_listChannels:
		return as[Request](q.ListChannels, decodeListChannelsRequest)
	case schema.Request_Which_setRole:
		return as[Request](q.SetRole, decodeSetRoleRequest)
	case schema.Request_Which_setRetention:
		return as[Request](q.SetRetention, decodeSetRetentionRequest)
	case schema.Request_Which_getGroupInfo:
		return as[Request](q.GetGroupInfo, decodeGetGroupInfoRequest)
	case schema.Request_Which_voteGeneration:
		return as[Request](q.VoteGeneration, decodeVoteGenerationRequest)
	case schema.Request_Which_commit:
		return as[Request](q.Commit, decodeCommitRequest)
	case schema.Request_Which_propose:
		return as[Request](q.Propose, decodeProposeRequest)
	case schema.Request_Which_listContacts:
		return as[Request](q.ListContacts, decodeListContactsRequest)
	case schema.Request_Which_acceptContact:
		return as[Request](q.AcceptContact, decodeAcceptContactRequest)
	case schema.Request_Which_blockAccount:
		return as[Request](q.BlockAccount, decodeBlockAccountRequest)
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
	case schema.Response_Which_recover:
		return as[Response](p.Recover, decodeRecoverResponse)
	case schema.Response_Which_deviceList:
		return as[Response](p.DeviceList, decodeDeviceList)
	case schema.Response_Which_deviceLink:
		return as[Response](p.DeviceLink, decodeDeviceLink)
	case schema.Response_Which_exportPage:
		return as[Response](p.ExportPage, decodeExportPage)
	case schema.Response_Which_adminSession:
		return as[Response](p.AdminSession, decodeAdminSession)
	case schema.Response_Which_codes:
		return as[Response](p.Codes, decodeCodes)
	case schema.Response_Which_adminAccount:
		return as[Response](p.AdminAccount, decodeAdminAccount)
	case schema.Response_Which_channelDetails:
		return as[Response](p.ChannelDetails, decodeChannelDetails)
	case schema.Response_Which_channelList:
		return as[Response](p.ChannelList, decodeChannelList)
	case schema.Response_Which_channelGroupInfo:
		return as[Response](p.ChannelGroupInfo, decodeChannelGroupInfo)
	case schema.Response_Which_generationVotes:
		return as[Response](p.GenerationVotes, decodeGenerationVotes)
	case schema.Response_Which_commit:
		return as[Response](p.Commit, decodeCommitResponse)
	case schema.Response_Which_contactList:
		return as[Response](p.ContactList, decodeContactList)
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
	case schema.Push_Which_keyPackagesLow:
		return as[Push](p.KeyPackagesLow, decodeKeyPackagesLow)
	case schema.Push_Which_behind:
		return as[Push](p.Behind, decodeBehind)
	}
	return nil, Errorf(CodeUnknownMethod, "push %d is unknown here", p.Which())
}
