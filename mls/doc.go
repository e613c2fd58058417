// Package mls is an engine for Messaging Layer Security (RFC 9420), cipher suite
// 0x0001 (MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519), built on the standard
// library alone.
//
// A Group is one member's state. It is created (CreateGroup), joined by a Welcome
// (JoinGroup) or by an external Commit (JoinExternal); it changes by Commits, own
// ones (Commit, Merge) or others' (Process); it encrypts and decrypts application
// messages. A PublicGroup follows a group without being a member. The engine does no
// input or output: the caller moves MLSMessages, stores the encoded state encrypted,
// and says by a CredentialValidator which credentials it trusts.
//
// # How it is used
//
//  1. Every device makes KeyPackages (NewKeyPackage), keeps the bundles secret and
//     publishes their public part (KeyPackage.MarshalMessage).
//  2. Somebody creates a group (CreateGroup), fetches KeyPackages of the others, parses
//     and verifies them (ParseMessage, KeyPackage.Verify), and adds them: Commit with
//     CommitOptions.Adds. It sends PendingCommit.Commit to the members there are, waits
//     until the delivery service accepts it, calls Merge, and sends
//     PendingCommit.Welcome to the new members.
//  3. A new member parses the Welcome and joins (JoinGroup) with the bundle that it is for.
//  4. Members send (Encrypt) and hand everything that arrives to Process, which tells
//     what it was: a plaintext, a Commit that changed the group, or a proposal.
//  5. Everything is saved by MarshalBinary and loaded by UnmarshalGroup,
//     UnmarshalPendingCommit and UnmarshalKeyPackageBundle.
//
// All bytes that go to others are MLSMessages, so that one ParseMessage reads them all.
// Errors wrap the Err variables; test for them with errors.Is. The examples show each
// step as a program.
//
// # What the engine promises
//
//   - Nothing is believed unverified: a tree is always checked in full, whichever way
//     it comes, and a Commit takes effect only when its confirmation tag is right. On
//     an error a Group is as it was, byte for byte.
//   - A message key is used once. Consumed keys, and what they came from, are neither
//     in memory nor in the saved state; a replay is ErrReplay, after a reload as well.
//   - Work and memory are bounded: strict decoding, at most 1,024 generations skipped
//     by one message, as many stored keys per ratchet and 16,384 per epoch, 4 past
//     epochs kept for late messages, 1,024 proposals per epoch. Decoding allocates
//     less than 64 times the input and 64 KiB.
//   - No error carries a secret. Secrets are cleared where Go allows it; copies made
//     by the runtime or inside the standard library are out of reach.
//
// # What the caller must do
//
//   - Save the Group after each change and before its effects leave the process: then
//     a crash at any point neither reuses a key nor loses the group.
//   - Let one Commit per epoch win, the same for everyone: that is the delivery
//     service's part (RFC 9420 §14).
//   - Process messages in any order, but Commits in the order of their epochs.
//   - Judge identities in the CredentialValidator; without one everybody is believed.
//     Set a maximum for the lifetime of KeyPackages (LifetimeValidator).
//   - Commit before it sends application data when proposals wait (ProposalsWaiting).
//   - Use a group id once, and join no group whose id it already uses (RFC 9420 §12.4.3.1).
//
// # Where to find what
//
//	RFC 9420         subject                             file                                                     test
//	§2.1             presentation language               codec.go                                                 codec_test.go, decoders_test.go, mutations_test.go, bombs_test.go, fuzz_test.go
//	§4.1, App. C     tree math, resolution, paths        treemath.go, tree.go                                     treemath_test.go, tree_test.go
//	§5.1             crypto functions, labels            crypto.go                                                crypto_test.go
//	§5.2             references                          crypto.go, keypackage.go                                 crypto_test.go, keypackage_test.go
//	§5.3             credentials, succession             credential.go                                            credential_test.go
//	§6, §6.1         framing, signatures                 framing.go, message.go                                   framing_test.go, message_test.go, unknown_test.go
//	§6.2             PublicMessage                       publicmessage.go                                         framing_test.go, process_test.go
//	§6.3             PrivateMessage, padding             privatemessage.go, encrypt.go                            framing_test.go, group_test.go
//	§7.1, §12.4.3.3  tree encoding                       treecodec.go                                             treevalidate_test.go
//	§7.2, §7.3       leaf nodes, capabilities            leafnode.go, extension.go                                keypackage_test.go, credential_test.go, unknown_test.go
//	§7.4 – §7.6      TreeKEM                             treekem.go                                               treekem_test.go
//	§7.7             growing and shrinking               tree.go                                                  tree_test.go, treevalidate_test.go
//	§7.8, §7.9       tree hash, parent hash              treehash.go                                              tree_test.go, treevalidate_test.go
//	§7.9.2           tree validation                     treevalidate.go                                          tree_test.go, treevalidate_test.go
//	§8, §8.1         key schedule, GroupContext          keyschedule.go, context.go                               keyschedule_test.go
//	§7.6, §12.4.3.1  work shared among processors        parallel.go                                              parallel_test.go
//	§8.2             transcript hashes                   transcript.go                                            framing_test.go
//	§8.3             external initialization             keyschedule.go                                           keyschedule_test.go, external_test.go
//	§8.4             pre-shared keys                     psk.go                                                   psk_test.go, group_test.go, join_test.go
//	§8.5             exporter                            keyschedule.go, group.go                                 keyschedule_test.go, group_test.go
//	§8.6             resumption PSKs                     epoch.go, group.go                                       group_test.go
//	§8.7             epoch authenticator                 keyschedule.go, group.go                                 keyschedule_test.go, join_test.go
//	§9               secret tree, deletion               secrettree.go                                            secrettree_test.go, faults_test.go
//	§10              key packages                        keypackage.go                                            keypackage_test.go
//	§11              group creation                      create.go                                                group_test.go
//	§11.1            required capabilities               extension.go                                             extension_test.go, process_test.go, unknown_test.go
//	§12.1, §12.2     proposals, their lists              proposal.go, propose.go, proposallist.go                 proposal_test.go, tree_test.go
//	§12.1.8          proposals from outside              proposallist.go, process.go                              proposal_test.go, credential_test.go
//	§12.3            applying proposals                  transition.go                                            tree_test.go, property_test.go
//	§12.4.1          creating a Commit                   commit.go, commitproposals.go, selection.go, options.go  group_test.go, property_test.go
//	§12.4.2          processing a Commit                 process.go, processcommit.go                             join_test.go, process_test.go, fuzzlive_test.go
//	§12.4.3          GroupInfo                           groupinfo.go                                             faults_test.go, publicgroup_test.go, fuzzlive_test.go
//	§12.4.3.1        Welcome                             welcome.go, join.go                                      join_test.go, faults_test.go, fuzzlive_test.go
//	§12.4.3.2        external Commits                    external.go                                              external_test.go, faults_test.go
//	§13              extensions, unknown values, GREASE  extension.go                                             extension_test.go, unknown_test.go
//	§15              bounds, reordering, loss            secrettree.go, epoch.go                                  group_test.go, property_test.go, propertymessages_test.go, propertysteps_test.go
//	§16              following without membership        publicgroup.go                                           publicgroup_test.go, publicproperty_test.go, property_test.go
//	—                saved state                         state.go, secrettreestate.go, pendingstate.go            state_test.go, savedgroup_test.go, fuzzstate_test.go, crash_test.go
//	—                errors, and no secret in them       errors.go                                                faultsecrets_test.go
//	—                faults found in other engines       —                                                        faults_test.go, faultsbytes_test.go, faultsecrets_test.go, unknown_test.go
//
// Subgroup branching (§11.3) and the second group of a reinitialization (§11.2) are
// the caller's to start: a ReInit Commit closes the group and tells the parameters. The
// engine makes no Welcome with a PSK for either; it joins by one if JoinOptions.PSKs
// knows the key, in epoch 1 only, and leaves it to that store to compare the groups.
// Handshake messages are sent as PublicMessage and received in either form.
package mls
