# Envelope: every message on the wire.
@0xfd41a16cc0fd7322;
using Go = import "/go.capnp";
$Go.package("schema");
$Go.import("quicproquo.dev/schema");

using Errors = import "errors.capnp";
using Session = import "session.capnp";
using Auth = import "auth.capnp";
using Keys = import "keys.capnp";
using Channels = import "channels.capnp";
using Delivery = import "delivery.capnp";
using Devices = import "devices.capnp";
using Account = import "account.capnp";
using Admin = import "admin.capnp";
using Contacts = import "contacts.capnp";

# version and correlationId keep their places for ever: every version can read them from any other.
struct Envelope {
  version @0 :UInt16;       # Schema version of the body: 1.
  correlationId @1 :UInt64; # Chosen by who asks, unique among its open requests; 0 in pushes.

  union {
    none @2 :Void;          # Invalid.
    request @3 :Request;
    response @4 :Response;
    push @5 :Push;
    error @6 :Errors.Error; # Answers a request, or, with correlation id 0, concerns the connection.
  }
}

struct Request {
  union {
    none @0 :Void;          # Invalid.
    hello @1 :Session.HelloRequest;
    signupStart @2 :Auth.SignupStartRequest;
    signupFinish @3 :Auth.SignupFinishRequest;
    loginStart @4 :Auth.LoginStartRequest;
    loginFinish @5 :Auth.LoginFinishRequest;
    startSession @6 :Auth.StartSessionRequest;
    refreshSession @7 :Auth.RefreshSessionRequest;
    authenticate @8 :Auth.AuthenticateRequest;
    uploadKeyPackages @9 :Keys.UploadKeyPackagesRequest;
    keyPackageStatus @10 :Void;
    claimKeyPackages @11 :Keys.ClaimKeyPackagesRequest;
    getAccount @12 :Channels.GetAccountRequest;
    openDm @13 :Channels.OpenDmRequest;
    createGroup @14 :Channels.CreateGroupRequest;
    enqueue @15 :Delivery.EnqueueRequest;
    subscribe @16 :Delivery.SubscribeRequest;
    ack @17 :Delivery.AckRequest;
    setPasswordStart @18 :Auth.SetPasswordStartRequest;
    setPasswordFinish @19 :Auth.SetPasswordFinishRequest;
    recover @20 :Auth.RecoverRequest;
    setRecoveryCodes @21 :Auth.SetRecoveryCodesRequest;
    resetAccount @22 :Auth.ResetAccountRequest;
    endSession @23 :Void;
    listDevices @24 :Void;
    renameDevice @25 :Devices.RenameDeviceRequest;
    revokeDevice @26 :Devices.RevokeDeviceRequest;
    startDeviceLink @27 :Devices.StartDeviceLinkRequest;
    getDeviceLink @28 :Devices.GetDeviceLinkRequest;
    approveDeviceLink @29 :Devices.ApproveDeviceLinkRequest;
    finishDeviceLink @30 :Devices.FinishDeviceLinkRequest;
    deleteAccount @31 :Account.DeleteAccountRequest;
    exportAccount @32 :Account.ExportAccountRequest;
    adminAuthenticate @33 :Admin.AdminAuthenticateRequest;
    adminInvite @34 :Admin.AdminInviteRequest;
    adminResetCode @35 :Admin.AdminResetCodeRequest;
    adminGetAccount @36 :Admin.AdminGetAccountRequest;
    adminSetDisabled @37 :Admin.AdminSetDisabledRequest;
    adminRevokeDevice @38 :Admin.AdminRevokeDeviceRequest;
    adminEndSessions @39 :Admin.AdminEndSessionsRequest;
    adminDeleteAccount @40 :Admin.AdminDeleteAccountRequest;
    adminExportAudit @41 :Admin.AdminExportAuditRequest;
    openGroup @42 :Channels.OpenGroupRequest;
    getChannel @43 :Channels.GetChannelRequest;
    listChannels @44 :Channels.ListChannelsRequest;
    setRole @45 :Channels.SetRoleRequest;
    setRetention @46 :Channels.SetRetentionRequest;
    getGroupInfo @47 :Channels.GetGroupInfoRequest;
    voteGeneration @48 :Channels.VoteGenerationRequest;
    commit @49 :Delivery.CommitRequest;
    propose @50 :Delivery.ProposeRequest;
    listContacts @51 :Contacts.ListContactsRequest;
    acceptContact @52 :Contacts.AcceptContactRequest;
    blockAccount @53 :Contacts.BlockAccountRequest;
  }
}

struct Response {
  union {
    done @0 :Void;          # For calls that answer nothing, such as ack.
    hello @1 :Session.HelloResponse;
    signupStart @2 :Auth.SignupStartResponse;
    session @3 :Auth.Session;
    loginStart @4 :Auth.LoginStartResponse;
    loginFinish @5 :Auth.LoginFinishResponse;
    authenticate @6 :Auth.AuthenticateResponse;
    keyPackageStatus @7 :Keys.KeyPackageStatus;
    claimKeyPackages @8 :Keys.ClaimKeyPackagesResponse;
    account @9 :Channels.Account;
    channel @10 :Channels.Channel;
    createGroup @11 :Channels.CreateGroupResponse;
    enqueue @12 :Delivery.EnqueueResponse;
    subscribe @13 :Delivery.SubscribeResponse;
    recover @14 :Auth.RecoverResponse;
    deviceList @15 :Devices.DeviceList;
    deviceLink @16 :Devices.DeviceLink;
    exportPage @17 :Account.ExportPage;
    adminSession @18 :Admin.AdminSession;
    codes @19 :Admin.Codes;
    adminAccount @20 :Admin.AdminAccount;
    channelDetails @21 :Channels.ChannelDetails;
    channelList @22 :Channels.ChannelList;
    channelGroupInfo @23 :Channels.ChannelGroupInfo;
    generationVotes @24 :Channels.GenerationVotes;
    commit @25 :Delivery.CommitResponse;
    contactList @26 :Contacts.ContactList;
  }
}

struct Push {
  union {
    none @0 :Void;          # Invalid.
    deliver @1 :Delivery.Delivery;
    caughtUp @2 :Delivery.CaughtUp;
    goAway @3 :Session.GoAway;
    keyPackagesLow @4 :Keys.KeyPackageStatus;  # Upload more. To subscriptions that know notices.
    behind @5 :Delivery.Behind;                # To subscriptions that know notices.
  }
}
